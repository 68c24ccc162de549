"""What happens inside a model at one training step: a row for each layer, and one for all.

The step itself is the ordinary one: it is watched, and nothing that it computes changes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench.initializers import LAYERS
from optbench.models import ACTIVATIONS

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
WATCHED: tuple[Any, ...] = (*LAYERS, *NORMS, *ACTIVATIONS.values(), nn.Softmax)
CHUNKS = 8  # of a batch, whose gradients' spread gives the noise scale
RANK_SHARE = 0.01  # a singular value below this share of the largest does not count
LayerRow = dict[str, float | str | None]


def watched_step(
    model: nn.Module,
    optimizer: Optimizer,
    closure: Callable[[], Tensor],
    batch_loss: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
) -> list[LayerRow]:
    """Take one optimizer step with `closure` and return what was seen, in the columns of
    `layers.csv`.

    batch_loss: `(x, y)` to the loss of these examples; called on parts of the batch for the
    gradient noise scale.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, WATCHED)]
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    noise = gradient_noise_scale(model, batch_loss, x, y)
    gradients: dict[str, Tensor] = {}

    def watched_closure() -> Tensor:
        loss = closure()
        if not gradients:  # lbfgs calls it several times; the first is at the present weights
            named = model.named_parameters()
            gradients.update({n: p.grad.detach().clone() for n, p in named if p.grad is not None})
        return loss

    with _watch(layers, len(x)) as seen:
        optimizer.step(watched_closure)  # type: ignore[arg-type]  # the stubs want a float
    after = {n: p.detach() for n, p in model.named_parameters()}
    rows: list[LayerRow] = []
    depth = 0
    for name, layer in layers:
        depth += isinstance(layer, LAYERS)
        own = [f"{name}.{key}" if name else key for key, _ in layer.named_parameters(recurse=False)]
        row: LayerRow = {"layer": name, "kind": type(layer).__name__.lower(), "depth": depth}
        row |= seen.get(name, {}) | _sizes(own, before, after, gradients)
        if isinstance(layer, nn.Linear):
            row["weight_rank"] = _rank(before[own[0]])
        rows.append(row)
    rows.append({"layer": "all", "kind": "all", "noise_scale": noise})
    rows[-1] |= _sizes(list(before), before, after, gradients)
    return rows


@contextmanager
def _watch(
    layers: list[tuple[str, nn.Module]], batch: int
) -> Iterator[dict[str, dict[str, float | str | None]]]:
    """Collect the statistics of the layers' first outputs, and of the gradients to them."""
    seen: dict[str, dict[str, float | str | None]] = {}

    def hook(name: str) -> Callable[..., None]:
        def see(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if name in seen or not torch.is_grad_enabled():
                return
            values = output.detach().float()
            units = values.flatten(2).movedim(1, 2).flatten(0, 1) if values.ndim > 2 else values
            seen[name] = {
                "activation_mean": values.mean().item(),
                "activation_std": values.std(correction=0).item(),
                "dead_fraction": (units <= 0).all(dim=0).float().mean().item(),
            }

            def see_gradient(gradient: Tensor) -> None:
                # the loss is a mean over the batch: times its size, the gradient of one example's
                deviation = batch * gradient.detach().float().std(correction=0)
                seen[name].setdefault("output_grad_std", deviation.item())

            if output.requires_grad:
                output.register_hook(see_gradient)

        return see

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _sizes(
    names: list[str],
    before: dict[str, Tensor],
    after: dict[str, Tensor],
    gradients: dict[str, Tensor],
) -> LayerRow:
    """Euclidean norms of the parameters, their gradients and their updates, taken together."""
    if not names:
        return {}
    weight = _norm([before[n] for n in names])
    update = _norm([after[n] - before[n] for n in names])
    return {
        "weight_norm": weight,
        "grad_norm": _norm([gradients[n] for n in names if n in gradients]),
        "update_norm": update,
        "update_ratio": update / weight if update is not None and weight else None,
    }


def _norm(tensors: list[Tensor]) -> float | None:
    if not tensors:
        return None
    return torch.stack([t.double().square().sum() for t in tensors]).sum().sqrt().item()


def _rank(weight: Tensor) -> float | None:
    if not weight.isfinite().all():
        return None
    values = torch.linalg.svdvals(weight.detach().float())
    return float((values > RANK_SHARE * values[0]).sum())


def gradient_noise_scale(
    model: nn.Module, batch_loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> float | None:
    """tr(covariance of the gradient) / |gradient|^2, in examples (McCandlish et al. 2018, app. A).

    From the gradients of `CHUNKS` parts of the batch. None where the batch is too small to be
    divided, or where the estimate of |gradient|^2 is not positive: the batch is all noise.
    Buffers and generators are put back, so that training goes on as if nothing had happened.
    """
    size = len(x) // CHUNKS
    if size < 2:  # batch norm needs two examples
        return None
    total = size * CHUNKS
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    held = (value for module in model.modules() for value in vars(module).values())
    generators = [value for value in held if isinstance(value, torch.Generator)]
    states = [g.get_state() for g in generators]
    parameters = [p for p in model.parameters() if p.requires_grad]
    mean, square = [torch.zeros_like(p) for p in parameters], 0.0
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        for xb, yb in zip(x[:total].split(size), y[:total].split(size), strict=True):
            gradients = torch.autograd.grad(batch_loss(xb, yb), parameters, allow_unused=True)
            for sum_, gradient in zip(mean, gradients, strict=True):
                if gradient is not None:
                    sum_.add_(gradient, alpha=1 / CHUNKS)
                    square += gradient.double().square().sum().item() / CHUNKS
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    large = sum(m.double().square().sum().item() for m in mean)  # |gradient of the whole|^2
    signal = (total * large - size * square) / (total - size)
    noise = (square - large) / (1 / size - 1 / total)
    return noise / signal if signal > 0 else None

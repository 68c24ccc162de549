"""Statistics of a training step: a row for each layer, and one for all layers.

The step computes the same numbers as an ordinary one.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from optbench.initializers import EMBEDDINGS, FILLED_LAYERS, RECURRENT_LAYERS
from optbench.models import ACTIVATIONS, ReluSquared
from optbench.streams import Stream
from optbench.torch_internals import BATCH_NORM, CONVOLUTION
from optbench.training import object_state
from optbench.training.stepping import Stepper
from optbench.training.steps import LayerRow

NORMS = (BATCH_NORM, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
# layers whose outputs have the units in dimension 1, and those that have them in the last one
CHANNELS_FIRST = (CONVOLUTION, BATCH_NORM, nn.GroupNorm)
UNITS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, *EMBEDDINGS, *RECURRENT_LAYERS)
DEEPENING = (*FILLED_LAYERS, *RECURRENT_LAYERS)  # layers that count for the depth
WATCHED: tuple[Any, ...] = (
    *DEEPENING, *EMBEDDINGS, *NORMS, *ACTIVATIONS.values(), nn.Softmax, ReluSquared
)  # fmt: skip
PERCENTILES = {"p15": 0.15, "p50": 0.5, "p85": 0.85}
NOISE_CHUNKS = 8  # parts of a batch; the spread of their gradients gives the noise scale
FLAT_SHARE = 0.05  # outputs this close to an activation's limits count as saturated
MIN_SINGULAR_VALUE = 0.01  # of the largest; smaller ones do not count for the rank


def step_with_layer_stats(
    model: nn.Module,
    stepper: Stepper,
    batch_loss: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
) -> tuple[list[LayerRow], Tensor]:
    """Take one step and return its rows of `layers.csv` and its loss.

    batch_loss: `(x, y)` to a loss; `gradient_noise` calls it on parts of the batch.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, WATCHED)]
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    noise = gradient_noise(model, batch_loss, x, y)
    gradients: dict[str, Tensor] = {}

    def see_gradients() -> None:
        named = model.named_parameters()
        gradients.update({n: p.grad.detach().clone() for n, p in named if p.grad is not None})

    with _watch(layers, len(x)) as seen:
        loss = stepper.step(x, y, see_gradients)
    after = {n: p.detach() for n, p in model.named_parameters()}
    rows: list[LayerRow] = []
    depth = 0
    for name, layer in layers:
        depth += isinstance(layer, DEEPENING)
        own = [f"{name}.{key}" if name else key for key, _ in layer.named_parameters(recurse=False)]
        row: LayerRow = {"layer": name, "kind": type(layer).__name__.lower(), "depth": depth}
        row |= seen.get(name, {}) | _sizes(own, before, after, gradients)
        if isinstance(layer, nn.Linear):
            row["weight_rank"] = _rank(before[own[0]])
        rows.append(row)
    rows.append({"layer": "all", "kind": "all", "noise_scale": noise.scale})
    rows[-1]["grad_variance"] = noise.variance
    rows[-1] |= _sizes(list(before), before, after, gradients)
    return rows, loss


@contextmanager
def _watch(layers: list[tuple[str, nn.Module]], batch: int) -> Iterator[dict[str, LayerRow]]:
    """Collect statistics of the layers' first outputs and of the outputs' gradients."""
    seen: dict[str, LayerRow] = {}
    units_last = False  # of the last layer with known units; an activation follows its layer

    def hook(name: str) -> Callable[..., None]:
        def see(module: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal units_last
            if isinstance(module, CHANNELS_FIRST + UNITS_LAST):
                units_last = isinstance(module, UNITS_LAST)
            if name in seen or not torch.is_grad_enabled():
                return
            while not isinstance(output, Tensor):  # recurrent layers give their states as well
                output = output[0]
            values = output.detach().float()
            units = values
            if values.ndim > 2:
                units = values if units_last else values.flatten(2).movedim(1, -1)
                units = units.flatten(0, -2)
            seen[name] = {
                "activation_mean": values.mean().item(),
                "activation_std": values.std(correction=0).item(),
                "dead_fraction": (units <= 0).all(dim=0).float().mean().item(),
                "saturated_fraction": saturated_fraction(module, values),
                **percentiles(values),
            }

            def see_gradient(gradient: Tensor) -> None:
                # the loss is a batch's mean: times the batch size, this is one example's gradient
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


def percentiles(values: Tensor) -> LayerRow:
    """Return the percentiles of a layer's outputs, over examples and units.

    For the layer before an activation they describe the activation's inputs. Ioffe & Szegedy 2015,
    figure 1, show the 15th, 50th and 85th percentile.
    """
    flat = values.flatten().sort().values
    places = {name: round(share * (len(flat) - 1)) for name, share in PERCENTILES.items()}
    return {f"activation_{name}": flat[place].item() for name, place in places.items()}


def saturated_fraction(module: nn.Module, values: Tensor) -> float | None:
    """Return the share of outputs in the flat ends of a saturating activation.

    The flat ends of a sigmoid are below 0.05 and above 0.95, those of a tanh beyond +-0.95. None
    for other layers; for a ReLU see `dead_fraction`.
    """
    if isinstance(module, nn.Sigmoid):
        values = 2 * values - 1
        limit = 1 - 2 * FLAT_SHARE
    elif isinstance(module, nn.Tanh):
        limit = 1 - FLAT_SHARE
    else:
        return None
    return (values.abs() > limit).float().mean().item()


def _sizes(
    names: list[str],
    before: dict[str, Tensor],
    after: dict[str, Tensor],
    gradients: dict[str, Tensor],
) -> LayerRow:
    """Return the Euclidean norms of the named parameters, their gradients and updates."""
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
    dense = [t.to_dense() if t.is_sparse else t for t in tensors]
    return torch.stack([t.abs().double().square().sum() for t in dense]).sum().sqrt().item()


def _rank(weight: Tensor) -> float | None:
    if not weight.isfinite().all():
        return None
    values = torch.linalg.svdvals(weight.detach().float())
    return float((values > MIN_SINGULAR_VALUE * values[0]).sum())


class GradientNoise(NamedTuple):
    """How much the gradients of examples differ.

    scale: tr(covariance of the examples' gradients) / |gradient|^2, in examples. variance: the
    variance of a batch's gradient, summed over all weights: that trace divided by the batch size.
    """

    scale: float | None
    variance: float | None


def gradient_noise(
    model: nn.Module, batch_loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> GradientNoise:
    """Return the noise of a batch's gradient, from `NOISE_CHUNKS` parts of the batch.

    The estimates are those of McCandlish et al. 2018, appendix A. None where the batch is too small
    to be divided; the scale also where the estimate of |gradient|^2 is not positive. Buffers and
    generators are restored, so that training is unchanged.
    """
    size = len(x) // NOISE_CHUNKS
    if size < 2:  # batch norm needs two examples
        return GradientNoise(None, None)
    total = size * NOISE_CHUNKS
    parameters = [p for p in model.parameters() if p.requires_grad]
    mean, square = [torch.zeros_like(p) for p in parameters], 0.0
    with Stream(0, "noise scale", x.device), _restored(model):
        for xb, yb in zip(x[:total].split(size), y[:total].split(size), strict=True):
            gradients = torch.autograd.grad(batch_loss(xb, yb), parameters, allow_unused=True)
            for sum_, gradient in zip(mean, gradients, strict=True):
                if gradient is not None:
                    sum_.add_(gradient, alpha=1 / NOISE_CHUNKS)
                    square += (_norm([gradient]) or 0.0) ** 2 / NOISE_CHUNKS
    large = (_norm(mean) or 0.0) ** 2  # |gradient of the whole batch|^2
    signal = (total * large - size * square) / (total - size)
    noise = (square - large) / (1 / size - 1 / total)
    return GradientNoise(noise / signal if signal > 0 else None, noise / len(x))


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Restore the model's buffers, generators and counters at the end of the block."""
    roots, parameters = {"model": model}, list(model.parameters())
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        before = copy.deepcopy(object_state.capture(roots, parameters))
    except object_state.Unsaveable:  # only the buffers, which torch knows, can be restored
        before = None
    try:
        yield
    finally:
        if before is not None:
            object_state.restore(roots, parameters, before)
        else:
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])

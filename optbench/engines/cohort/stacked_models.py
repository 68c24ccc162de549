"""Many models of one architecture computed as one: their parameters are slices of stacked tensors,
and one vectorised pass (`torch.func`) gives each its own loss and gradient.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from optbench.models import Dropout
from optbench.problem import Problem, build_model
from optbench.training.evaluation import batch_sums, objective, total


class Stack:
    """K models of one problem. Afterwards their parameters and buffers are views of `parameters`
    and `buffers`, tensors of shape (K, ...): what changes one changes the other.

    template: a model of its own, whose structure is used and whose values are not.
    """

    def __init__(self, problem: Problem, template: nn.Module, models: Sequence[nn.Module]) -> None:
        self.template = template
        self.parameters = _share([dict(m.named_parameters()) for m in models])
        self.buffers = _share([dict(m.named_buffers()) for m in models])
        own = {name for name, p in template.named_parameters() if p.requires_grad}
        self.trained = [name for name in self.parameters if name in own]
        for name in self.trained:
            self.parameters[name].requires_grad_()
        self._objective = _Call(problem, template, objective)
        self._sums = _Call(problem, template, batch_sums)
        for layer in template.modules():
            if type(layer) is nn.Linear:
                vars(layer)["forward"] = partial(_linear, layer)

    def gradients(
        self, x: Tensor, y: Tensor, masks: dict[str, Tensor], *, shared: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Each model's loss (K,), and the gradients of it (K, ...) by parameter.

        x, y, masks: (K, batch, ...); where they are `shared` by all, (batch, ...).
        """
        self.template.train()
        losses = self._each(self._objective, (x, y, masks), shared)
        weights = [self.parameters[name] for name in self.trained]
        # the losses have nothing in common: each weight's gradient is that of its own model's loss
        found = torch.autograd.grad(losses.sum(), weights, allow_unused=True)
        gradients = {
            # kernels for many tensors want the strides of the weights
            name: g.contiguous()
            for name, g in zip(self.trained, found, strict=True)
            if g is not None
        }
        return losses.detach(), gradients

    def scores(self, x: Tensor, y: Tensor) -> Tensor:
        """`evaluation.total` of each model over the same examples: (K, 3)."""
        self.template.eval()
        # `total` adds up over the parts of the examples whatever shape the sums have
        sums = total(lambda xb, yb: self._each(self._sums, (xb, yb, {}), True), x, y)
        return sums.expand(len(next(iter(self.parameters.values()))), 3)

    def _each(self, call: nn.Module, given: tuple[Any, ...], shared: bool) -> Tensor:
        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *given: Any) -> Any:
            values = {f"model.{k}": v for k, v in (parameters | buffers).items()}
            return functional_call(call, values, given)

        in_dims = (0, 0, *[None if shared else 0] * len(given))
        return vmap(one, in_dims=in_dims)(self.parameters, self.buffers, *given)


class _Call(nn.Module):
    """`function(problem, model, x, y)` as a module, with the model's dropout masks given."""

    def __init__(self, problem: Problem, model: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.problem, self.model, self.function = problem, model, function

    def forward(self, x: Tensor, y: Tensor, masks: dict[str, Tensor]) -> Tensor:
        layers = [self.model.get_submodule(name) for name in masks]
        for layer, mask in zip(layers, masks.values(), strict=True):
            vars(layer)["mask"] = mask
        try:
            return self.function(self.problem, self.model, x, y)
        finally:
            for layer in layers:
                vars(layer)["mask"] = None


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """What the layer does to a batch, as weights times inputs: stacked, torch's own order leaves
    the weights' gradients transposed, and on a CPU it takes half as long again or twice as long."""
    if x.ndim != 2:
        return F.linear(x, layer.weight, layer.bias)
    y = (layer.weight @ x.T).T
    return y if layer.bias is None else y + layer.bias


def _share(models: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Stack equally named tensors and make each a view of its slice."""
    stacks = {}
    for name in models[0]:
        own = [model[name] for model in models]
        stacks[name] = torch.stack([tensor.detach() for tensor in own])
        for tensor, slice_ in zip(own, stacks[name], strict=True):
            tensor.data = slice_
    return stacks


class Masks:
    """What the dropout layers of a problem's model draw, for any batch, outside of the model."""

    def __init__(self, problem: Problem, device: torch.device) -> None:
        """Find the layers, and the shapes of their inputs, by two examples."""
        self.calls: list[tuple[str, Dropout, tuple[int, ...], torch.dtype]] = []
        model = build_model(problem, 0).to(device)
        layers = {n: m for n, m in model.named_modules() if type(m) is Dropout}
        for name, layer in layers.items():
            layer.generator = torch.Generator(device)
            layer.register_forward_hook(self._hook(name))
        data = problem.dataset
        with torch.no_grad():
            objective(problem, model, data.train_x[:2].to(device), data.train_y[:2].to(device))

    def _hook(self, name: str) -> Callable[..., None]:
        def see(layer: Dropout, inputs: tuple[Tensor], output: Tensor) -> None:
            if layer.p:
                dtype = inputs[0].dtype  # of float64, the masks that float32 has
                dtype = torch.float32 if dtype is torch.float64 else dtype
                self.calls.append((name, layer, tuple(inputs[0].shape[1:]), dtype))

        return see

    def draw(self, batch: int, generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """By layer, the masks that each generator gives a model of its own: (generators, batch,
        ...)."""
        drawn: dict[str, Tensor] = {}
        for name, layer, shape, dtype in self.calls:
            device = generators[0].device
            drawn[name] = torch.empty((len(generators), batch, *shape), dtype=dtype, device=device)
            for mask, generator in zip(drawn[name], generators, strict=True):
                layer.fill(mask, generator)
        return drawn

"""Initializers: functions that fill the weights and biases of layers in place.

Any function of a tensor serves for the weights, such as those of `torch.nn.init`. Linear and
convolution layers are filled; batch-norm parameters keep 1 and 0.
"""

import inspect
from collections.abc import Callable
from functools import partial
from math import ceil, sqrt

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from optbench.common.errors import UserError

FILLED_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
Fill = Callable[..., object]


def fill(initializer: Fill, model: nn.Module, generator: torch.Generator) -> None:
    """Fill the model in place by a problem's initializer, without recording gradients."""
    with torch.no_grad():
        made = initializer(model, generator)
    if isinstance(made, nn.Module) and made is not model:
        raise TypeError("it gives another model; it has to fill the one that it is given, in place")


def initialize(
    module: nn.Module,
    generator: torch.Generator,
    *,
    weight: Fill | None = None,
    bias: float | None = None,
) -> None:
    """Fill the linear and convolution layers of `module` from a CPU generator.

    `weight(tensor)` or `weight(tensor, generator=...)` fills one weight. `bias` is a constant. None
    is torch's default for both, uniform in +-1/sqrt(fan_in). A weight that torch computes from
    others (`torch.nn.utils.parametrizations`) is set through them. Frozen weights (requires_grad is
    False) stay as the model made them.
    """
    for layer in module.modules():
        if isinstance(layer, FILLED_LAYERS):
            bound = 1 / sqrt(layer.weight.shape[1:].numel())
            default = partial(nn.init.uniform_, a=-bound, b=bound)
            _fill_part(layer, "weight", weight or default, generator)
            if layer.bias is not None:
                constant = None if bias is None else partial(nn.init.constant_, val=bias)
                _fill_part(layer, "bias", constant or default, generator)


def _fill_part(layer: nn.Module, name: str, function: Fill, generator: torch.Generator) -> None:
    """Fill the layer's weight or bias by the function."""
    tensor: Tensor = getattr(layer, name)
    computed = is_parametrized(layer, name)
    given = layer.parametrizations[name].parameters() if computed else [tensor]
    if not any(p.requires_grad for p in given):
        return
    if not computed and name not in layer._parameters:
        raise TypeError(
            f"the {name} of a {type(layer).__name__} is computed from others, which it cannot set: "
            f"use torch.nn.utils.parametrizations"
        )
    with torch.no_grad():
        if computed:
            tensor = tensor.clone()
        before, kind = tensor.clone(), (tensor.shape, tensor.dtype)
        made = function(tensor, generator=generator) if _takes(function) else function(tensor)
        if (tensor.shape, tensor.dtype) != kind:
            raise TypeError(f"it makes a {name} of shape {tuple(kind[0])} another tensor")
        unchanged = torch.equal(before, tensor)
        if isinstance(made, Tensor) and unchanged and not torch.equal(made, tensor):
            raise TypeError(
                "it gives a new tensor and leaves the one that it is given as it was: fill that "
                "one in place (tensor.copy_(new))"
            )
        if computed:
            setattr(layer, name, tensor)


def _takes(function: Fill) -> bool:
    """Return whether the function takes a generator."""
    try:
        return "generator" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin has no signature
        return False


@torch.no_grad()
def sparse_(
    tensor: Tensor, sparsity: float, std: float = 0.01, generator: torch.Generator | None = None
) -> Tensor:
    """Fill with Gaussian weights, a share `sparsity` of each unit's inputs zero.

    `tensor` is `(out, in, ...)` (Martens 2010). torch.nn.init.sparse_ chooses the zeros per input,
    from the global generator, for matrices only. Raises `UserError` unless 0 <= sparsity <= 1.
    """
    if not 0 <= sparsity <= 1:
        raise UserError(f"sparsity must be between 0 and 1 (all weights are zero), not {sparsity}")
    rows = tensor.view(tensor.shape[0], -1).normal_(0, std, generator=generator)
    zeros = ceil(sparsity * rows.shape[1])
    order = torch.rand(rows.shape, generator=generator).argsort(dim=1)
    rows.scatter_(1, order[:, :zeros], 0.0)
    return tensor


def uniform_(tensor: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill with uniform numbers in [-scale, scale]."""
    return nn.init.uniform_(tensor, -scale, scale, generator=generator)


def truncated_normal_(
    tensor: Tensor, scale: float, generator: torch.Generator | None = None
) -> Tensor:
    """Fill with Gaussian numbers of std `scale`, redrawn beyond twice `scale`."""
    return nn.init.trunc_normal_(tensor, 0, scale, -2 * scale, 2 * scale, generator=generator)


def xavier_by_layer_(tensor: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Fill by Glorot & Bengio 2010: convolutions normal, dense layers uniform."""
    fill = nn.init.xavier_normal_ if tensor.ndim > 2 else nn.init.xavier_uniform_
    return fill(tensor, generator=generator)

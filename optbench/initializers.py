"""Initializers fill the weights and biases of linear and convolution layers in place.

Any function of a tensor serves for the weights, such as those of `torch.nn.init`; batch-norm
parameters keep 1 and 0.
"""

import inspect
from collections.abc import Callable
from math import ceil, sqrt

import torch
from torch import Tensor, nn

from optbench.errors import UserError

LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def initialize(
    module: nn.Module,
    generator: torch.Generator,
    *,
    weight: Callable[..., object] | None = None,
    bias: float | None = None,
) -> None:
    """Fill `module` in place from `generator` (on the CPU).

    `weight(tensor)` or `weight(tensor, generator=...)` fills one weight; None is torch's default,
    uniform in +-1/sqrt(fan_in). `bias` is a constant; None is torch's default, the same range.
    """
    for layer in module.modules():
        if isinstance(layer, LAYERS):
            bound = 1 / sqrt(layer.weight.shape[1:].numel())
            if weight is None:
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            elif "generator" in inspect.signature(weight).parameters:
                weight(layer.weight, generator=generator)
            else:
                weight(layer.weight)
            if layer.bias is None:
                continue
            if bias is None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
            else:
                nn.init.constant_(layer.bias, bias)


@torch.no_grad()
def sparse_(
    tensor: Tensor, sparsity: float, std: float = 0.01, generator: torch.Generator | None = None
) -> Tensor:
    """Gaussian with the part `sparsity` of each unit's incoming weights zero (Martens 2010).

    `tensor` is `(out, in, ...)`. torch.nn.init.sparse_ chooses the zeros per input, from the global
    generator, and takes matrices only.

    Raises `UserError` unless 0 <= sparsity <= 1.
    """
    if not 0 <= sparsity <= 1:
        raise UserError(f"sparsity must be between 0 and 1 (all weights are zero), not {sparsity}")
    rows = tensor.view(tensor.shape[0], -1).normal_(0, std, generator=generator)
    zeros = ceil(sparsity * rows.shape[1])
    order = torch.rand(rows.shape, generator=generator).argsort(dim=1)
    rows.scatter_(1, order[:, :zeros], 0.0)
    return tensor


def uniform_(tensor: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Uniform in [-scale, scale]."""
    return nn.init.uniform_(tensor, -scale, scale, generator=generator)


def truncated_normal_(
    tensor: Tensor, scale: float, generator: torch.Generator | None = None
) -> Tensor:
    """Gaussian with standard deviation `scale`, drawn anew beyond two of them (TensorFlow's)."""
    return nn.init.trunc_normal_(tensor, 0, scale, -2 * scale, 2 * scale, generator=generator)


def xavier_by_layer_(tensor: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Glorot & Bengio 2010: Gaussian for convolutions, uniform for dense layers."""
    fill = nn.init.xavier_normal_ if tensor.ndim > 2 else nn.init.xavier_uniform_
    return fill(tensor, generator=generator)

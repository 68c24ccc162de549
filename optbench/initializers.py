"""Initializers: functions that fill the weights and biases of layers in place.

Any function of a tensor serves for the weights, such as those of `torch.nn.init`. Linear and
convolution layers, embeddings, recurrent layers and the projections of `nn.MultiheadAttention` are
filled; the parameters of norms keep 1 and 0.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from optbench.common.errors import UserError
from optbench.torch_internals import CONVOLUTION, own_parameters, recurrent_names

FILLED_LAYERS = (nn.Linear, CONVOLUTION)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
RECURRENT_LAYERS = (nn.RNNBase, nn.RNNCellBase)
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
    """Fill the layers of `module` from a CPU generator.

    `weight(tensor)` or `weight(tensor, generator=...)` fills one matrix at a time: each gate of a
    recurrent layer, and the whole matrix (tokens, width) of an embedding. `bias` is a constant; the
    second of a recurrent layer's two biases is 0. None keeps the default: a model's own method
    `published_init` if there is one, else torch's default, which is uniform in +-1/sqrt(fan_in) for
    linear and convolution layers. A weight that torch computes from others
    (`torch.nn.utils.parametrizations`) is set through them. Frozen weights (requires_grad is False)
    stay as the model made them.
    """
    published: set[nn.Module] = set()
    if weight is None:
        for part in module.modules():
            if callable(own := getattr(part, "published_init", None)):
                own(generator)
                published.update(part.modules())
    constant = None if bias is None else partial(nn.init.constant_, val=bias)
    for layer in module.modules():
        default: Fill | None = None  # the numbers that a layer has already
        if isinstance(layer, FILLED_LAYERS) and layer not in published:
            bound = 1 / sqrt(layer.weight.shape[1:].numel())
            default = partial(nn.init.uniform_, a=-bound, b=bound)
        for name, matrices in _weights_of(layer):
            if (fill := weight or default) is not None:
                _fill_part(layer, name, fill, generator, matrices)
        for name in _biases_of(layer):
            if (fill := constant or default) is not None:
                _fill_part(layer, name, fill, generator)
            if constant is not None and name.startswith("bias_hh"):
                _fill_part(layer, name, nn.init.zeros_, generator)


def _weights_of(layer: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield the names of a layer's weights, each with how many matrices stand in it."""
    if isinstance(layer, (*FILLED_LAYERS, *EMBEDDINGS)):
        yield "weight", 1
    elif isinstance(layer, RECURRENT_LAYERS):
        for name in _names(layer, "weight"):
            yield name, max(1, len(getattr(layer, name)) // layer.hidden_size)
    elif isinstance(layer, nn.MultiheadAttention):
        projections = {"in_proj_weight": 3, "q_proj_weight": 1, "k_proj_weight": 1}
        for name, matrices in (projections | {"v_proj_weight": 1}).items():
            if getattr(layer, name) is not None:
                yield name, matrices


def _biases_of(layer: nn.Module) -> Iterator[str]:
    if isinstance(layer, FILLED_LAYERS) and layer.bias is not None:
        yield "bias"
    elif isinstance(layer, RECURRENT_LAYERS):
        yield from _names(layer, "bias")
    elif isinstance(layer, nn.MultiheadAttention) and layer.in_proj_bias is not None:
        yield "in_proj_bias"


def _names(layer: Any, kind: str) -> list[str]:
    """Return the names of a recurrent layer's or cell's weights or biases."""
    cell = ["weight_ih", "weight_hh"] + (["bias_ih", "bias_hh"] if layer.bias else [])
    names = recurrent_names(layer) if isinstance(layer, nn.RNNBase) else cell
    return [name for name in names if name.startswith(kind)]


def _fill_part(
    layer: nn.Module, name: str, function: Fill, generator: torch.Generator, matrices: int = 1
) -> None:
    """Fill the layer's weight or bias by the function, one matrix after another."""
    tensor: Tensor = getattr(layer, name)
    computed = is_parametrized(layer, name)
    sources: Any = layer.parametrizations if computed else None
    given = sources[name].parameters() if computed else [tensor]
    if not any(p.requires_grad for p in given):
        return
    if not computed and name not in own_parameters(layer):
        raise TypeError(
            f"the {name} of a {type(layer).__name__} is computed from others, which it cannot set: "
            f"use torch.nn.utils.parametrizations"
        )
    with torch.no_grad():
        if computed:
            tensor = tensor.clone()
        for matrix in tensor.chunk(matrices) if matrices > 1 else [tensor]:
            _fill_tensor(matrix, name, function, generator)
        unseen = getattr(layer, "padding_idx", None)
        if unseen is not None and isinstance(layer, EMBEDDINGS):
            tensor[unseen] = 0  # the vector of padding, which is not trained
        if computed:
            setattr(layer, name, tensor)


def _fill_tensor(tensor: Tensor, name: str, function: Fill, generator: torch.Generator) -> None:
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


def deviation_by_fan_in_(
    tensor: Tensor, factor: float, generator: torch.Generator | None = None
) -> Tensor:
    """Fill with Gaussian numbers of std `factor` / fan_in.

    He initialization has a variance of 2 / fan_in instead.
    """
    fan_in = tensor[0].numel()
    return nn.init.normal_(tensor, 0, factor / fan_in, generator=generator)


def xavier_by_layer_(tensor: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Fill by Glorot & Bengio 2010: convolutions normal, dense layers uniform."""
    fill = nn.init.xavier_normal_ if tensor.ndim > 2 else nn.init.xavier_uniform_
    return fill(tensor, generator=generator)

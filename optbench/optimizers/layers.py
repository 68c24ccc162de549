"""The parameters of a model by layer: kind, number of dimensions, and depth."""

import re
from typing import NamedTuple

from torch import nn

from optbench.torch_internals import CONVOLUTION, NORM_WITH_STATISTICS

KINDS = ("linear", "conv", "recurrent", "embedding", "head", "norm", "bias", "other")
NORMS = (
    NORM_WITH_STATISTICS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
)  # fmt: skip
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# parameters that a user's model may hold beside its layers: positions, class tokens
EMBEDDING_NAME = re.compile(r"(^|[._])(pos|position|positions|positional|wpe|wte|emb\w*|cls\w*)$")


class LayerParameter(NamedTuple):
    """A trained parameter.

    kind: one of KINDS. The head is the weight of the last layer that has a matrix or kernel; a
    matrix that an embedding shares is the embedding's. A norm's weight and bias are of kind norm.
    depth: from 0 in the model's order. All that lies in one numbered block has one depth.
    """

    name: str
    parameter: nn.Parameter
    kind: str
    depth: int

    @property
    def dims(self) -> int:
        """Return the number of dimensions."""
        return self.parameter.ndim


def layer_parameters(model: nn.Module) -> list[LayerParameter]:
    """Return the trained parameters of a model in its order, each once.

    A model of tokens whose last layer lies within a block has no head of its own, since its outputs
    are products with the embedding.
    """
    found: dict[int, LayerParameter] = {}
    depths: dict[str, int] = {}
    last: int | None = None  # the id of the last weight of a layer
    tied = {
        id(m.weight) for m in model.modules() if isinstance(m, EMBEDDINGS) and m.weight is not None
    }
    for path, module in model.named_modules():
        for key, p in module.named_parameters(recurse=False):
            kind = "embedding" if id(p) in tied else _kind(module, key, p)
            if kind in ("linear", "conv") or (id(p) in tied and isinstance(module, nn.Linear)):
                last = None if tied and _is_within_block(model, path) else id(p)
            if p.requires_grad and id(p) not in found:
                depth = depths.setdefault(_unit(model, path), len(depths))
                name = f"{path}.{key}" if path else key
                found[id(p)] = LayerParameter(name, p, kind, depth)
    if last is not None and last in found and found[last].kind != "embedding":
        found[last] = found[last]._replace(kind="head")
    order = {id(p): place for place, p in enumerate(model.parameters())}
    return sorted(found.values(), key=lambda entry: order[id(entry.parameter)])


def _kind(module: nn.Module, key: str, p: nn.Parameter) -> str:
    if isinstance(module, NORMS):
        return "norm"
    if isinstance(module, EMBEDDINGS) or EMBEDDING_NAME.search(key):
        return "embedding"
    if p.ndim < 2:
        return "bias" if "bias" in key else "norm" if _is_scale(module, key) else "other"
    if isinstance(module, CONVOLUTION):
        return "conv"
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return "recurrent"
    if isinstance(module, nn.Linear | nn.Bilinear | nn.MultiheadAttention):
        return "linear"
    return "other"


def _is_scale(module: nn.Module, key: str) -> bool:
    """Return whether a vector is the scale of a norm that is not torch's."""
    return "norm" in type(module).__name__.lower() and key in ("weight", "scale", "gain", "gamma")


def _is_within_block(model: nn.Module, path: str) -> bool:
    """Return whether a module lies inside a numbered block, and is not that block."""
    return _unit(model, path) != path


def _unit(model: nn.Module, path: str) -> str:
    """Return the numbered block that a module lies in, else the module's own path."""
    parts = path.split(".")
    for place in range(1, len(parts)):
        holder = model.get_submodule(".".join(parts[:place]))
        if isinstance(holder, nn.ModuleList | nn.Sequential) and parts[place].isdigit():
            return ".".join(parts[: place + 1])
    return path

"""A network for tables: vectors of categories beside numbers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from optbench.common.errors import UserError
from optbench.models.layers import block, dropout_layers, sizes_of

MAX_EMBEDDING = 50  # dimensions, where none are given
NORMS = ("batch", "layer", "none")


class Lookup(nn.Module):
    """Replace each of the last features, numbers of categories, by a learned vector.

    The number 0 stands for a category that the training part lacks; its vector is zero.
    """

    def __init__(self, cardinalities: Sequence[int], dimensions: Sequence[int]) -> None:
        super().__init__()
        pairs = zip(cardinalities, dimensions, strict=True)
        self.tables = nn.ModuleList(nn.Embedding(count, size) for count, size in pairs)

    def forward(self, x: Tensor) -> Tensor:
        numbers, codes = x[:, : -len(self.tables)], x[:, -len(self.tables) :].long()
        known = (codes > 0).to(x.dtype)
        vectors = [
            table(codes[:, i]) * known[:, i, None]  # (n, dimensions)
            for i, table in enumerate(self.tables)
        ]
        return torch.cat([numbers, *vectors], dim=1)


def tabular_mlp(
    input_shape: Sequence[int],
    classes: int,
    cardinalities: Sequence[int] = (),
    *,
    hidden: Sequence[int] = (256, 128),
    embedding: int | None = None,
    activation: str = "relu",
    norm: str | None = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """Return an MLP whose last inputs are the numbers of categories, each from 0.

    cardinalities: how many numbers each of these inputs has. embedding: dimensions of a category's
    vector; None: half of the cardinality, at most 50. norm: "batch" (Ioffe & Szegedy 2015), "layer"
    (Ba et al. 2016) or None, before the activation.
    """
    norm = "none" if norm is None else norm
    if norm not in NORMS:
        raise UserError(f"model.norm must be one of {', '.join(NORMS)}, not {norm!r}")
    whole = isinstance(embedding, int) and not isinstance(embedding, bool)
    if embedding is not None and not (whole and embedding >= 1):
        raise UserError(
            f"model.embedding must be a whole number of at least 1, or null, not {embedding!r}"
        )
    sizes = [embedding or min(MAX_EMBEDDING, math.ceil(c / 2)) for c in cardinalities]
    layers: list[nn.Module] = [nn.Flatten()]
    layers += [Lookup(cardinalities, sizes)] if cardinalities else []
    width = math.prod(input_shape) - len(sizes) + sum(sizes)
    for size in sizes_of("model.hidden", hidden):
        # a batch norm subtracts any bias
        linear = nn.Linear(width, size, bias=norm != "batch")
        layers += block(linear, _norm(norm, size), activation, "before")
        layers += dropout_layers("model.dropout", dropout)
        width = size
    return nn.Sequential(*layers, nn.Linear(width, classes))


def _norm(name: str, size: int) -> nn.Module | None:
    if name == "batch":
        return nn.BatchNorm1d(size)
    return nn.LayerNorm(size) if name == "layer" else None

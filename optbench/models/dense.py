"""Models of vectors: multilayer perceptrons and logistic regression."""

import math
from collections.abc import Sequence

from torch import nn

from optbench.models.layers import block, dropout_layers, norm_follows, sizes_of


def mlp(
    input_shape: Sequence[int],
    classes: int,
    *,
    hidden: Sequence[int] = (512, 256),
    activation: str = "relu",
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    batch_norm: bool = False,
    batch_norm_place: str = "before",
) -> nn.Module:
    """Return a multilayer perceptron, `(n, *input_shape)` to logits `(n, classes)`.

    `dropout` is the probability of dropping a hidden unit, `input_dropout` that of an input. Batch
    norm stands before the activation (Ioffe & Szegedy 2015) or after it.
    """
    layers = [nn.Flatten(), *dropout_layers("model.input_dropout", input_dropout)]
    width = math.prod(input_shape)
    for size in sizes_of("model.hidden", hidden):
        linear = nn.Linear(width, size, bias=not norm_follows(batch_norm, batch_norm_place))
        norm = nn.BatchNorm1d(size) if batch_norm else None
        layers += block(linear, norm, activation, batch_norm_place)
        layers += dropout_layers("model.dropout", dropout)
        width = size
    return nn.Sequential(*layers, nn.Linear(width, classes))


def logreg(input_shape: Sequence[int], classes: int) -> nn.Module:
    """Return multinomial logistic regression, a single linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), classes))


def deep_linear(
    input_shape: Sequence[int], classes: int, *, hidden: Sequence[int] = (16, 16, 16)
) -> nn.Module:
    """Return successive linear layers without biases, whose product is one map.

    The loss is not convex in the weights, and has no local minimum but the global ones (Kawaguchi
    2016): `optbench.datasets.linear_optimum`.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(input_shape)
    for size in [*sizes_of("model.hidden", hidden), classes]:
        layers.append(nn.Linear(width, size, bias=False))
        width = size
    return nn.Sequential(*layers)


def linear(input_shape: Sequence[int], classes: int) -> nn.Module:
    """Return a single linear layer, for least squares and other regressions."""
    return logreg(input_shape, classes)

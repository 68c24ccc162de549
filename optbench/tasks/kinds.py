"""Tasks: the kinds of targets, and how a model's outputs are judged by them.

A task names its metrics beside the loss. Metrics are computed from sums over batches, so that the
order and the size of evaluation batches do not matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from optbench.common.errors import UserError
from optbench.trees import Tree, leaves

IGNORED = -100  # the label of a token that is not scored; `F.cross_entropy` ignores it


@dataclass(frozen=True)
class Task:
    """A kind of targets.

    metrics: names of the columns beside the loss, without the part's name. told_models: arguments
    for a model's function that has parameters of these names: per_token (outputs for each token)
    and causal (the outputs of a token may not depend on later tokens). classes: the number of
    outputs that a model is asked for, for each token if there are tokens; 0: the model knows.
    ignored: the label that does not count. padded: whether that label fills up targets, so that the
    parts of the data may differ in their length. fitting: the only losses of optbench's that fit
    such targets; (): no loss is excluded.
    """

    metrics: ClassVar[tuple[str, ...]] = ()
    told_models: ClassVar[Mapping[str, bool]] = {}
    ignored: ClassVar[int] = IGNORED
    padded: ClassVar[bool] = False
    fitting: ClassVar[tuple[str, ...]] = ()
    classes: int

    @property
    def sum_count(self) -> int | None:
        """The number of `sums`; None: unknown, so that `Several` takes no such targets."""
        return None

    def fitted(self, labels: Sequence[Tree]) -> Self:
        """Return the task fitted to the labels of all parts. Raise `UserError` if wrong."""
        return self

    def arranged(self, outputs: Tree) -> Tree:
        """Return a model's outputs as the loss is given them."""
        return outputs

    def judged(self, outputs: Tree) -> Tree:
        """Return the part of the arranged outputs from which the metrics are computed.

        Of a tuple this is the first tensor, of a dictionary that of the key "logits", or the first.
        """
        if isinstance(outputs, Mapping) and "logits" in outputs:
            return outputs["logits"]
        return next(leaves(outputs), None)

    @property
    def given(self) -> str:
        """Return in words what a loss is given."""
        raise NotImplementedError

    def check_outputs(self, outputs: Tensor, y: Tensor, when: str = "") -> None:
        """Raise `UserError` unless a model's outputs fit the targets."""

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return a batch's sums in float64, from which `values` computes the metrics."""
        return torch.zeros(0, dtype=torch.float64, device=outputs.device)

    def values(self, sums: Sequence[float], examples: int) -> dict[str, float | None]:
        """Return the metrics from the summed `sums` of so many examples."""
        return {}


def wrong_shape(outputs: Tensor, n: int, when: str, needed: object, words: str) -> UserError:
    return UserError(
        f"the model gives outputs of shape {tuple(outputs.shape)} for {n} examples{when}; "
        f"{needed} is needed: {words}"
    )


@dataclass(frozen=True)
class Classes(Task):
    """Labels (n,) from 0; the outputs are logits (n, classes)."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    @property
    def sum_count(self) -> int:
        return 1

    @property
    def given(self) -> str:
        return f"logits (n, {self.classes}) and integer labels (n,)"

    def check_outputs(self, outputs: Tensor, y: Tensor, when: str = "") -> None:
        if outputs.shape != (len(y), self.classes):
            needed = (len(y), self.classes)
            raise wrong_shape(outputs, len(y), when, needed, "one logit per class")

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs.argmax(dim=1) == y).sum().double().view(1)

    def values(self, sums: Sequence[float], examples: int) -> dict[str, float | None]:
        return {"accuracy": sums[0] / examples}


@dataclass(frozen=True)
class Binary(Task):
    """Labels (n,) of 0 and 1; the output is the logit of class 1, (n, 1)."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    classes: int = 1

    @property
    def sum_count(self) -> int:
        return 1

    @property
    def given(self) -> str:
        return "one logit (n, 1) and labels (n,) of 0 and 1"

    def check_outputs(self, outputs: Tensor, y: Tensor, when: str = "") -> None:
        if outputs.shape != (len(y), 1):
            raise wrong_shape(outputs, len(y), when, (len(y), 1), "the logit of class 1")

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        return ((outputs[:, 0] > 0) == (y == 1)).sum().double().view(1)

    def values(self, sums: Sequence[float], examples: int) -> dict[str, float | None]:
        return {"accuracy": sums[0] / examples}


@dataclass(frozen=True)
class Inputs(Task):
    """The targets are the inputs, as of an autoencoder. The loss is the only metric."""

    classes: int = 0

    @property
    def given(self) -> str:
        return "the model's outputs and, as targets, the inputs"


@dataclass(frozen=True)
class Values(Task):
    """Real targets (n, classes), as in regression; the outputs have the same shape.

    mean, std: of each target's training values, by which the targets were standardized. RMSE and
    MAE are in the target's own unit. With several targets, each metric is the mean of theirs.
    """

    metrics: ClassVar[tuple[str, ...]] = ("r2", "rmse", "mae")
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def sum_count(self) -> int:
        return 4 * self.classes

    @property
    def given(self) -> str:
        return f"outputs and real targets, both (n, {self.classes})"

    def check_outputs(self, outputs: Tensor, y: Tensor, when: str = "") -> None:
        if outputs.shape != y.shape:
            words = "one output for each target value, so that no loss broadcasts"
            raise wrong_shape(outputs, len(y), when, tuple(y.shape), words)

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        y = y.double()
        errors = outputs.double() - y
        parts = (errors.square(), errors.abs(), y, y.square())
        return torch.stack([part.sum(dim=0) for part in parts]).flatten()

    def values(self, sums: Sequence[float], examples: int) -> dict[str, float | None]:
        k = self.classes
        squares, absolute, total, total_squares = (sums[i * k : (i + 1) * k] for i in range(4))
        std = self.std or (1.0,) * k
        spread = [s - t * t / examples for s, t in zip(total_squares, total, strict=True)]
        r2 = [1 - e / s if s > 1e-12 * abs(q) else None
              for e, s, q in zip(squares, spread, total_squares, strict=True)]  # fmt: skip
        known = [value for value in r2 if value is not None]
        rmse = [sqrt(e / examples) * s for e, s in zip(squares, std, strict=True)]
        mae = [e / examples * s for e, s in zip(absolute, std, strict=True)]
        return {
            "r2": sum(known) / k if len(known) == k else None,  # constant targets have none
            "rmse": sum(rmse) / k,
            "mae": sum(mae) / k,
        }


@dataclass(frozen=True)
class Tokens(Task):
    """Labels (n, tokens); the outputs are logits (n, tokens, classes).

    Labels that are `IGNORED` do not count. Every example has the same number of labels that count,
    so that the mean over tokens is the mean over examples.
    """

    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    told_models: ClassVar[Mapping[str, bool]] = {"per_token": True}

    @property
    def sum_count(self) -> int:
        return 2

    @property
    def given(self) -> str:
        return f"logits (n, tokens, {self.classes}) and integer labels (n, tokens)"

    def check_outputs(self, outputs: Tensor, y: Tensor, when: str = "") -> None:
        if outputs.shape != (*y.shape, self.classes):
            needed = (*y.shape, self.classes)
            raise wrong_shape(outputs, len(y), when, needed, "a logit per class for each token")

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        counted = y != IGNORED
        hits = (outputs.argmax(dim=-1) == y) & counted
        return torch.stack([hits.sum(), counted.sum()]).double()

    def values(self, sums: Sequence[float], examples: int) -> dict[str, float | None]:
        return {"accuracy": sums[0] / sums[1]}


@dataclass(frozen=True)
class Characters(Tokens):
    """The next character of a text, whose cost is also told in bits per character."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "bits_per_character")
    told_models: ClassVar[Mapping[str, bool]] = {"per_token": True, "causal": True}

    @property
    def sum_count(self) -> int:
        return 4

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        nats = F.cross_entropy(outputs.flatten(0, -2).float(), y.flatten(), reduction="sum")
        others = torch.stack([nats.double(), self.characters(y).sum().double()])
        return torch.cat([super().sums(outputs, y), others])

    def values(self, sums: Sequence[float], examples: int) -> dict[str, float | None]:
        bits = sums[2] / log(2) / sums[3] if sums[3] else None
        return super().values(sums, examples) | {"bits_per_character": bits}

    def characters(self, y: Tensor) -> Tensor:
        """Return which tokens begin a character."""
        return y != IGNORED


@dataclass(frozen=True)
class Bytes(Characters):
    """The next byte of a text in UTF-8; a token is the byte's value."""

    classes: int = 256

    def characters(self, y: Tensor) -> Tensor:
        return (y & 0xC0) != 0x80  # the others continue a character

"""Sequences of labels without places, as of a line of handwriting, for CTC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.tasks.edit_distance import BLANK, PADDING, edit_distances, greedy_decode
from optbench.tasks.kinds import Task, wrong_shape
from optbench.trees import Tree


@dataclass(frozen=True)
class LabelSequences(Task):
    """Label sequences (n, most labels) from 1, padded by -1, for CTC.

    The outputs are logits (n, time, classes). classes: with the blank, which is class 0. steps: the
    most steps that any label sequence needs. longest: the labels of that sequence. `fitted` finds
    both.
    """

    metrics: ClassVar[tuple[str, ...]] = ("label_error_rate",)
    ignored: ClassVar[int] = PADDING
    padded: ClassVar[bool] = True
    fitting: ClassVar[tuple[str, ...]] = ("ctc",)
    told_models: ClassVar[Mapping[str, bool]] = {"per_token": True}
    steps: int = 0
    longest: tuple[int, ...] = ()

    @property
    def sum_count(self) -> int:
        return 2

    @property
    def given(self) -> str:
        return (
            f"logits (n, time, {self.classes}), of which 0 is the blank, and label sequences "
            f"(n, most labels) padded by {PADDING}"
        )

    def fitted(self, labels: Sequence[Tree]) -> Self:
        made = self
        for y in labels:
            self._check(y)
            if len(y):
                steps = needed_steps(y)
                worst = int(steps.argmax())
                if int(steps[worst]) > made.steps:
                    longest = tuple(label for label in y[worst].tolist() if label != PADDING)
                    made = replace(made, steps=int(steps[worst]), longest=longest)
        return made

    def _check(self, y: Tensor) -> None:
        if y.is_floating_point() or y.ndim != 2:
            raise UserError(
                f"label sequences are whole numbers (n, most labels), padded by {PADDING}, and "
                f"these are {y.dtype} of shape {tuple(y.shape)}"
            )
        padded = y == PADDING
        if (padded[:, :-1] & ~padded[:, 1:]).any():
            raise UserError(
                f"{PADDING} is the padding behind the labels of a sequence, and stands before a "
                f"label here"
            )
        labels = y[~padded]
        if len(labels) and not BLANK < labels.min() <= labels.max() < self.classes:
            raise UserError(
                f"the label sequences hold labels from {int(labels.min())} to "
                f"{int(labels.max())}; with CTC's blank, which is class {BLANK}, there are "
                f"{self.classes} classes, and labels are 1 to {self.classes - 1}"
            )

    def check_outputs(self, outputs: Tensor, y: Tensor, when: str = "") -> None:
        if outputs.ndim != 3 or outputs.shape[::2] != (len(y), self.classes):
            needed = f"({len(y)}, time, {self.classes})"
            raise wrong_shape(outputs, len(y), when, needed, "a logit per class at each time")
        if outputs.shape[1] < self.steps:
            raise UserError(
                f"the labels {list(self.longest)} are longer than the model's outputs{when}: CTC "
                f"needs a step for each label, and one between two equal labels, which is "
                f"{self.steps} steps, and the outputs have {outputs.shape[1]}. Let the model keep "
                f"more steps (less pooling, smaller strides), or shorten the labels"
            )

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        # on the CPU: the many small steps of the distances would wait for a GPU
        labels = y.cpu()
        edits = edit_distances(greedy_decode(outputs.detach()).cpu(), labels).sum()
        return torch.stack([edits, (labels != PADDING).sum()]).double().to(outputs.device)

    def values(self, sums: Sequence[float], examples: int) -> dict[str, float | None]:
        return {"label_error_rate": sums[0] / sums[1] if sums[1] else None}


def needed_steps(y: Tensor) -> Tensor:
    """Return how many steps CTC needs at least for each label sequence, (n,).

    There is a step for each label, and a blank between two equal ones.
    """
    labels = y != PADDING
    repeated = (y[:, 1:] == y[:, :-1]) & labels[:, 1:]
    return labels.sum(dim=1) + repeated.sum(dim=1)

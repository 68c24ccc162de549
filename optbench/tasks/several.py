"""Several targets of one example, each with its own outputs and metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.tasks.kinds import Task
from optbench.trees import Tree, plain


@dataclass(frozen=True)
class Several(Task):
    """Several targets, each with a task of its own, by name or in their order.

    classes: of all targets together, for models that give one tensor, which is split in the order
    of the targets. A model may also give a tuple of tensors, or a dictionary with the targets'
    names. The metrics are each target's, with its name in front, and the mean accuracy of those
    that have one.
    """

    fitting: ClassVar[tuple[str, ...]] = ("several",)
    parts: tuple[tuple[str, Task], ...] = ()
    named: bool = True

    @property
    def metrics(self) -> tuple[str, ...]:  # type: ignore[override]  # each task's are its class's
        """The metrics of all targets."""
        mean = ["accuracy"] if any("accuracy" in task.metrics for _, task in self.parts) else []
        own = [f"{name}_{metric}" for name, task in self.parts for metric in task.metrics]
        return (*mean, *own)

    @property
    def sum_count(self) -> int:
        return sum(task.sum_count or 0 for _, task in self.parts)

    @property
    def given(self) -> str:
        words = "; ".join(f"{name}: {task.given}" for name, task in self.parts)
        kind = "dictionaries by target" if self.named else "tuples, one part for each target"
        return f"{kind} ({words})"

    def fitted(self, labels: Sequence[Tree]) -> Self:
        for name, task in self.parts:
            if task.sum_count is None:
                raise UserError(
                    f"the target {name} cannot be one of several: it is of {type(task).__name__}"
                )
        return self

    def arranged(self, outputs: Tree) -> Tree:
        if isinstance(outputs, Tensor):
            if outputs.ndim < 2 or outputs.shape[-1] != self.classes:
                return outputs  # which `check_outputs` refuses
            cut = outputs.split([task.classes for _, task in self.parts], dim=-1)
            return dict(zip(self._names, cut, strict=True)) if self.named else tuple(cut)
        return outputs

    def judged(self, outputs: Tree) -> Tree:
        return outputs

    def check_outputs(self, outputs: Tree, y: Tree, when: str = "") -> None:
        sizes = ", ".join(f"{name} {task.classes}" for name, task in self.parts)
        if isinstance(outputs, Tensor):
            raise UserError(
                f"the model gives one tensor of shape {tuple(outputs.shape)}{when}, and there are "
                f"{len(self.parts)} targets ({sizes}): the last dimension must be {self.classes}, "
                f"which is split, or the model must give a tuple or a dictionary of tensors"
            )
        if isinstance(outputs, Mapping):
            fits = set(self._names) <= set(outputs)
        else:
            fits = isinstance(outputs, tuple | list) and len(outputs) == len(self.parts)
        if not fits:
            found = list(outputs) if isinstance(outputs, Mapping) else f"{len(outputs)} outputs"
            raise UserError(
                f"the model gives {found}{when}, and the targets are {', '.join(self._names)}: let "
                f"it give a dictionary with these names, or a tuple in this order"
            )
        for name, task, part, labels in self._pairs(outputs, y):
            try:
                if not isinstance(part, Tensor):
                    raise UserError(f"it is a {type(part).__name__}, and a tensor is needed")
                task.check_outputs(part, labels, when)
            except UserError as error:
                raise UserError(f"the output for {name}: {error}") from error

    def sums(self, outputs: Tree, y: Tree) -> Tensor:
        return torch.cat([
            task.sums(part, labels) for _, task, part, labels in self._pairs(outputs, y)
        ])  # fmt: skip

    def values(self, sums: Sequence[float], examples: int) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        rest = list(sums)
        for name, task in self.parts:
            own, rest = rest[: task.sum_count], rest[task.sum_count :]
            found |= {f"{name}_{key}": v for key, v in task.values(own, examples).items()}
        accuracies = [
            found[f"{name}_accuracy"] for name, task in self.parts if "accuracy" in task.metrics
        ]
        known = [value for value in accuracies if value is not None]
        if accuracies and len(known) == len(accuracies):
            found["accuracy"] = sum(known) / len(known)
        return found

    @property
    def _names(self) -> list[str]:
        return [name for name, _ in self.parts]

    def _pairs(self, outputs: Any, y: Tree) -> Iterator[tuple[str, Task, Any, Any]]:
        """Yield the name, the task, the outputs and the labels of each target."""
        labels = list(y.values()) if isinstance(y := plain(y), Mapping) else list(y)
        for k, (name, task) in enumerate(self.parts):
            yield name, task, outputs[name if isinstance(outputs, Mapping) else k], labels[k]

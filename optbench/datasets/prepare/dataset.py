"""Prepared data, as runs use them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from optbench.common.text import count
from optbench.datasets.image_files.streamed import StreamedImages
from optbench.tasks import Characters, Task, Values, from_plain, to_plain
from optbench.trees import Parts, packed, unpacked


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared data on one device: float32 examples and int64 labels, or real targets.

    Images that memory does not hold are `StreamedImages`, which give the same batches.
    With preprocessing=integers the examples are int64. With targets=inputs y is x and classes is
    0, so that there is no accuracy. Several inputs or targets are `Parts`, which have the methods
    of a tensor that training uses.
    """

    train_x: Tensor
    train_y: Tensor
    val_x: Tensor  # may have no examples
    val_y: Tensor
    test_x: Tensor
    test_y: Tensor
    task: Task
    digest: str  # of the raw data, before split and preprocessing
    # Above 1, the training examples are overlapping windows of one sequence. An epoch has as many
    # examples as if it took every `stride`-th window; these windows are scored.
    stride: int = 1
    # The last features may hold numbers of categories, from 0: how many numbers each feature has.
    nominal: tuple[int, ...] = ()

    def __repr__(self) -> str:
        counts = [f"{len(part):,}" for part in (self.train_y, self.val_y, self.test_y)]
        kind = f", {self.classes} classes" if self.classes else ""
        if isinstance(self.task, Values):
            kind = f", {count(self.classes or 1, 'value')} each"
        return (
            f"Dataset({counts[0]} training, {counts[1]} validation and {counts[2]} test examples "
            f"of shape {self.input_shape}{kind})"
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an example, such as (1, 28, 28); several inputs have one each."""
        if isinstance(self.train_x, Parts):
            return cast(tuple[int, ...], self.train_x.shapes)
        return tuple(self.train_x.shape[1:])

    @property
    def classes(self) -> int:
        """The number of outputs that a model is asked for; 0 without labels."""
        return self.task.classes

    @cached_property
    def vocabulary(self) -> int:
        """The number of different integers among the examples, counted from 0; else 0."""
        if isinstance(self.task, Characters):
            return self.task.classes  # also those that no example has
        if self.train_x.is_floating_point():
            return 0
        return max(int(x.max()) + 1 for x in (self.train_x, self.val_x, self.test_x) if len(x))

    @property
    def epoch_examples(self) -> int:
        """The number of training examples in an epoch."""
        return len(range(0, len(self.train_y), self.stride))

    def scored_train(self, examples: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the training inputs and targets that are scored; at most so many."""
        return self.train_x[:: self.stride][:examples], self.train_y[:: self.stride][:examples]

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the same data on another device."""
        return self._with_tensors(lambda tensor: tensor.to(device))

    def double(self) -> "Dataset":
        """Return the same data with float64 examples; labels stay integers."""
        return self._with_tensors(lambda x: x.double() if x.is_floating_point() else x)

    def to_plain(self) -> dict[str, Any]:
        """Return tensors and plain values, for `from_plain` in another process."""
        made = {f.name: packed(getattr(self, f.name)) for f in fields(self)}
        for name, value in made.items():
            if isinstance(value, StreamedImages):
                made[name] = {"streamed": value.to_plain()}
        return made | {"task": to_plain(self.task)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Dataset":
        """Return the dataset of `to_plain`."""
        made = {name: unpacked(value) for name, value in plain.items()}
        for name, value in plain.items():
            if isinstance(value, Mapping) and "streamed" in value:
                made[name] = StreamedImages.from_plain(value["streamed"])
        return cls(**{**made, "task": from_plain(plain["task"])})

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> "Dataset":
        def changed(tensor: Any) -> Any:
            if isinstance(tensor, Parts):
                return tensor.map(change)
            if self.stride == 1 or tensor.stride()[:2] != (1, 1) or not len(tensor):
                return change(tensor)
            # overlapping windows must share their memory on another device as well
            length, width = tensor.shape
            return change(tensor.as_strided((length + width - 1,), (1,))).unfold(0, width, 1)

        own = ((f.name, getattr(self, f.name)) for f in fields(self))
        new: dict[str, Any] = {
            name: changed(part)
            for name, part in own
            if isinstance(part, Tensor | Parts | StreamedImages)
        }
        return replace(self, **new)


@runtime_checkable
class OwnPreparation(Protocol):
    """Raw data of another kind, which prepare themselves."""

    def prepare(
        self,
        *,
        preprocessing: str,
        val_size: float | int,
        split_seed: int,
        subset: int | None,
        targets: str,
    ) -> Dataset:
        """Return the prepared data. Raises `UserError` for settings that do not apply."""

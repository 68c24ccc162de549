"""Preparation of raw arrays: check, digest, subset, split, preprocess.

`prepare` alone decides which examples are trained on, and how the examples are scaled.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.datasets import parts
from optbench.datasets.arrays import as_tensor
from optbench.datasets.preprocessing import PREPROCESSING, affine, shift_and_scale
from optbench.tasks import Classes, Inputs, Task, Tokens, Values, from_plain, to_plain
from optbench.trees import Parts, packed, unpacked

TARGETS = ("labels", "inputs")
PREPROCESSING_CHOICES = (*PREPROCESSING, "integers")  # "integers" scales nothing


class RawDataset(NamedTuple):
    """The result of a loader: the data as published, before split and preprocessing."""

    train_x: Tensor  # (n, channels, height, width) or (n, features), uint8 or float
    train_y: Tensor  # (n,) integers from 0, or real numbers (n,) or (n, targets)
    test_x: Tensor
    test_y: Tensor


@dataclass(frozen=True, eq=False)
class Described:
    """Raw data with a task that the arrays alone do not tell.

    arrays: as a loader returns them, four or six. task: makes the task from all labels.
    """

    arrays: Sequence[Any]
    task: Task


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared data on one device: float32 examples and int64 labels, or real targets.

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
    # above 1: the training examples are the overlapping windows of one sequence. An epoch draws as
    # many as every `stride`-th window, and those are scored
    stride: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, such as (1, 28, 28); of several inputs, a shape by input."""
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
        return {name: packed(getattr(self, name)) for name in (f.name for f in fields(self))} | {
            "task": to_plain(self.task)
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Dataset":
        """Return the dataset of `to_plain`."""
        made = {name: unpacked(value) for name, value in plain.items()}
        return cls(**{**made, "task": from_plain(plain["task"])})

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> "Dataset":
        def changed(tensor: Tensor | Parts) -> Tensor | Parts:
            if isinstance(tensor, Parts):
                return tensor.map(change)
            if self.stride == 1 or tensor.stride()[:2] != (1, 1) or not len(tensor):
                return change(tensor)
            # windows share their memory, also on another device
            length, width = tensor.shape
            return change(tensor.as_strided((length + width - 1,), (1,))).unfold(0, width, 1)

        own = ((f.name, getattr(self, f.name)) for f in fields(self))
        new: dict[str, Any] = {
            name: changed(part) for name, part in own if isinstance(part, Tensor | Parts)
        }
        return replace(self, **new)


def prepare(
    raw: RawDataset | Sequence[Any] | Described,
    *,
    preprocessing: str = "standardize",
    val_size: float | int = 0.1,
    split_seed: int = 0,
    subset: int | None = None,
    targets: str = "labels",
) -> Dataset:
    """Check the raw data, draw the validation split, and scale by the training part.

    Args:
        raw: four tensors or numpy arrays, in the order of `RawDataset`. Six with an own validation
            set (val_x, val_y), which is used whole unless `val_size` is 0. Or these, `Described`.
            Several inputs or targets are a dictionary or a tuple of arrays in place of one.
        preprocessing: "none" (the raw values); "scale" (to [0, 1]: uint8 images by 255, each
            feature of vectors by its least and largest value, other images by theirs);
            "integers" (the raw values as int64, for models such as nn.Embedding);
            "standardize" ((x - mean) / std, with one mean and std for vectors, and one per channel
            for images); "standardize_features" (the same, for each pixel or feature).
        val_size: share of the training examples in [0, 1), or a number of examples.
        split_seed: seed of the generator that draws the subset and the split, and nothing else.
        subset: the most training examples (before the split) and the most test examples to keep.
        targets: "labels", or "inputs" for models without labels, such as an autoencoder.

    Standard deviations divide by n; constant values in the training part get std 1. Real targets
    are standardized, each by its training values, unless preprocessing leaves values as they are
    ("none", "integers").
    Raises `UserError` for a bad argument or bad data.
    """
    _check_choices(preprocessing, split_seed, subset, targets)
    task = raw.task if isinstance(raw, Described) else None
    arrays = raw.arrays if isinstance(raw, Described) else raw
    if parts.are_several(arrays):

        def prepare_part(arrays: Sequence[Any], task: Task | None, how: str) -> Dataset:
            part = Described(arrays, task) if task else arrays
            return prepare(
                part, preprocessing=how, val_size=val_size, split_seed=split_seed, subset=subset
            )

        return parts.prepared(arrays, task, preprocessing, targets, prepare_part)
    digest, raw, own_val = _as_raw(arrays, task)
    labels = [raw.train_y, raw.test_y, *(own_val[1:] if own_val else ())]
    task = (task or _task_of(labels)).fitted(labels)

    generator = torch.Generator().manual_seed(split_seed)
    order = torch.randperm(len(raw.train_y), generator=generator)[:subset]
    n_val = 0 if own_val else _val_count(val_size, len(order))
    # Sorted: which examples is random, their order in memory need not be.
    val, train = order[:n_val].sort().values, order[n_val:].sort().values
    test_x, test_y = raw.test_x, raw.test_y
    if subset is not None and subset < len(test_y):
        # a random draw, since test sets are often ordered (the first half of MNIST's is easier)
        test = torch.randperm(len(test_y), generator=generator)[:subset].sort().values
        test_x, test_y = test_x[test], test_y[test]
    val_x, val_y = raw.train_x[val], raw.train_y[val]
    if own_val and val_size != 0:
        val_x, val_y = own_val
    train_x = raw.train_x if len(train) == len(raw.train_y) else raw.train_x[train]

    for part in (train_x, val_x, test_x):
        if len(part):
            _check_integers(part, preprocessing)
    if preprocessing == "integers":
        ready = partial(torch.Tensor.to, dtype=torch.int64, copy=True)
    else:
        shift, scale = shift_and_scale(train_x, preprocessing)
        ready = partial(affine, shift=shift, scale=scale)
    dataset = Dataset(
        train_x=ready(train_x),
        train_y=raw.train_y[train],
        val_x=ready(val_x),
        val_y=val_y,
        test_x=ready(test_x),
        test_y=test_y.clone(),
        task=task,
        digest=digest,
    )
    if isinstance(task, Values):
        dataset = _with_scaled_targets(dataset, scaled=preprocessing not in ("none", "integers"))
    if raw.train_x.dtype != torch.uint8 and preprocessing != "integers":
        for name in ("val_x", "test_x"):
            if not torch.isfinite(getattr(dataset, name)).all():
                raise UserError(
                    f"preprocessing={preprocessing} makes {name} overflow: a feature that hardly "
                    "varies in the training part is far off there. Drop that feature in the "
                    "loader, or use preprocessing=none."
                )
    if targets == "inputs":
        x = {f"{name}_y": getattr(dataset, f"{name}_x") for name in ("train", "val", "test")}
        dataset = replace(dataset, task=Inputs(), **x)
    return dataset


def _task_of(labels: Sequence[Tensor]) -> Task:
    """Return the task that the labels' dtype and shape tell."""
    if labels[0].is_floating_point():
        return Values(labels[0].shape[1])
    classes = int(max(y.max() for y in labels)) + 1
    return Tokens(classes) if labels[0].ndim == 2 else Classes(classes)


def _with_scaled_targets(dataset: Dataset, *, scaled: bool) -> Dataset:
    """Return the data with float32 targets, standardized by the training part if `scaled`."""
    y = dataset.train_y.double()
    mean, std = torch.zeros(y.shape[1]).double(), torch.ones(y.shape[1]).double()
    if scaled:
        mean, std = y.mean(dim=0), y.std(dim=0, correction=0)
        std = torch.where((y.amin(dim=0) == y.amax(dim=0)) | (std == 0), 1.0, std)
    parts = {
        name: ((getattr(dataset, name).double() - mean) / std).float()
        for name in ("train_y", "val_y", "test_y")
    }
    task = Values(y.shape[1], mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    return replace(dataset, task=task, **parts)


def _check_integers(x: Tensor, preprocessing: str) -> None:
    """Raise `UserError` for integers that are not whole, or that float32 would round."""
    if preprocessing == "integers" and x.is_floating_point():
        raise UserError(
            f"preprocessing=integers is for whole numbers, and the examples are {x.dtype}: convert "
            f"them in the loader, or use preprocessing=none, standardize or another"
        )
    whole = preprocessing == "none" and x.dtype in (torch.int32, torch.int64)
    if whole and max(int(x.max()), -int(x.min())) > 2**24:
        raise UserError(
            "the examples hold whole numbers above 2**24, which float32 does not hold: use "
            "preprocessing=integers for a model that looks them up, or another"
        )


def _check_choices(preprocessing: str, split_seed: int, subset: int | None, targets: str) -> None:
    if preprocessing not in PREPROCESSING_CHOICES:
        allowed = ", ".join(PREPROCESSING_CHOICES)
        raise UserError(f"preprocessing={preprocessing!r} is unknown; allowed: {allowed}.")
    if targets not in TARGETS:
        raise UserError(f"data.targets={targets!r} is unknown; allowed: {', '.join(TARGETS)}.")
    if not _is_int(split_seed) or not 0 <= split_seed < 2**63:
        raise UserError(
            f"data.split_seed={split_seed!r} is not a seed; allowed: a whole number from 0 to "
            "2**63 - 1."
        )
    if subset is not None and (not _is_int(subset) or subset < 1):
        raise UserError(
            f"data.subset={subset!r} is not a number of examples; allowed: a whole number from 1, "
            "or null for all."
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _val_count(val_size: float | int, n: int) -> int:
    """Return the number of validation examples out of n, with one left for training."""
    if _is_int(val_size) and val_size >= 0:
        count = int(val_size)
    elif isinstance(val_size, float) and 0 <= val_size < 1:
        count = max(1, round(val_size * n)) if val_size > 0 else 0
    else:
        raise UserError(
            f"data.val_size={val_size!r} is neither a share nor a count; allowed: a share from 0 "
            f"to below 1 (0.1), or a whole number of examples (0 to {n - 1})."
        )
    if count >= n:
        raise UserError(
            f"data.val_size={val_size!r} leaves no training example: {count} of {n} would be held "
            f"out; allowed: at most {n - 1} examples. Lower it, or raise data.subset if it is set."
        )
    return count


def _as_raw(
    raw: RawDataset | Sequence[Any], task: Task | None
) -> tuple[str, RawDataset, tuple[Tensor, Tensor] | None]:
    """Return the digest, checked CPU tensors, and an own validation set or None.

    Examples have any real dtype. Labels are int64, or real numbers (n, targets) in float64.
    task: None if the labels tell.
    """
    if not isinstance(raw, (tuple, list)) or len(raw) not in (4, 6):
        size = f" of {len(raw)}" if isinstance(raw, (tuple, list)) else ""
        raise UserError(
            f"a dataset's function returned a {type(raw).__name__}{size}; it must return four "
            f"tensors or arrays: {', '.join(RawDataset._fields)}. Examples and labels that are not "
            f"divided yet (scikit-learn's load_... or return_X_y=True) are divided in a function "
            f"of your own: def mine(): x, y = load(return_X_y=True); "
            f"return x[100:], y[100:], x[:100], y[:100]"
        )
    names = (*RawDataset._fields, "val_x", "val_y")
    tensors = [as_tensor(n, v) for n, v in zip(names, raw, strict=False)]
    train_x, train_y, test_x, test_y = tensors[:4]
    parts = [("train", train_x, train_y), ("test", test_x, test_y)]
    if len(raw) == 6:
        parts.append(("val", tensors[4], tensors[5]))
    for part, x, y in parts:
        if x.ndim < 2 or x[:1].numel() == 0:
            raise UserError(
                f"{part}_x has shape {tuple(x.shape)}; it must be (n, channels, height, width) or "
                "(n, features), with at least one example."
            )
        if y.shape[:1] != x.shape[:1] or not _are_targets(x, y, task):
            raise UserError(
                f"{part}_y has shape {tuple(y.shape)}; {part}_x has {len(x)} examples, so it must "
                f"be ({len(x)},), or a real number ({len(x)}, targets) or a whole one for each "
                f"token ({len(x)}, tokens). The order is {', '.join(RawDataset._fields)} "
                f"(train_test_split of scikit-learn gives train_x, test_x, train_y, test_y)."
            )
        if x.is_complex() or y.is_complex():
            raise UserError(
                f"{part}_x is {x.dtype} and {part}_y is {y.dtype}; both must be real: convert "
                "them in the loader."
            )
        # checked as float32, in which runs train: 1e300 is finite only in float64
        if x.dtype != torch.uint8 and not torch.isfinite(x.to(torch.float32)).all():
            raise UserError(
                f"{part}_x holds NaN, infinite or too large values; drop or fill these examples "
                "in the loader."
            )
        if y.is_floating_point():
            if not torch.isfinite(y.to(torch.float32)).all():
                raise UserError(
                    f"{part}_y holds NaN, infinite or too large values; drop or fill these "
                    "examples in the loader."
                )
            continue
        low, high = _extremes(y, (task or Task).ignored)
        limit = max(1000, len(train_y) + len(test_y))
        if low < 0 or high >= limit:
            raise UserError(
                f"{part}_y holds labels from {low} to {high}; labels must be 0 to classes - 1 (and "
                f"below {limit} here): renumber them in the loader."
            )
    for part, x, y in parts[1:]:
        other = y.shape[1:] != train_y.shape[1:] and not (task and task.padded)
        if other or y.is_floating_point() != train_y.is_floating_point():
            raise UserError(
                f"train_y is {train_y.dtype} of shape {tuple(train_y.shape)}, and {part}_y "
                f"{y.dtype} of shape {tuple(y.shape)}; they must be of one kind: whole numbers are "
                f"classes, real ones are values to predict."
            )
        if train_x.shape[1:] != x.shape[1:] or train_x.dtype != x.dtype:
            raise UserError(
                f"train_x holds examples of shape {tuple(train_x.shape[1:])} ({train_x.dtype}), "
                f"{part}_x of shape {tuple(x.shape[1:])} ({x.dtype}); they must be the same."
            )
    tensors = [t for _, x, y in parts for t in (x, _target(y))]
    own_val = (tensors[4], tensors[5]) if len(raw) == 6 else None
    return _digest(dict(zip(names, tensors, strict=False))), RawDataset(*tensors[:4]), own_val


def _are_targets(x: Tensor, y: Tensor, task: Task | None) -> bool:
    """Return whether targets have a shape that a task has."""
    if task is not None or y.ndim == 1:
        return True
    if y.is_floating_point():
        return y.ndim == 2 and y.shape[1] > 0
    return y.ndim == 2 and y.shape == x.shape[:2]


def _target(y: Tensor) -> Tensor:
    """Return labels in int64, and real targets in float64 as (n, targets)."""
    if not y.is_floating_point():
        return y.to(torch.int64)
    return y.to(torch.float64).reshape(len(y), -1)


def _extremes(y: Tensor, ignored: int) -> tuple[int, int]:
    """Return the least and the largest label, without those that do not count."""
    y = y.to(torch.int64)
    if y.ndim > 1:
        y = y[y != ignored]
    return (int(y.min()), int(y.max())) if y.numel() else (0, 0)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits of the SHA-256 over shapes, dtypes and bytes of raw data."""
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]

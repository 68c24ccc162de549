"""Preparation of raw arrays: check, digest, subset, split, preprocess.

`prepare` alone decides which examples are trained on, and how the examples are scaled.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.datasets import parts
from optbench.datasets.arrays import as_tensor
from optbench.datasets.image_files.streamed import StreamedImages
from optbench.datasets.preprocessing import (
    PREPROCESSING,
    affine,
    binarized,
    shift_and_scale,
    shifted,
)
from optbench.datasets.returned import unified
from optbench.datasets.splitting import TEST_SIZE, check_subset, divide, generator_of, split
from optbench.datasets.tables.table import Table
from optbench.tasks import (
    Binary,
    Characters,
    Classes,
    Inputs,
    Task,
    Tokens,
    Values,
    from_plain,
    to_plain,
)
from optbench.trees import Parts, packed, unpacked

TARGETS = ("labels", "inputs", "binary")
LAYOUTS = ("channels_first", "channels_last")
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

    arrays: as a loader returns them, four or six; examples may be `StreamedImages`. task: None if
    the labels tell. digest: of the raw data; None: of the arrays' bytes.
    """

    arrays: Sequence[Any]
    task: Task | None = None
    digest: str | None = None


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
    # above 1: the training examples are the overlapping windows of one sequence. An epoch draws as
    # many as every `stride`-th window, and those are scored
    stride: int = 1
    # of each of the last features, which hold numbers from 0 to look up: how many there are
    nominal: tuple[int, ...] = ()

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
            # windows share their memory, also on another device
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
    """Raw data of another kind, which `prepare` lets prepare itself."""

    def prepare(
        self,
        *,
        preprocessing: str,
        val_size: float | int,
        split_seed: int,
        subset: int | None,
        targets: str,
    ) -> Dataset:
        """Return the prepared data. Raises `UserError` for what has no meaning there."""


def prepare(
    raw: Any,
    *,
    preprocessing: str = "standardize",
    val_size: float | int = 0.1,
    split_seed: int = 0,
    subset: int | None = None,
    targets: str = "labels",
    test_size: float | int = TEST_SIZE,
    target: str | None = None,
    shift: float = 0.0,
    layout: str = "channels_first",
) -> Dataset:
    """Check the raw data, draw the validation split, and scale by the training part.

    Args:
        raw: four tensors or numpy arrays, in the order of `RawDataset`. Six with an own validation
            set (val_x, val_y), which is used whole unless `val_size` is 0. Or these, `Described`;
            or an object that prepares itself, such as a `Text`. Several inputs or targets are a
            dictionary or a tuple of arrays in place of one. Or a pair of examples and labels, a
            torch `Dataset`, a scikit-learn `Bunch` or a pandas DataFrame, of which a test part is
            drawn; or a pair of these, for training and test.
        preprocessing: "none" (the raw values); "scale" (to [0, 1]: uint8 images by 255, each
            feature of vectors by its least and largest value, other images by theirs);
            "integers" (the raw values as int64, for models such as nn.Embedding);
            "standardize" ((x - mean) / std, with one mean and std for vectors, and one per channel
            for images); "standardize_features" (the same, for each pixel or feature).
        val_size: share of the training examples in [0, 1), or a number of examples.
        split_seed: seed of the generator that draws the subset and the split, and nothing else.
        subset: the most training examples (before the split) and the most test examples to keep.
        targets: "labels", or "inputs" for models without labels, such as an autoencoder, or
            "binary" for two classes and a model with one output.
        test_size: share in (0, 1), or number, of the examples for the test, of data without a test
            part.
        target: the column of a DataFrame that holds the targets.
        shift: added to the test examples, in standard deviations of each feature (of images: each
            channel) of the training part.
        layout: "channels_last" for images (n, height, width, channels).

    Standard deviations divide by n; constant values in the training part get std 1. Real targets
    are standardized, each by its training values, unless preprocessing leaves values as they are
    ("none", "integers").
    Raises `UserError` for a bad argument or bad data.
    """
    _check_choices(preprocessing, targets, layout, shift)
    check_subset(subset)
    generator = generator_of(split_seed)
    raw = unified(raw, target)
    if isinstance(raw, OwnPreparation):
        _check_defaults(raw, test_size=test_size, shift=shift, layout=layout)
        return raw.prepare(
            preprocessing=preprocessing,
            val_size=val_size,
            split_seed=split_seed,
            subset=subset,
            targets=targets,
        )
    if isinstance(raw, Table):
        _check_layout(layout, "rows of a table")
        treated = raw.treated(
            preprocessing=preprocessing,
            val_size=val_size,
            subset=subset,
            test_size=test_size,
            generator=generator,
            shift=shift,
        )
        dataset = Dataset(**treated._asdict())
        if isinstance(dataset.task, Values):
            dataset = _with_scaled_targets(dataset, scaled=preprocessing != "none")
        return _with_targets(dataset, targets)
    task = raw.task if isinstance(raw, Described) else None
    known = raw.digest if isinstance(raw, Described) else None
    arrays = raw.arrays if isinstance(raw, Described) else raw
    if isinstance(arrays, (tuple, list)) and len(arrays) == 2:
        arrays = _divided(arrays, test_size, generator)
    elif test_size != TEST_SIZE:
        raise UserError(
            f"data.test_size={test_size!r} divides data without a test part, and these have one: "
            f"leave it out"
        )
    if parts.are_several(arrays):

        def prepare_part(arrays: Sequence[Any], task: Task | None, how: str) -> Dataset:
            return prepare(
                Described(arrays, task) if task else arrays,
                preprocessing=how,
                val_size=val_size,
                split_seed=split_seed,
                subset=subset,
                layout=layout,
                shift=shift,
            )

        return parts.prepared(arrays, task, preprocessing, targets, prepare_part)
    digest, raw, own_val = _as_raw(arrays, task, known)
    raw, own_val = _channels_first(raw, own_val, layout)
    labels = [raw.train_y, raw.test_y, *(own_val[1:] if own_val else ())]
    task = (task or _task_of(labels)).fitted(labels)
    places = split(
        len(raw.train_y),
        len(raw.test_y),
        val_size=val_size,
        subset=subset,
        generator=generator,
        own_val=own_val is not None,
    )
    train, val = places.train, places.val
    test_x, test_y = raw.test_x, raw.test_y
    if places.test is not None:
        test_x, test_y = test_x[places.test], test_y[places.test]
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
        offset, scale = shift_and_scale(train_x, preprocessing)
        convert = binarized if preprocessing == "binarize" else affine
        ready = partial(convert, shift=offset, scale=scale)
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
    if shift:
        dataset = replace(dataset, test_x=shifted(dataset.test_x, dataset.train_x, shift))
    if raw.train_x.dtype != torch.uint8 and preprocessing != "integers":
        for name in ("val_x", "test_x"):
            if not torch.isfinite(getattr(dataset, name)).all():
                raise UserError(
                    f"preprocessing={preprocessing} makes {name} overflow: a feature that hardly "
                    "varies in the training part is far off there. Drop that feature in the "
                    "loader, or use preprocessing=none."
                )
    return _with_targets(dataset, targets)


def _with_targets(dataset: Dataset, targets: str) -> Dataset:
    """Return the data with inputs as targets, or with the task of one logit, where asked for."""
    if targets == "inputs":
        x = {f"{name}_y": getattr(dataset, f"{name}_x") for name in ("train", "val", "test")}
        return replace(dataset, task=Inputs(), **x)
    if targets == "binary":
        if not isinstance(dataset.task, Classes) or dataset.classes != 2:
            kind = f"{dataset.classes} classes" if type(dataset.task) is Classes else "others"
            raise UserError(
                f"data.targets=binary is for two classes, and these targets are {kind}: leave it "
                f"out"
            )
        return replace(dataset, task=Binary())
    return dataset


def _divided(
    arrays: Sequence[Any], test_size: float | int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Return examples and labels as training and test part, in the order of `RawDataset`."""
    x, y = as_tensor("x", arrays[0]), as_tensor("y", arrays[1])
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if x.ndim < 2 or y.shape[:1] != x.shape[:1] or len(x) < 2:
        raise UserError(
            f"a dataset's function returned examples of shape {tuple(x.shape)} and labels of shape "
            f"{tuple(y.shape)}; they must be (n, features) or (n, channels, height, width) and "
            f"(n,), with two examples or more"
        )
    train, test = divide(len(x), test_size, generator)
    return x[train], y[train], x[test], y[test]


def _channels_first(
    raw: RawDataset, own_val: tuple[Tensor, Tensor] | None, layout: str
) -> tuple[RawDataset, tuple[Tensor, Tensor] | None]:
    """Return the data with images as (n, channels, height, width)."""
    if layout == "channels_first":
        return raw, own_val
    if raw.train_x.ndim != 4 or isinstance(raw.train_x, StreamedImages):
        _check_layout(layout, f"examples of shape {tuple(raw.train_x.shape[1:])}")

    def turned(x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2).contiguous()

    own_val = own_val and (turned(own_val[0]), own_val[1])
    return raw._replace(train_x=turned(raw.train_x), test_x=turned(raw.test_x)), own_val


def _check_defaults(raw: object, **settings: Any) -> None:
    """Raise `UserError` for a setting of arrays that data of another kind do not have."""
    defaults = {"test_size": TEST_SIZE, "shift": 0, "layout": LAYOUTS[0]}
    for name, value in settings.items():
        if value != defaults[name]:
            raise UserError(
                f"data.{name}={value} is for examples of numbers, and this dataset is a "
                f"{type(raw).__name__}: leave it out"
            )


def _check_layout(layout: str, what: str) -> None:
    if layout != "channels_first":
        raise UserError(
            f"data.layout={layout} is for images (n, height, width, channels), and this dataset "
            f"has {what}: leave it out"
        )


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
    if preprocessing == "integers" and isinstance(x, StreamedImages):
        raise UserError(
            "preprocessing=integers needs the images in memory: raise dataset.in_memory_mb, or use "
            "preprocessing=none, standardize or another"
        )
    whole = preprocessing == "none" and x.dtype in (torch.int32, torch.int64)
    if whole and max(int(x.max()), -int(x.min())) > 2**24:
        raise UserError(
            "the examples hold whole numbers above 2**24, which float32 does not hold: use "
            "preprocessing=integers for a model that looks them up, or another"
        )


def _check_choices(preprocessing: str, targets: str, layout: str, shift: float) -> None:
    if preprocessing not in PREPROCESSING_CHOICES:
        allowed = ", ".join(PREPROCESSING_CHOICES)
        raise UserError(f"preprocessing={preprocessing!r} is unknown; allowed: {allowed}.")
    if targets not in TARGETS:
        raise UserError(f"data.targets={targets!r} is unknown; allowed: {', '.join(TARGETS)}.")
    if layout not in LAYOUTS:
        raise UserError(f"data.layout={layout!r} is unknown; allowed: {', '.join(LAYOUTS)}.")
    number = isinstance(shift, int | float) and not isinstance(shift, bool)
    if not number or not abs(shift) < 1e6:
        raise UserError(
            f"data.shift must be a number of standard deviations (0: no shift), not {shift!r}"
        )
    if shift and preprocessing == "integers":
        raise UserError("data.shift moves real numbers, and preprocessing=integers has none")


def _as_raw(
    raw: Any, task: Task | None, digest: str | None
) -> tuple[str, RawDataset, tuple[Tensor, Tensor] | None]:
    """Return the digest, checked CPU tensors, and an own validation set or None.

    Examples have any real dtype. Labels are int64, or real numbers (n, targets) in float64.
    task: None if the labels tell. digest: None: that of the arrays.
    """
    if not isinstance(raw, (tuple, list)) or len(raw) not in (4, 6):
        size = f" of {len(raw)}" if isinstance(raw, (tuple, list)) else ""
        raise UserError(
            f"a dataset's function returned a {type(raw).__name__}{size}; it must return four "
            f"tensors or arrays ({', '.join(RawDataset._fields)}), or examples and labels of which "
            f"data.test_size is the test part, or a torch Dataset, a DataFrame, a scikit-learn "
            f"Bunch, or two of these for training and test"
        )
    names = (*RawDataset._fields, "val_x", "val_y")
    tensors = [
        cast(Tensor, v) if isinstance(v, StreamedImages) else as_tensor(n, v)
        for n, v in zip(names, raw, strict=False)
    ]
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
        if x.dtype.is_complex or y.dtype.is_complex:
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
    digest = digest or _digest(dict(zip(names, tensors, strict=False)))
    return digest, RawDataset(*tensors[:4]), own_val


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

"""Preparation of raw data: subset, split, preprocessing and targets."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optbench.common.console import warn
from optbench.common.errors import UserError
from optbench.datasets import parts
from optbench.datasets.arrays import as_tensor
from optbench.datasets.image_files.streamed import StreamedImages
from optbench.datasets.prepare.checks import (
    check_choices,
    check_defaults,
    check_integers,
    check_layout,
    check_raw,
)
from optbench.datasets.prepare.dataset import Dataset, OwnPreparation
from optbench.datasets.preprocessing import affine, binarized, shift_and_scale, shifted
from optbench.datasets.raw import Described, RawDataset
from optbench.datasets.splitting import TEST_SIZE, check_subset, divide, generator_of, split
from optbench.tasks import Binary, Classes, Inputs, Task, Tokens, Values


def prepare(
    raw: Any,
    *others: Any,
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
        raw: four tensors or NumPy arrays, in the order of `RawDataset`; or six, with an own
            validation set (val_x, val_y), which is used whole unless `val_size` is 0. Several
            inputs or targets are a dictionary or a tuple of arrays in place of one array. Or such
            arrays in a `Described`. Or a pair of examples and labels, a torch `Dataset`, a
            scikit-learn `Bunch` or a pandas DataFrame, of which a test part is drawn; or two of
            these, for training and test. Or an object that prepares itself, such as a `Text`.
        preprocessing: "none" (the raw values); "scale" (to [0, 1]: uint8 images by 255, each
            feature of vectors by its least and largest value, other images by theirs); "binarize"
            (1 where such a scaled value is above one half, else 0); "integers" (the raw values as
            int64, for models such as nn.Embedding); "standardize" ((x - mean) / std, with one mean
            and std for vectors, and one per channel for images); "standardize_features" (the same,
            for each pixel or feature).
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
    if others:
        raise UserError("the arrays are one argument, as in prepare((x, y))")
    check_choices(preprocessing, targets, layout, shift)
    check_subset(subset)
    generator = generator_of(split_seed)
    if target is not None or not _has_all_parts(raw):
        # these import pandas, which takes half a second
        from optbench.datasets.returned import unified
        from optbench.datasets.tables.table import Table

        raw = unified(raw, target)
        if isinstance(raw, Table):
            check_layout(layout, "rows of a table")
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
    if isinstance(raw, OwnPreparation):
        check_defaults(raw, test_size=test_size, shift=shift, layout=layout)
        return raw.prepare(
            preprocessing=preprocessing,
            val_size=val_size,
            split_seed=split_seed,
            subset=subset,
            targets=targets,
        )
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
    dataset = _prepare_arrays(
        Described(arrays, task, known),
        preprocessing=preprocessing,
        val_size=val_size,
        subset=subset,
        layout=layout,
        shift=shift,
        generator=generator,
    )
    return _with_targets(dataset, targets)


def _has_all_parts(raw: Any) -> bool:
    """Return whether raw data are arrays for training and test, or prepare themselves."""
    arrays = isinstance(raw, tuple | list) and len(raw) in (4, 6)
    return arrays or isinstance(raw, Described | OwnPreparation)


def _prepare_arrays(
    raw: Described,
    *,
    preprocessing: str,
    val_size: float | int,
    subset: int | None,
    layout: str,
    shift: float,
    generator: torch.Generator,
) -> Dataset:
    """Return one input and one target, with the labels as targets; see `prepare`."""
    digest, arrays, own_val = check_raw(raw.arrays, raw.task, raw.digest)
    arrays, own_val = _channels_first(arrays, own_val, layout)
    labels = [arrays.train_y, arrays.test_y, *(own_val[1:] if own_val else ())]
    task = (raw.task or _task_of(labels)).fitted(labels)
    places = split(
        len(arrays.train_y),
        len(arrays.test_y),
        val_size=val_size,
        subset=subset,
        generator=generator,
        own_val=own_val is not None,
    )
    train, val = places.train, places.val
    test_x, test_y = arrays.test_x, arrays.test_y
    if places.test is not None:
        test_x, test_y = test_x[places.test], test_y[places.test]
    val_x, val_y = arrays.train_x[val], arrays.train_y[val]
    if own_val and val_size != 0:
        val_x, val_y = own_val
    train_x = arrays.train_x if len(train) == len(arrays.train_y) else arrays.train_x[train]

    for part in (train_x, val_x, test_x):
        if len(part):
            check_integers(part, preprocessing)
    if preprocessing == "integers":
        ready = partial(torch.Tensor.to, dtype=torch.int64, copy=True)
    else:
        offset, scale = shift_and_scale(train_x, preprocessing)
        convert = binarized if preprocessing == "binarize" else affine
        ready = partial(convert, shift=offset, scale=scale)
    dataset = Dataset(
        train_x=ready(train_x),
        train_y=arrays.train_y[train],
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
    if arrays.train_x.dtype != torch.uint8 and preprocessing != "integers":
        _check_overflow(dataset, preprocessing)
    return dataset


def _check_overflow(dataset: Dataset, preprocessing: str) -> None:
    """Raise `UserError` for scaled examples that float32 does not hold."""
    for name in ("val_x", "test_x"):
        if not torch.isfinite(getattr(dataset, name)).all():
            raise UserError(
                f"preprocessing={preprocessing} makes {name} overflow: a feature that hardly "
                "varies in the training part is far off there. Drop that feature in the "
                "loader, or use preprocessing=none."
            )


def _with_targets(dataset: Dataset, targets: str) -> Dataset:
    """Return the data with the targets that are asked for: labels, inputs or binary."""
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
    """Divide examples and labels into training and test part, as a `RawDataset`."""
    x, y = as_tensor("x", arrays[0]), as_tensor("y", arrays[1])
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if x.ndim < 2 or y.shape[:1] != x.shape[:1] or len(x) < 2:
        raise UserError(
            f"the dataset has examples of shape {tuple(x.shape)} and labels of shape "
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
        check_layout(layout, f"examples of shape {tuple(raw.train_x.shape[1:])}")

    def turned(x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2).contiguous()

    own_val = own_val and (turned(own_val[0]), own_val[1])
    return raw._replace(train_x=turned(raw.train_x), test_x=turned(raw.test_x)), own_val


def _task_of(labels: Sequence[Tensor]) -> Task:
    """Return the task that the labels' dtype and shape tell."""
    if labels[0].is_floating_point():
        return Values(labels[0].shape[1])
    classes = int(max(y.max() for y in labels)) + 1
    if labels[0].ndim == 2:
        return Tokens(classes)
    if classes > 1 and all(bool((y > 0).all()) for y in labels):
        warn(
            f"no example has the label 0, and labels count from 0: these make {classes} classes, "
            f"of which the first is empty"
        )
    return Classes(classes)


def _with_scaled_targets(dataset: Dataset, *, scaled: bool) -> Dataset:
    """Return the data with float32 targets.

    scaled: standardize them by the training part.
    """
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

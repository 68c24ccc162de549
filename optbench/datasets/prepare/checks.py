"""Checks of settings and raw data, before anything is split or scaled."""

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.datasets.arrays import as_tensor
from optbench.datasets.image_files.streamed import StreamedImages
from optbench.datasets.preprocessing import PREPROCESSING
from optbench.datasets.raw import RawDataset
from optbench.datasets.splitting import TEST_SIZE
from optbench.tasks import Task

TARGETS = ("labels", "inputs", "binary")
LAYOUTS = ("channels_first", "channels_last")
PREPROCESSING_CHOICES = (*PREPROCESSING, "integers")  # "integers" scales nothing


def check_choices(preprocessing: str, targets: str, layout: str, shift: float) -> None:
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


def check_defaults(raw: object, **settings: Any) -> None:
    """Raise `UserError` for a setting of arrays that data of another kind do not have."""
    defaults = {"test_size": TEST_SIZE, "shift": 0, "layout": LAYOUTS[0]}
    for name, value in settings.items():
        if value != defaults[name]:
            raise UserError(
                f"data.{name}={value} is for examples of numbers, and this dataset is a "
                f"{type(raw).__name__}: leave it out"
            )


def check_layout(layout: str, what: str) -> None:
    if layout != "channels_first":
        raise UserError(
            f"data.layout={layout} is for images (n, height, width, channels), and this dataset "
            f"has {what}: leave it out"
        )


def check_integers(x: Tensor, preprocessing: str) -> None:
    """Raise `UserError` if preprocessing=integers misfits, or float32 would round."""
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


def check_raw(
    raw: Any, task: Task | None, digest: str | None
) -> tuple[str, RawDataset, tuple[Tensor, Tensor] | None]:
    """Return the digest, checked CPU tensors, and an own validation set or None.

    Examples have any real dtype. Labels are int64, or real numbers (n, targets) in float64.
    task: None if the labels tell. digest: None: that of the arrays.
    """
    if not isinstance(raw, (tuple, list)) or len(raw) not in (4, 6):
        size = f" of {len(raw)}" if isinstance(raw, (tuple, list)) else ""
        raise UserError(
            f"a dataset cannot be a {type(raw).__name__}{size}; it must be four "
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

"""The results of a dataset's function: frames, bunches, torch datasets, arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from optbench.common.errors import UserError, refusals
from optbench.datasets.tables.table import Table, of_frames
from optbench.datasets.tables.treatment import Treatment

TARGET = "target"  # the column's name where none is given, as in scikit-learn's frames


def unified(raw: Any, target: str | None) -> Any:
    """Return a dataset function's result as a `Table`, as arrays, or unchanged.

    Arrays are examples and labels, for training and for the test if `raw` is a pair of parts.
    target: the column of a DataFrame with the targets.
    """
    target = None if target is None else str(target)
    if isinstance(raw, Table):
        if target not in (None, raw.target):
            raise UserError(
                f"data.target={target}, and the target of this table is {raw.target!r}: "
                f"leave data.target out"
            )
        return raw
    parts = _parts(raw)
    if parts is None:
        _check_no_target(raw, target)
        return raw
    frames = [_frame(part, target) for part in parts]
    if any(frame is not None for frame in frames):
        if any(frame is None for frame in frames):
            raise UserError("a dataset's function returned a DataFrame beside another kind of data")
        return _table([frame for frame in frames if frame is not None], target)
    _check_no_target(raw, target)
    return tuple(array for part in parts for array in _arrays(part))


def _parts(raw: Any) -> list[Any] | None:
    """Return the training part, and the test part if there is one; None for arrays.

    A part is one object, or a pair of examples and labels.
    """
    if _is_part(raw):
        return [raw]
    if not isinstance(raw, tuple | list) or len(raw) != 2:
        return None
    first, second = raw
    whole = [_is_part(part) and not _is_labels(part) for part in raw]
    if all(whole):
        return [first, second]
    if all(isinstance(part, tuple) and len(part) == 2 for part in raw):
        return [first, second]
    return [(first, second)]


def _is_part(value: Any) -> bool:
    """Return whether a value alone holds examples and labels."""
    bunch = isinstance(value, Mapping) and {"data", "target"} <= set(value)
    return bunch or isinstance(value, pd.DataFrame | torch.utils.data.Dataset)


def _is_labels(value: Any) -> bool:
    return isinstance(value, pd.DataFrame) and value.shape[1] == 1


def _frame(part: Any, target: str | None) -> tuple[pd.DataFrame, str, str | None] | None:
    """Return a part's frame, the name of its target's column, and its task.

    None: the part has no frame. task: by the dtype of targets that lie beside the frame; None: the
    column tells.
    """
    if isinstance(part, Mapping):
        part = (part["data"], part["target"])
    if isinstance(part, pd.DataFrame):
        column = TARGET if target is None else target
        if target is None and column not in part:
            raise UserError(
                f"no column of the DataFrame is named 'target': give the one to predict, with "
                f"data.target=COLUMN (from Python, target=COLUMN); the columns are: "
                f"{', '.join(map(str, part))}"
            )
        return part, column, None
    if not isinstance(part, tuple) or not isinstance(part[0], pd.DataFrame):
        return None
    frame, y = part
    if isinstance(y, pd.DataFrame):
        if y.shape[1] != 1:
            raise UserError(f"one target is needed, and these are {', '.join(map(str, y))}")
        y = y.iloc[:, 0]
    name = str(getattr(y, "name", None) or TARGET)
    if name in frame:
        raise UserError(
            f"the targets' name {name!r} is that of a column as well: rename one of the two"
        )
    values = pd.Series(np.asarray(y) if not isinstance(y, pd.Series) else y.array)
    if values.shape != (len(frame),):
        raise UserError(f"there are {len(frame)} examples and targets of shape {np.shape(y)}")
    values.index = frame.index
    task = "regression" if pd.api.types.is_float_dtype(values.dtype) else "classification"
    return frame.assign(**{name: values}), name, task


def _table(frames: list[tuple[pd.DataFrame, str, str | None]], target: str | None) -> Table:
    (train, name, task), *rest = frames
    if target is not None and target != name:
        raise UserError(f"data.target={target}, and the targets that are given are {name!r}")
    test = rest[0][0] if rest else None
    return of_frames(train, test, name, Treatment(task=task))


def _arrays(part: Any) -> tuple[Any, Any]:
    if isinstance(part, Mapping):
        return part["data"], part["target"]
    if isinstance(part, torch.utils.data.Dataset):
        return _stacked(part)
    return part[0], part[1]


def _stacked(dataset: Any) -> tuple[Any, Any]:
    """Return the examples and labels of a torch dataset, each read once."""
    if isinstance(dataset, torch.utils.data.TensorDataset) and len(dataset.tensors) == 2:
        return dataset.tensors
    what = f"a dataset's function returned a {type(dataset).__name__}, which cannot be read"
    with refusals(what):
        iterable = isinstance(dataset, torch.utils.data.IterableDataset)
        pairs = list(dataset) if iterable else [dataset[i] for i in range(len(dataset))]
        if not pairs:
            raise UserError(f"{what}: it has no examples")
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            raise UserError(f"{what}: its examples must be pairs of an input and a label")
        xs, ys = zip(*pairs, strict=True)
        arrays = [_array(x) for x in xs]
        if len({array.shape for array in arrays}) > 1:
            shapes = ", ".join(sorted({str(array.shape) for array in arrays})[:3])
            raise UserError(f"{what}: its examples have several shapes ({shapes})")
        return np.stack(arrays), np.stack([np.asarray(y) for y in ys])


def _array(x: Any) -> np.ndarray:
    """Return an example as an array; a PIL image as (channels, height, width)."""
    array = np.asarray(x)
    if not hasattr(x, "getbands"):
        return array
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _check_no_target(raw: Any, target: str | None) -> None:
    if target is not None:
        raise UserError(
            f"data.target={target} names a column of a table, and this dataset has none: leave it "
            f"out, or add dataset=csv data.path=FILE"
        )

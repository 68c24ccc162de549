"""Several inputs or targets, each prepared by itself, with the same examples."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.datasets.arrays import as_tensor
from optbench.tasks import Inputs, Several, Task
from optbench.trees import Parts

Prepare = Callable[..., Any]  # of arrays, a task or None, and a preprocessing, to a `Dataset`
NAMES = ("train_x", "train_y", "test_x", "test_y", "val_x", "val_y")
SINGLE = ""  # the name where there is one array instead of parts


def are_several(arrays: Any) -> bool:
    """Return whether the arrays of a dataset have several inputs or targets."""
    if not isinstance(arrays, tuple | list) or len(arrays) not in (4, 6):
        return False
    pairs = zip(arrays[::2], arrays[1::2], strict=True)
    return any(_is_several(x, y) or _is_several(y, x) for x, y in pairs)


def _is_several(value: Any, other: Any) -> bool:
    """Return whether a value holds several arrays: a dictionary, or a tuple.

    The arrays of a tuple must have as many rows as the other side.
    """
    if isinstance(value, Mapping):
        return True
    if not isinstance(value, tuple) or not value or not all(_rows(part) for part in value):
        return False
    rows = {_rows(part) for part in value}
    others = list(other.values()) if isinstance(other, Mapping) else other
    if isinstance(others, list | tuple) and len(others) and _rows(others[0]):
        many = {_rows(part) for part in others}
    else:
        many = {_rows(other) or len(other)} if hasattr(other, "__len__") else set()
    # a tuple of single examples has as many parts as there are examples
    return rows == many and len(value) not in rows


def _rows(value: Any) -> int | None:
    """Return the number of rows of an array; None for anything else."""
    shape = getattr(value, "shape", None)
    return int(shape[0]) if shape is not None and len(shape) else None


def prepared(
    arrays: Sequence[Any], task: Task | None, preprocessing: str, targets: str, prepare: Prepare
) -> Any:
    """Return the `Dataset` of several inputs or targets.

    Each part is prepared as a dataset of its own, and all are divided alike. Among several inputs,
    whole numbers other than uint8 stay whole numbers. prepare: the function that prepares a part,
    from its arrays, a task and a preprocessing.
    """
    xs, ys = (_by_part(arrays[side::2], "inputs" if side == 0 else "targets") for side in (0, 1))
    _check_lengths(xs | {f"target {name}": parts for name, parts in ys.items()})
    x_of = {
        name: _named(name, prepare, _with_zeros(x), None, _kept(x, preprocessing, len(xs)))
        for name, x in xs.items()
    }
    y_of = {
        name: _named(name, prepare, _with_inputs(y, xs, preprocessing), task, preprocessing)
        for name, y in ys.items()
    }
    named = isinstance(arrays[1], Mapping)
    first = next(iter(y_of.values()))
    found = first.task
    if SINGLE not in ys:
        parts = tuple((name, data.task) for name, data in y_of.items())
        found = Several(sum(task.classes for _, task in parts), parts=parts, named=named)
        found = found.fitted([])
    joined = {
        column: _joined(of, column, raw)
        for part in ("train", "val", "test")
        for column, of, raw in ((f"{part}_x", x_of, arrays[0]), (f"{part}_y", y_of, arrays[1]))
    }
    sha = hashlib.sha256()
    for name, data in [*x_of.items(), *y_of.items()]:
        sha.update(f"{name} {data.digest}\n".encode())
    made = replace(first, task=found, digest=sha.hexdigest()[:16], **joined)
    if targets == "inputs":
        x = {f"{part}_y": getattr(made, f"{part}_x") for part in ("train", "val", "test")}
        made = replace(made, task=Inputs(), **x)
    return made


def _by_part(arrays: Sequence[Any], what: str) -> dict[str, list[Any]]:
    """Return the arrays of train, test and perhaps validation, by the parts' names."""
    kinds = {type(_names(value)) for value in arrays}
    names = _names(arrays[0])
    if len(kinds) > 1 or any(_names(value) != names for value in arrays):
        raise UserError(
            f"the {what} of training and test examples must have the same parts, and these are "
            f"{' and '.join(str(_names(value) or 'one array') for value in arrays)}"
        )
    if names is None:
        return {SINGLE: list(arrays)}
    if wrong := [name for name in names if not str(name).isidentifier()]:
        raise UserError(
            f"the {what} have a part called {wrong[0]!r}; names are words of letters, digits and "
            f"underscores, since they name arguments and columns"
        )
    if isinstance(arrays[0], Mapping):
        return {str(name): [value[name] for value in arrays] for name in names}
    return {name: [value[k] for value in arrays] for k, name in enumerate(names)}


def _names(value: Any) -> list[str] | None:
    """Return the names of the parts; None of a single array."""
    if isinstance(value, Mapping):
        return list(value)
    return [f"part_{k + 1}" for k in range(len(value))] if isinstance(value, tuple) else None


def _check_lengths(parts: Mapping[str, Sequence[Any]]) -> None:
    for k in range(len(next(iter(parts.values())))):
        rows = {name: len(values[k]) for name, values in parts.items()}
        if len(set(rows.values())) > 1:
            words = ", ".join(f"{name or 'the other side'} {count}" for name, count in rows.items())
            raise UserError(f"{NAMES[2 * k]} and {NAMES[2 * k + 1]} differ in their rows: {words}")


def _kept(x: Sequence[Any], preprocessing: str, count: int) -> str:
    """Return the preprocessing of one of several inputs; whole numbers are kept."""
    first = as_tensor("train_x", x[0])
    whole = not (first.is_floating_point() or first.is_complex() or first.dtype == torch.uint8)
    if count > 1 and whole:
        return "integers"
    return "none" if preprocessing == "integers" and count > 1 else preprocessing


def _with_zeros(x: Sequence[Any]) -> list[Any]:
    """Return inputs with labels that all are 0."""
    return [part for each in x for part in (each, torch.zeros(len(each), dtype=torch.int64))]


def _with_inputs(
    y: Sequence[Any], xs: Mapping[str, Sequence[Any]], preprocessing: str
) -> list[Any]:
    """Return targets with inputs of zeros.

    Targets that are tokens get inputs of as many tokens.
    """
    first = as_tensor("train_y", y[0])
    width = 1
    if first.ndim == 2 and not first.is_floating_point():
        lengths = [as_tensor("train_x", x[0]).shape[1:2] for x in xs.values()]
        width = first.shape[1] if torch.Size([first.shape[1]]) in lengths else 1
    dtype = torch.int64 if preprocessing == "integers" else torch.float32
    zeros = (torch.zeros(len(each), width, dtype=dtype) for each in y)
    return [part for each in zip(zeros, y, strict=True) for part in each]


def _named(name: str, prepare: Prepare, arrays: list[Any], task: Task | None, how: str) -> Any:
    """Return a part's data; an error names the part."""
    try:
        return prepare(arrays, task, how)
    except UserError as error:
        raise UserError(f"{name}: {error}" if name else str(error)) from error


def _joined(parts: Mapping[str, Any], column: str, raw: Any) -> Tensor:
    """Return a column of all parts, as `Parts` if there are parts.

    Training takes `Parts` as it takes a tensor.
    """
    tensors = {name: getattr(data, column) for name, data in parts.items()}
    if SINGLE in parts:
        return cast(Tensor, tensors[SINGLE])
    named = isinstance(raw, Mapping)
    return cast(Tensor, Parts(tensors if named else list(tensors.values())))

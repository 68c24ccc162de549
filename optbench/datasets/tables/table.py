"""A table with one target: numbers to predict, or classes to tell apart."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from optbench.common.console import warn
from optbench.common.errors import UserError
from optbench.common.text import count
from optbench.datasets.splitting import TEST_SIZE, divide, split
from optbench.datasets.tables.columns import (
    Column,
    as_numbers,
    as_texts,
    categories,
    check_few_wrong,
    check_names,
    detected,
    of_series,
)
from optbench.datasets.tables.treatment import (
    FEW_CATEGORIES,
    Treatment,
    features,
)
from optbench.tasks import Classes, Task, Values

MOST_COUNTED_CLASSES = 20  # more different whole numbers than this are values to predict
LEAST_REPEATS = 5  # examples of each class of whole numbers, on average
PREPROCESSING = ("none", "scale", "standardize", "standardize_features")


class Treated(NamedTuple):
    """The parts of a `Dataset`, whose real targets are not yet standardized."""

    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor
    test_x: Tensor
    test_y: Tensor
    task: Task
    digest: str
    nominal: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of all rows, before split and treatment. See `table_of`."""

    target: str  # the name of its column
    columns: list[Column]  # those of the inputs, as numbers or texts
    y: np.ndarray  # (n,) numbers of classes, or (n, 1) values
    task: Task
    treatment: Treatment
    digest: str
    tested: int  # the last so many rows are the test part; 0: it is drawn
    notes: Sequence[str] = ()  # what the user should know of the target

    def treated(
        self,
        *,
        preprocessing: str,
        val_size: float | int,
        subset: int | None,
        test_size: float | int,
        generator: torch.Generator,
        shift: float,
    ) -> Treated:
        """Return the data split, filled and scaled by the training part; see `prepare`."""
        if preprocessing not in PREPROCESSING:
            raise UserError(
                f"preprocessing={preprocessing} is not for a table: take one of "
                f"{', '.join(PREPROCESSING)}"
            )
        train, val, test = self._split(val_size, subset, test_size, generator)
        made = features(
            self.columns, self.treatment, preprocessing, train, np.concatenate([val, test])
        )
        for note in [*made.notes, *self.notes]:
            warn(note)
        x, y = made.x, torch.tensor(self.y)
        _check_range(x)
        test_x = x[test] + shift * x[train].std(axis=0) * made.scaled

        def part(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values.astype(np.float32))

        return Treated(
            part(x[train]),
            y[train],
            part(x[val]),
            y[val],
            part(test_x),
            y[test],
            self.task,
            self.digest,
            made.nominal,
        )

    def _split(
        self,
        val_size: float | int,
        subset: int | None,
        test_size: float | int,
        generator: torch.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the rows of training, validation and test part."""
        n = len(self.y)
        if self.tested:
            if test_size != TEST_SIZE:
                raise UserError("data.test_size divides one table, and here the test has its own")
            rest, test = torch.arange(n - self.tested), torch.arange(n - self.tested, n)
        else:
            rest, test = divide(n, test_size, generator)
        parts = split(len(rest), len(test), val_size=val_size, subset=subset, generator=generator)
        test = test if parts.test is None else test[parts.test]
        return rest[parts.train].numpy(), rest[parts.val].numpy(), test.numpy()


def _check_range(x: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        fine = np.isfinite(x.astype(np.float32)).all()
    if not fine:
        raise UserError(
            "a column that hardly varies in the training part is far off in validation or test: "
            "leave it out with dataset.ignored_columns, or use preprocessing=none"
        )


def table_of(
    columns: Mapping[str, Column],
    target: str,
    treatment: Treatment,
    *,
    tested: int = 0,
    source: bytes = b"",
) -> Table:
    """Return a table of columns, of which `target` is to be predicted by the others.

    tested: the number of last rows that are the test part. source: the bytes of the file, which
    belong to the data's identity. Raises `UserError` for columns that cannot serve.
    """
    if not columns or not len(next(iter(columns.values())).cells):
        raise UserError("the table has no rows")
    check_names("data.target", [target], columns)
    for key in ("nominal_columns", "numeric_columns", "ignored_columns"):
        check_names(f"dataset.{key}", getattr(treatment, key), columns)
    if target in treatment.ignored_columns:
        raise UserError(f"{target!r} is data.target, and dataset.ignored_columns leaves it out")
    y, task = _target(columns[target], treatment)
    left_out = {target, *treatment.ignored_columns}
    used = [treatment.kind_of(column) for name, column in columns.items() if name not in left_out]
    if not used:
        raise UserError(f"the table has no column beside the target {target!r} to learn from")
    digest = _digest([*used, Column(target, y)], treatment, tested, source)
    notes = []
    guessed = treatment.task is None and isinstance(task, Classes) and task.classes > 2
    if guessed and detected(columns[target]).is_numeric:
        notes.append(
            f"the whole numbers of the target {target!r} are taken as {task.classes} classes; "
            f"dataset.task=regression predicts them as values (dataset.task=classification: "
            f"without this line)"
        )
    if isinstance(task, Classes) and (few := _rare_classes(columns[target], y)):
        notes.append(
            f"the target {target!r} has fewer than three rows of {few}: they cannot be in each of "
            f"the training, validation and test parts"
        )
    return Table(target, used, y, task, treatment, digest, tested, notes)


def of_frames(
    train: pd.DataFrame,
    test: pd.DataFrame | None,
    target: str,
    treatment: Treatment,
    source: bytes = b"",
) -> Table:
    """Return a table of a DataFrame, and of another one with the rows of the test.

    source: the bytes of the file that the frame was read from.
    """
    if test is not None:
        check_names("the test's DataFrame", map(str, test), dict.fromkeys(map(str, train)))
        check_names("the training DataFrame", map(str, train), dict.fromkeys(map(str, test)))
        train = pd.concat([train, test[list(train)]], ignore_index=True)
    ignored = {*treatment.ignored_columns}
    names = [str(name) for name in train]
    if len(set(names)) < len(names):
        raise UserError("the DataFrame has two columns of one name: rename one")
    columns = {
        name: of_series(name, train.iloc[:, place])
        for place, name in enumerate(names)
        if name not in ignored
    }
    columns |= {name: Column(name, np.zeros(len(train))) for name in names if name in ignored}
    tested = 0 if test is None else len(test)
    return table_of(columns, target, treatment, tested=tested, source=source)


def _target(column: Column, treatment: Treatment) -> tuple[np.ndarray, Task]:
    """Return the targets and their task. Raise `UserError` if nothing is to learn."""
    name, missing = column.name, column.missing
    if missing.any():
        rows = np.flatnonzero(missing)[:3] + 1
        raise UserError(
            f"the target {name!r} is empty in {count(int(missing.sum()), 'row')} (row "
            f"{', '.join(map(str, rows))}{', ...' if missing.sum() > 3 else ''}): fill them, or "
            f"delete these rows"
        )
    found = detected(column, target=True)
    task = treatment.task or ("classification" if _are_classes(found) else "regression")
    if task == "regression":
        values = as_numbers(found, target=True).cells
        if values.min() == values.max():
            raise UserError(f"the target {name!r} is {values[0]:g} in all rows: nothing to learn")
        return values[:, None], Values(1)
    texts = as_texts(found if found.is_numeric else column)
    known = categories(texts)
    if len(known) < 2:
        raise UserError(
            f"the target {name!r} has one class only ({known[0]!r}): two or more are needed"
        )
    if len(known) > max(FEW_CATEGORIES, len(texts.cells) / 2):
        if not found.is_numeric:
            check_few_wrong(column, target=True)
        raise UserError(
            f"the target {name!r} has {len(known):,} different values in {len(texts.cells):,} "
            f"rows, too many for classes: take another column as data.target, or predict numbers "
            f"with dataset.task=regression (a function of your own returns them as real numbers)"
        )
    place = {text: index for index, text in enumerate(known)}
    numbers = np.array([place[text] for text in texts.cells], dtype=np.int64)
    return numbers, Classes(len(known))


def _rare_classes(column: Column, y: np.ndarray) -> str:
    """Return the classes with one or two rows, as in "'a' (1), 'b' (2)"; at most three."""
    counts = np.bincount(y)
    rare = np.flatnonzero(counts < 3)
    if not len(rare):
        return ""
    found = detected(column, target=True)
    known = categories(as_texts(found if found.is_numeric else column))
    return ", ".join(f"{known[k]!r} ({counts[k]})" for k in rare[:3]) + (
        f" and {len(rare) - 3} other classes" if len(rare) > 3 else ""
    )


def _are_classes(column: Column) -> bool:
    """Return whether a target names classes: texts, or few different whole numbers."""
    if not column.is_numeric:
        return True
    whole = bool((column.cells == np.round(column.cells)).all())
    repeated = max(2, len(column.cells) // LEAST_REPEATS)
    return whole and len(np.unique(column.cells)) <= min(MOST_COUNTED_CLASSES, repeated)


def _digest(columns: Sequence[Column], treatment: Treatment, tested: int, source: bytes) -> str:
    """Return 16 hex digits of the SHA-256 over file, treatment and columns."""
    sha = hashlib.sha256(source)
    sha.update(repr((astuple(treatment), tested)).encode())
    for column in columns:
        sha.update(f"{column.name!r} {column.cells.dtype} {column.order}\n".encode())
        plain: Any = column.cells
        if plain.dtype == object:
            plain = np.frombuffer(repr(plain.tolist()).encode("utf-8", "surrogatepass"), np.uint8)
        sha.update(np.ascontiguousarray(plain).tobytes())
    return sha.hexdigest()[:16]

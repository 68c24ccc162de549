"""How columns become features, by statistics of the training part alone."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from optbench.common.errors import UserError, check_choice
from optbench.common.text import count
from optbench.datasets.tables.columns import (
    Column,
    as_numbers,
    as_texts,
    categories,
    check_few_wrong,
    detected,
)

NOMINAL = ("onehot", "numbers", "embedding")
MISSING = ("median", "mean", "error")
TASKS = ("classification", "regression")
FEW_CATEGORIES = 50  # a column of texts with more must have each twice on average
MOST_CATEGORIES = 1000  # of a column that is not declared nominal
UNKNOWN = {  # how a category counts that the training part lacks
    "onehot": "zeros in the columns of all known ones",
    "numbers": "the training part's mean",
    "embedding": "a vector of zeros",
}


@dataclass(frozen=True)
class Treatment:
    """The treatment of a table's columns.

    nominal: "onehot" (a feature for each category), "numbers" (one feature, the category's place)
        or "embedding" (the place, for a model that looks vectors up).
    nominal_columns, numeric_columns: of which the kind is declared, not detected.
    ignored_columns: left out. missing: "median" or "mean" of the column's training values, with a
        feature that tells the missing ones, or "error". task: "classification", "regression" or
        None: by the target.
    """

    nominal: str = "onehot"
    nominal_columns: tuple[str, ...] = ()
    numeric_columns: tuple[str, ...] = ()
    ignored_columns: tuple[str, ...] = ()
    missing: str = "median"
    task: str | None = None

    def __post_init__(self) -> None:
        check_choice("dataset.nominal", self.nominal, NOMINAL)
        check_choice("dataset.missing", self.missing, MISSING)
        if self.task is not None:
            check_choice("dataset.task", self.task, TASKS)
        if both := {*self.nominal_columns} & {*self.numeric_columns}:
            raise UserError(f"the column {min(both)!r} is declared both nominal and numeric")

    def kind_of(self, column: Column) -> Column:
        """Return a column as numbers or as texts, as it is declared or detected."""
        if column.name in self.nominal_columns:
            return as_texts(column)
        if column.name in self.numeric_columns:
            return as_numbers(column)
        found = detected(column)
        if not found.is_numeric:
            check_few_wrong(found, nominal=True)
            _check_categories(found)
        return found


def _check_categories(column: Column) -> None:
    """Raise `UserError` for a column of texts that hardly ever repeat, such as names."""
    there = int((~column.missing).sum())
    different = len(categories(column))
    if different > MOST_CATEGORIES or different > max(FEW_CATEGORIES, there / 2):
        name = column.name
        raise UserError(
            f"the column {name!r} holds {different:,} different texts in {there:,} rows (a name, "
            f"an id, a date, free text?): leave it out with 'dataset.ignored_columns=[{name}]', "
            f"make numbers of dates (such as days since the first), or declare it with "
            f"'dataset.nominal_columns=[{name}]', best with dataset.nominal=embedding"
        )


class Features(NamedTuple):
    """The features of all rows.

    The last features hold numbers of categories. nominal: how many numbers each of these has.
    """

    x: np.ndarray  # (n, features), float64
    scaled: np.ndarray  # (features,), whether a feature is a scaled number
    nominal: tuple[int, ...]
    notes: list[str]  # what the user should know


class _Feature(NamedTuple):
    values: np.ndarray
    scaled: bool = False


def features(
    columns: list[Column],
    treatment: Treatment,
    preprocessing: str,
    train: np.ndarray,
    others: np.ndarray,
) -> Features:
    """Return the features of all rows, by statistics of the rows in `train`.

    others: the rows of validation and test. Raises `UserError` where no feature is left.
    """
    notes: list[str] = []
    found: list[_Feature] = []
    looked_up: list[_Feature] = []
    sizes: list[int] = []
    constant: list[str] = []
    for column in columns:
        if column.is_numeric:
            made = _numeric(column, treatment, preprocessing, train)
        else:
            known = _known(column, train)
            notes += _unknown(column, known, others, treatment)
            if len(known) < 2:
                made = []
            elif treatment.nominal == "embedding":
                looked_up.append(_Feature(_places(column, known)))
                sizes.append(len(known) + 1)
                continue
            else:
                made = _nominal(column, known, treatment, preprocessing, train)
        if not made:
            constant.append(column.name)
        found += made
    if constant:
        names = ", ".join(map(repr, constant))
        one = len(constant) == 1
        notes.append(
            f"the {'column' if one else 'columns'} {names} {'has' if one else 'have'} one value in "
            f"the training part, and {'is' if one else 'are'} left out"
        )
    if not found and not looked_up:
        rows = len(columns[0].cells[train])
        raise UserError(
            f"no column is left to learn from: each has one value in the training part "
            f"({count(rows, 'row')}) or is ignored"
        )
    every = [*found, *looked_up]
    return Features(
        np.stack([feature.values for feature in every], axis=1),
        np.array([feature.scaled for feature in every]),
        tuple(sizes),
        notes,
    )


def _numeric(
    column: Column, treatment: Treatment, preprocessing: str, train: np.ndarray
) -> list[_Feature]:
    """Return a filled and scaled feature, and one that marks missing values.

    A feature that is constant in the training part is left out.
    """
    values, missing = column.cells, column.missing
    if missing.any():
        if treatment.missing == "error":
            raise UserError(
                f"the column {column.name!r} lacks {count(int(missing.sum()), 'value')} (first in "
                f"data row {int(missing.argmax()) + 1}): fill them, or use dataset.missing=median"
            )
        there = values[train][~missing[train]]
        centre = np.median if treatment.missing == "median" else np.mean
        values = np.where(missing, float(centre(there)) if len(there) else 0.0, values)
    made = []
    if (part := values[train]).min() < part.max():
        made.append(_Feature(_scaled(values, preprocessing, train), True))
    if len(set(missing[train])) > 1:
        made.append(_Feature(missing.astype(np.float64)))
    return made


def _scaled(values: np.ndarray, preprocessing: str, train: np.ndarray) -> np.ndarray:
    part = values[train]
    if preprocessing == "none":
        return values
    if preprocessing == "scale":
        return (values - part.min()) / (part.max() - part.min())
    std = part.std()
    return (values - part.mean()) / (std if std > 0 else 1.0)  # a std of 0 by underflow


def _known(column: Column, train: np.ndarray) -> list[str | None]:
    """Return the categories of the training part; None, the last: a missing value."""
    known: list[str | None] = list(categories(column, train))
    return [*known, None] if column.missing[train].any() else known


def _places(column: Column, known: list[str | None]) -> np.ndarray:
    """Return the places of categories, from 1; 0: not known."""
    place = {category: index for index, category in enumerate(known, start=1)}
    return np.array([place.get(value, 0) for value in column.cells], dtype=np.float64)


def _nominal(
    column: Column,
    known: list[str | None],
    treatment: Treatment,
    preprocessing: str,
    train: np.ndarray,
) -> list[_Feature]:
    places = _places(column, known)
    if treatment.nominal == "onehot":
        return [_Feature((places == i).astype(np.float64)) for i in range(1, len(known) + 1)]
    places = np.where(places == 0, places[train].mean(), places)
    return [_Feature(_scaled(places, preprocessing, train), True)]


def _unknown(
    column: Column, known: list[str | None], others: np.ndarray, treatment: Treatment
) -> list[str]:
    """Return a sentence on categories that only validation or test have."""
    new = {*column.cells[others]} - {*known}
    if not new:
        return []
    texts = sorted("a missing value" if value is None else repr(value) for value in new)
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return [
        f"the column {column.name!r} has categories in validation or test that the training part "
        f"lacks ({', '.join(texts[:3])}{more}): they count as {UNKNOWN[treatment.nominal]}"
    ]

"""The columns of a table: numbers or texts, each with missing values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from optbench.common.errors import UserError
from optbench.common.names import did_you_mean

# texts in a file that stand for a missing value; "?" is that of UCI's tables
MISSING_TEXTS = frozenset(
    ("", "?", "NA", "N/A", "#N/A", "NaN", "nan", "-nan", "null", "NULL", "None", "<NA>")
)

MOSTLY = 0.9  # of a column's texts: then it is one of numbers, with mistakes


@dataclass(frozen=True, eq=False)
class Column:
    """A column of a table.

    cells: float64 with NaN for missing values, or objects: texts with None for missing values.
    order: the categories of texts, if they have an order of their own.
    """

    name: str
    cells: np.ndarray
    order: tuple[str, ...] = ()

    @property
    def is_numeric(self) -> bool:
        """Return whether the values are numbers."""
        return self.cells.dtype == np.float64

    @property
    def missing(self) -> np.ndarray:
        """Return which values are missing, as booleans (n,)."""
        if self.is_numeric:
            return np.isnan(self.cells)
        return np.array([value is None for value in self.cells], dtype=bool)


def of_texts(name: str, texts: Sequence[str]) -> Column:
    """Return a column of a text file, whose values may still be numbers."""
    values = np.empty(len(texts), dtype=object)
    values[:] = [None if text in MISSING_TEXTS else text for text in texts]
    return Column(name, values)


def of_series(name: str, series: "pd.Series[Any]") -> Column:
    """Return a column of a DataFrame. Raises `UserError` for values of other kinds."""
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        texts = _as_objects(name, series.astype(object))
        order = tuple(map(_text, dtype.categories)) if dtype.ordered else ()
        return Column(name, texts, order)
    if pd.api.types.is_complex_dtype(dtype):
        raise _unreadable(name, "complex numbers", "give its real and imaginary parts")
    if pd.api.types.is_numeric_dtype(dtype):
        return checked(Column(name, series.to_numpy(dtype=np.float64, na_value=np.nan)))
    if pd.api.types.is_datetime64_any_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype):
        raise _unreadable(name, "dates or times", "turn them into numbers (a year, days since)")
    return Column(name, _as_objects(name, series))


def _as_objects(name: str, series: "pd.Series[Any]") -> np.ndarray:
    values = np.empty(len(series), dtype=object)
    for row, value in enumerate(series):
        if isinstance(value, str):
            values[row] = None if value.strip() in MISSING_TEXTS else value
        elif value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
            values[row] = None
        elif isinstance(value, int | float | np.number | np.bool_):
            values[row] = _text(value)
        else:
            kind = f"a {type(value).__name__} in data row {row + 1}"
            raise _unreadable(name, kind, "numbers and texts are needed")
    return values


def _unreadable(name: str, what: str, advice: str) -> UserError:
    return UserError(
        f"the column {name!r} holds {what}: {advice}, or leave it out with "
        f"dataset.ignored_columns=[{name}]"
    )


def _text(value: object) -> str:
    """Return a value as a category's name; 1.0 is "1"."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return f"{value:.0f}"
    return str(value)


def detected(column: Column, target: bool = False) -> Column:
    """Return a column of texts as numbers if all its texts are numbers.

    target: whether it is the target, which may not be empty.
    """
    if column.is_numeric or column.order or column.missing.all():
        return column
    numbers, other = _parsed(column)
    return column if other is not None else checked(Column(column.name, numbers), target)


def as_numbers(column: Column, nominal: bool = False, target: bool = False) -> Column:
    """Return a column as numbers. Raises `UserError` for a text that is none.

    nominal: whether the column may as well hold categories, so that the error says how. target:
    whether it is the target, which may not be empty.
    """
    if column.is_numeric:
        return column
    numbers, other = _parsed(column)
    if other is not None:
        text = column.cells[other]
        leave = "remove the row" if target else "leave it empty"
        comma = text.count(",") == 1 and text.replace(",", "").lstrip("+-").isdigit()
        raise UserError(
            f"the column {column.name!r} is to hold numbers, and data row {other + 1} has {text!r}"
            + (": write decimals with a point" if comma else f": correct it, or {leave}")
            + (f" (categories: dataset.nominal_columns=[{column.name}])" if nominal else "")
        )
    return checked(Column(column.name, numbers), target)


def check_few_wrong(column: Column, nominal: bool = False, target: bool = False) -> None:
    """Raise `UserError` for the first text that is no number, if nearly all texts are numbers.

    Numbers with a comma for the decimal point count as such.
    """
    texts = [text for text in column.cells if text is not None]
    if sum(map(_looks_like_number, texts)) >= MOSTLY * len(texts):
        as_numbers(column, nominal, target)


def _looks_like_number(text: str) -> bool:
    try:
        float(text.replace(",", ".", 1))
    except ValueError:
        return False
    return "_" not in text


def _parsed(column: Column) -> tuple[np.ndarray, int | None]:
    """Return the numbers of a column of texts, and the first row whose text is none."""
    numbers = np.full(len(column.cells), np.nan)
    for row, text in enumerate(column.cells):
        if text is None:
            continue
        try:
            if "_" in text:  # Python reads 1_0 as ten
                return numbers, row
            numbers[row] = float(text)
        except ValueError:
            return numbers, row
    return numbers, None


def checked(column: Column, target: bool = False) -> Column:
    """Return a column of numbers. Raise `UserError` if float32 does not hold them."""
    with np.errstate(over="ignore"):
        bad = np.isinf(column.cells.astype(np.float32))
    if bad.any():
        row = int(bad.argmax())
        leave = (
            "or remove the row"
            if target
            else f"leave it empty, or leave the column out with "
            f"dataset.ignored_columns=[{column.name}]"
        )
        raise UserError(
            f"the column {column.name!r} has {column.cells[row]:g} in data row {row + 1}, which is "
            f"infinite or too large: correct it, {leave}"
        )
    return column


def as_texts(column: Column) -> Column:
    """Return a column as texts; whole numbers have no decimal point."""
    if not column.is_numeric:
        return column
    texts = np.empty(len(column.cells), dtype=object)
    texts[:] = [None if np.isnan(v) else _text(v) for v in column.cells]
    return Column(column.name, texts, column.order)


def categories(column: Column, rows: np.ndarray | slice = slice(None)) -> list[str]:
    """Return the different texts of some rows, sorted.

    They are in their own order if they have one, else by number, else by letter.
    """
    found = {text for text in column.cells[rows] if text is not None}
    if column.order:
        return [text for text in column.order if text in found]
    try:
        return sorted(found, key=lambda text: (float(text), text))
    except ValueError:
        return sorted(found)


def check_names(key: str, names: Iterable[str], columns: Mapping[str, object]) -> None:
    """Raise `UserError` for a name that is no column. key: where the name was given."""
    for name in names:
        if name not in columns:
            shown = ", ".join(list(map(str, columns))[:30])
            more = ", ..." if len(columns) > 30 else ""
            raise UserError(
                f"{key} names {name!r}, which is no column of the table"
                f"{did_you_mean(name, map(str, columns))}\nThe columns are: {shown}{more}"
            )

"""Checks of a recipe's settings, which name the key and what is allowed."""

from math import isfinite
from typing import Any

from optbench.common.errors import UserError


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, and not true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def is_count(value: Any, least: int) -> bool:
    """Return whether a value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_positive(key: str, value: Any) -> None:
    """Raise `UserError` unless the value is None or a number above 0."""
    if value is not None and (not is_number(value) or value <= 0):
        raise UserError(f"{key} must be a number above 0, or null (None) for none, not {value!r}")


def check_share(key: str, value: Any, meaning: str) -> None:
    """Raise `UserError` unless the value is at least 0 and below 1."""
    if not is_number(value) or not 0 <= value < 1:
        raise UserError(f"{key} must be at least 0 and below 1 ({meaning}), not {value!r}")

"""Format and sort numbers, counts and config values for a reader."""

import math
from collections.abc import Sequence

import numpy as np


def show(value: object) -> str:
    """Return a config value as YAML would show it."""
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    if isinstance(value, (float, np.floating)):
        return "unset" if math.isnan(value) else f"{value:g}"
    return str(value)


def count(number: int, what: str, several: str = "") -> str:
    """Return a number of things, as in "1 run" and "2 runs".

    several: an irregular plural.
    """
    return f"{number} {what if number == 1 else several or what + 's'}"


def capital(text: str) -> str:
    """Return the text with a capital first letter, unless that is a variable's name alone."""
    return text if text[1:2] == " " and text[0] not in "aA" else text[:1].upper() + text[1:]


def aside(text: str) -> str:
    """Return the text as " (text)", to stand behind a word; "" without a text."""
    return f" ({text})" if text else ""


def with_article(name: str) -> str:
    """Return a name with "a" or "an" before it."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def sort_key(value: object) -> tuple[int, float, str]:
    """Return a sort key for mixed config values: numbers, then text, then unset."""
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return (2, 0.0, "") if math.isnan(value) else (0, float(value), "")
    return (1, 0.0, str(value))


def is_number(text: str) -> bool:
    """Return whether Python reads a text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def limit(value: float) -> str:
    """Return an end of an interval; an infinite one is "diverged"."""
    return number(value) if math.isfinite(value) else "diverged"


def interval(low: float, high: float, form: str = ".3g") -> str:
    """Return an interval in brackets, or "no interval" where it has no ends."""
    if math.isinf(low) and math.isinf(high) and low < high:
        return "no interval"
    return f"[{low:{form}}, {high:{form}}]"


def number(value: float) -> str:
    """Return four significant digits, without an exponent where that is readable."""
    if not math.isfinite(value):
        return "n/a"
    if 1e4 <= abs(value) < 1e6:
        return f"{float(f'{value:.4g}'):.0f}"
    readable = value == 0 or 1e-3 <= abs(value) < 1e4
    return f"{value:#.4g}".removesuffix(".") if readable else f"{value:.3e}"


def enumerated(names: Sequence[str]) -> str:
    """Return names as in "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))

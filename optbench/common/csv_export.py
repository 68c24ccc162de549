"""Tables as CSV files that are safe to open: names come from configurations, also from others'."""

from pathlib import Path
from typing import Any

import pandas as pd

from optbench.common.files import replace_text
from optbench.common.text import is_number

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet runs begins with one of these


def to_csv(table: pd.DataFrame, path: Path | None = None, **options: Any) -> str:
    """The CSV of a table, without its index; written to `path`, if given. Raises OSError.

    A text that a spreadsheet would take for a formula has an apostrophe before it; numbers stay.
    """
    safe = table.rename(columns=_plain)
    for name in safe.columns[[not pd.api.types.is_numeric_dtype(t) for t in safe.dtypes]]:
        safe[name] = safe[name].astype(object).map(_plain, na_action="ignore")
    text: str = safe.to_csv(index=False, **options)
    if path is not None:
        replace_text(path, text)
    return text


def _plain(value: Any) -> Any:
    safe = not isinstance(value, str) or not value.startswith(FORMULA) or is_number(value)
    return value if safe else f"'{value}"

"""Write tables as CSV files whose texts no spreadsheet runs as formulas."""

from pathlib import Path
from typing import Any

import pandas as pd

from optbench.common.files import replace_text
from optbench.common.text import is_number

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # of a text that a spreadsheet runs


def to_csv(table: pd.DataFrame, path: Path | None = None, **options: Any) -> str:
    """Return a table as CSV without its index, and write it to `path`, if given.

    A text that a spreadsheet would run gets an apostrophe in front; numbers stay. Raises OSError.
    """
    safe = table.rename(columns=_plain)
    for name in safe.columns[[not pd.api.types.is_numeric_dtype(t) for t in safe.dtypes]]:
        safe[name] = safe[name].astype(object).map(_plain, na_action="ignore")
    text: str = safe.to_csv(index=False, **options)
    if path is not None:
        replace_text(path, text)
    return text


def _plain(value: Any) -> Any:
    safe = not isinstance(value, str) or not value.startswith(FORMULA_STARTS) or is_number(value)
    return value if safe else f"'{value}"

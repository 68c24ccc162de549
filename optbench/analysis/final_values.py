"""The value that each run ended with."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from optbench.common.metrics import metric_of
from optbench.common.text import count


def final_values(table: pd.DataFrame, column: str) -> pd.Series:
    """The last logged value of each run (index: run); the worst value for a diverged run or a
    NaN at the end; NaN where the column was never logged (there is no such split)."""
    by_run = table.groupby("run", observed=True, sort=False)
    last = table[~table["run"].duplicated(keep="last")].set_index("run")
    last.index = last.index.astype(object)
    logged = by_run[column].count().reindex(last.index) > 0
    diverged = last["status"] == "diverged"
    # a run that diverged at once logged no number: other runs tell whether there is such a split
    split = table.loc[table[column].notna(), "problem"].unique()
    logged |= diverged & (last["problem"].isin(split) | (column == "train_loss"))
    return (
        last[column].where(~(diverged | last[column].isna()), metric_of(column).worst).where(logged)
    )


def divergence_limit(table: pd.DataFrame, y: str) -> float:
    """Return the loss above which a run has learned nothing; inf for an accuracy.

    That is four times the untrained value. A loss that can be negative has no meaningful
    multiples: there it is as far above the untrained value as the lowest value lies below it.
    """
    values = table[y].to_numpy(dtype=float)
    first = table[~table["run"].duplicated()][y].to_numpy(dtype=float)
    first = first[np.isfinite(first)]
    if not metric_of(y).log or not len(first):
        return math.inf
    return untrained_limit(float(np.median(first)), float(values[np.isfinite(values)].min()), 4)


def untrained_limit(start: float, least: float, factor: float) -> float:
    """Return `factor` times `start`, or 2 start - least where a value is negative; inf where that
    is not above `start`."""
    limit = factor * start if least >= 0 else 2 * start - least
    return limit if limit > start else math.inf


def seeds_text(counts: Iterable[int]) -> str:
    """How many seeds there are, as in "3 seeds" or "3 to 4 seeds"."""
    counts = list(counts)
    low, high = min(counts), max(counts)
    return count(high, "seed") if low == high else f"{low} to {high} seeds"

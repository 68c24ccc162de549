"""The spread of final values over searches, beside the spread over seeds."""

import math

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Comparison
from optbench.common.metrics import metric_of
from optbench.common.text import number
from optbench.stats.estimates import sd

HEADS = ("optimizer", "searches", "over searches", "over seeds", "seeds of")


def spreads(made: Comparison, y: str) -> pd.DataFrame:
    """Return the standard deviations of final values over searches and over seeds.

    Columns: problem, optimizer, searches, over_searches (of the searches' means), over_seeds
    (within a search, pooled; if each search has one seed, of the runs at the default setting), from
    (which of the two). A row per tuned optimizer on each problem with two or more searches.
    """
    if made.searches < 2 or y not in made.table:
        return pd.DataFrame()
    runs = made.table.drop_duplicates("run").astype({"problem": str, "optimizer": str})
    runs = runs.assign(y=runs["run"].map(made.finals(y)).astype(float))
    runs = runs.assign(repeat=pd.to_numeric(runs["repeat"].astype(object), errors="coerce"))
    phase = runs["phase"].astype(str)
    found = []
    for key, part in runs[phase == "tuned"].groupby(["problem", "optimizer"], sort=False):
        by_search = part.groupby("repeat")["y"]
        # infinite where a run diverged, which no statistic leaves out
        each = [sd(values.to_numpy()) for _, values in by_search if len(values) > 1]
        within, source = math.sqrt(np.mean(np.square(each))) if each else 0.0, "within searches"
        if not each:
            same = (runs["problem"] == key[0]) & (runs["optimizer"] == key[1])
            defaults = runs[same & (phase == "default")]["y"]
            within, source = sd(defaults.to_numpy()), "default runs"
        over = sd(by_search.mean().to_numpy())
        found.append((*key, len(by_search), over, within, source))
    columns = ["problem", "optimizer", "searches", "over_searches", "over_seeds", "from"]
    return pd.DataFrame(found, columns=columns)


def spread_cells(found: pd.DataFrame, y: str) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the cells of the spreads; the problem only where there are several.

    Spreads of a share are in points of a per cent.
    """
    scale = 100.0 if metric_of(y).percent else 1.0
    several = len(set(found["problem"])) > 1
    heads = ["problem"] * several + list(HEADS)
    rows = [
        [str(row["problem"])] * several
        + [str(row["optimizer"]), str(row["searches"])]
        + [
            number(scale * row[key]) if row[key] < math.inf else "a run diverged"
            for key in ("over_searches", "over_seeds")
        ]
        + [str(row["from"])]
        for row in found.to_dict("records")
    ]
    return heads, rows


def spread_text(found: pd.DataFrame, y: str) -> str:
    """Return the spreads as Markdown; "" without one."""
    if found.empty:
        return ""
    heads, rows = spread_cells(found, y)
    lines = [
        f"Spread of the final {metric_of(y).title}: the standard deviation over searches (of the "
        "means of",
        "their seeds), beside that over seeds at one setting.",
        "",
        f"| {' | '.join(heads)} |",
        "|" + " --- |" * len(heads),
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    return "\n".join(lines) + "\n"

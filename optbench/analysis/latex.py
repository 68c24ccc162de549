"""Final values as a LaTeX table for a paper (booktabs), optimizers by problems.

The best of a column is bold only where it may be claimed to be better than every other one:
`leader.winner`, by the max-type test over all pairs, as the compared values chose it. Unpaired runs
are compared by rank-sum tests.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.final_values import seeds_text
from optbench.analysis.leader import place, winner
from optbench.analysis.pairing import pair_up, units
from optbench.analysis.summary import bold_note
from optbench.common.errors import UserError
from optbench.common.metrics import final_text, metric_of
from optbench.common.text import aside, capital
from optbench.stats.estimates import median

CELLS = {  # the contents of a cell, and their words in the caption
    "median_range": "median [minimum, maximum]",
    "mean_std": "mean $\\pm$ standard deviation",
}


class Cell(NamedTuple):
    """The final values of one series on one problem."""

    median: float  # infinite: diverged
    low: float
    high: float
    mean: float  # infinite: a run diverged
    std: float
    n: int
    diverged: int
    best: bool  # and shown to be better than every other


def final_cells(
    runs_of: Runs,
    columns: Sequence[str],
    facet: Sequence[str] | None = None,
    lines: str | None = None,
) -> dict[str, pd.DataFrame]:
    """Return a frame of `Cell`s for each of the logged columns.

    Rows are series, best first on the first problem; columns are problems in words. There is no
    `Cell` where a series did not run on a problem.
    """
    made = comparison_of(runs_of)
    table, plan = made.table, made.series(facet, lines)
    runs = units(plan.runs).assign(problem=plan.problems)
    lost = Counter(
        (str(run.problem), str(run.variant))
        for run, status in zip(runs.itertuples(), plan.runs["status"], strict=True)
        if status == "diverged"
    )
    found = {}
    for column in columns:
        if column in table and np.isfinite(table[column]).any():
            frame = pair_up(runs, made.finals(column))
            found[column] = cells_of(frame, lost, metric_of(column).smaller)
    return found


def cells_of(
    frame: pd.DataFrame, lost: Mapping[tuple[str, str], int], smaller: bool
) -> pd.DataFrame:
    """Return one column's `Cell`s. frame: its final values, (problem, seed) by series."""
    found: dict[str, dict[str, Cell]] = {}
    for problem, part in frame.groupby(level="problem", sort=True):
        best = winner(part, smaller)
        for name in map(str, part.columns[part.notna().any()]):
            values = part[name].dropna().to_numpy(dtype=float)
            ends = (median(values), float(values.min()), float(values.max()))
            finite = len(values) > 1 and bool(np.isfinite(values).all())
            moments = (float(values.mean()), float(values.std(ddof=1)) if finite else math.nan)
            cell = Cell(*ends, *moments, len(values), lost[str(problem), name], name == best)
            found.setdefault(str(problem), {})[name] = cell
    result = pd.DataFrame(found, dtype=object)

    def rank(name: str) -> tuple[float, float, str]:
        first = next(row[name] for row in found.values() if name in row)
        return place(first.median, smaller, first.diverged / first.n, name)

    return result.loc[sorted(map(str, result.index), key=rank)]


def bold(found: Mapping[str, pd.DataFrame]) -> set[tuple[str, str, str]]:
    """Return (column, problem, series) of each cell that is shown to be the best."""
    return {
        (column, str(problem), str(name))
        for column, frame in found.items()
        for problem, part in frame.items()
        for name, cell in part.items()
        if isinstance(cell, Cell) and cell.best
    }


def to_latex(
    frame: pd.DataFrame,
    column: str,
    cells: str = "median_range",
    warnings: Sequence[str] = (),
    paired: bool = True,
    settings: str = "",
    unit: str = "seed",
    selection: str = "",
) -> str:
    """Return the `final_cells` of one column as a table: optimizers by problems.

    frame: `final_cells(runs, [column])[column]`. cells: of `CELLS`, such as "median_range". paired:
    whether the runs share seeds. settings: `comparison.settings_phrase`. unit: what a cell counts,
    "seed", or "search" of a tuned study. selection: `Comparison.selection`. Raises UserError for
    other cells.
    """
    if not isinstance(cells, str) or cells not in CELLS:
        raise UserError(f"unknown cells {cells!r}; allowed: {', '.join(CELLS)}")
    what = f"final {metric_of(column).title}"
    texts = frame.map(latex_cell, column=column, cells=cells).rename(
        columns=lambda name: name or what
    )
    style = texts.rename_axis(index=None, columns=None).style
    style = style.format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    counts = [cell.n for cell in frame.to_numpy().flat if isinstance(cell, Cell)]
    n = seeds_text(counts)
    if unit == "search":
        n = re.sub("seeds?$", "searches, each the mean of its seeds", n)
    only = f" of the runs with {latex_text(selection)} alone" if selection else ""
    caption = (
        f"{capital(what)}{only}, {CELLS[cells]} of {n}{aside(settings)}; "
        f"{bold_note(paired, settings)}."
    )
    table = style.to_latex(
        hrules=True,
        position="tb",
        position_float="centering",
        column_format="l" * (1 + len(texts.columns)),
        caption=caption.replace("%", "\\%"),
        label=f"tab:{column}",
    )
    notes = [f"% Warning: {' '.join(text.split())}" for text in warnings]
    return "\n".join(["% \\usepackage{booktabs}", *notes, table])


def latex_text(text: str) -> str:
    """Return a text with LaTeX's special characters escaped, but for %."""
    return re.sub(r"([&#_{}$])", r"\\\1", text.replace("\\", "/"))


def latex_cell(cell: object, column: str, cells: str) -> str:
    """Return one `Cell` of the column, with how many of its runs diverged."""
    if not isinstance(cell, Cell):
        return "--"
    names = ("median", "low", "high") if cells == "median_range" else ("mean", "std")
    first, *spread = (final_text(getattr(cell, name), column) for name in names)
    text = f"\\textbf{{{first}}}" if cell.best else first
    if cell.n > 1 and cells == "median_range":
        text += f" {{\\scriptsize [{', '.join(spread)}]}}"
    elif math.isfinite(cell.std):
        text += f" $\\pm$ {spread[0]}"
    return text + (f" ({cell.diverged} of {cell.n} diverged)" if cell.diverged else "")

"""LaTeX tables of final values (booktabs): optimizers by problems and metrics.

Each cell has the median, the extremes and n. The best of a column is bold only if it may be claimed
to be better than every other one, by the max-type test of `leader.winner`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.leader import place, winner
from optbench.analysis.pairing import pair_up
from optbench.analysis.summary import BOLD_NOTE, final_text
from optbench.common.metrics import metric_of
from optbench.stats.estimates import median

PROBLEMS_PER_TABLE = 4  # side by side


class Cell(NamedTuple):
    """The final values of one series on one problem."""

    median: float  # infinite: diverged
    low: float
    high: float
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

    Series, best first on the first problem, by problems in words; None: a series did not run there.
    """
    made = comparison_of(runs_of)
    table, plan = made.table, made.series(facet, lines)
    runs = plan.runs[["run", "seed", "variant", "optimizer"]].assign(problem=plan.problems)
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
            cell = Cell(*ends, len(values), lost[str(problem), name], name == best)
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


def to_latex(found: Mapping[str, pd.DataFrame], warnings: Sequence[str] = ()) -> str:
    """Return the `final_cells` as a LaTeX table; with many problems one per column."""
    parts = ["% \\usepackage{booktabs}"]
    parts += [f"% Warning: {' '.join(text.split())}" for text in warnings]
    if found and all(len(frame.columns) < 2 for frame in found.values()):
        order = next(iter(found.values())).index
        texts = {
            heading(name): list(frame.reindex(order).map(latex_cell, column=name).iloc[:, 0])
            for name, frame in found.items()
        }
        parts.append(booktabs(pd.DataFrame(texts, index=order), "Final values"))
        return "\n".join(parts)
    for name, frame in found.items():
        for start in range(0, len(frame.columns), PROBLEMS_PER_TABLE):
            part = frame.iloc[:, start : start + PROBLEMS_PER_TABLE]
            what = heading(name).replace("%", "\\%")
            parts.append(booktabs(part.map(latex_cell, column=name), what))
    return "\n".join(parts)


def booktabs(texts: pd.DataFrame, what: str) -> str:
    """Return a table of LaTeX texts; the names of rows and columns are escaped."""
    style = texts.rename_axis(index=None, columns=None).style
    style = style.format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    first = what[0].upper() + what[1:]
    return style.to_latex(
        hrules=True,
        position="tb",
        position_float="centering",
        column_format="l" + "l" * len(texts.columns),
        caption=f"{first}: median [minimum, maximum], number of seeds; {BOLD_NOTE}.",
    )


def latex_cell(cell: object, column: str) -> str:
    """Return the median, extremes and n of one `Cell` of the column."""
    if not isinstance(cell, Cell):
        return "--"
    middle_text, low, high = (final_text(value, column) for value in cell[:3])
    text = f"\\textbf{{{middle_text}}}" if cell.best else middle_text
    more = [f"[{low}, {high}]"] if cell.n > 1 else []
    more += [f"$n={cell.n}$"] + ([f"{cell.diverged} diverged"] if cell.diverged else [])
    return f"{text} {{\\scriptsize {', '.join(more)}}}"


def heading(column: str) -> str:
    return f"final {metric_of(column).title}"

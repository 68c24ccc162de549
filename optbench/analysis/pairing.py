"""Final values of runs, paired by problem and seed."""

from collections.abc import Sequence

import pandas as pd

from optbench.analysis.series import layout
from optbench.analysis.summary import final_values
from optbench.common.errors import UserError
from optbench.common.text import show


def by_seed(
    table: pd.DataFrame, y: str = "val_loss", facet: Sequence[str] | None = None
) -> pd.DataFrame:
    """Final values of the tidy table: a line per (problem, seed), a column per optimizer.

    Columns are the optimizers (with their settings, where a problem has several of one), problems
    the panels as `layout` makes them
    (phases of a tuned study are apart), so that a line holds a pair of runs with the same initial
    weights and batches. A diverged run is the worst value; NaN: that run does not exist.
    Raises UserError where `y` was not logged, and as `layout` does.
    """
    if y not in table:
        raise UserError(f"no logged column {y!r}; there are: {', '.join(map(str, table))}")
    return pair_up(run_keys(table, facet), final_values(table, y))


def run_keys(table: pd.DataFrame, facet: Sequence[str] | None = None) -> pd.DataFrame:
    """A line per run: run, problem (its panel in words), seed, variant. Errors as `layout`.

    An optimizer with one setting on each problem (its tuned one) has one name on all of them.
    """
    plan = layout(table, facet)
    keys = [key for key in plan.facet if key != "optimizer"]
    texts = [", ".join(map(show, row)) for row in plan.runs[keys].to_numpy()]
    runs = plan.runs[["run", "seed", "optimizer", "variant"]].assign(problem=texts)
    settings = runs.groupby(["problem", "optimizer"])["variant"].nunique()
    several = settings.groupby("optimizer").max().loc[runs["optimizer"]].to_numpy() > 1
    names = runs["variant"].where(several, runs["optimizer"])
    return runs.drop(columns="optimizer").assign(variant=names)


def pair_up(runs: pd.DataFrame, values: "pd.Series[float]") -> pd.DataFrame:
    """`run_keys` and a value for each run as a frame: (problem, seed) by optimizer.

    Raises UserError where two runs have the same problem, seed and optimizer.
    """
    keys = ["problem", "seed", "variant"]
    double = runs.duplicated(keys)
    if double.any():
        name = runs["variant"][double].iloc[0]
        raise UserError(f"two runs of {name} have the same problem and the same seed")
    filled = runs.assign(value=runs["run"].map(values)).dropna(subset="value")
    frame = filled.pivot_table(index=keys[:2], columns="variant", values="value", aggfunc="first")
    return frame.astype(float).rename_axis(columns=None)

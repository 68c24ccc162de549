"""Final values of runs, paired by problem and seed.

The frames name the optimizer of each column in `attrs["owners"]`: a name may hold blanks, so that
no one can tell it from a column's label.
"""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from optbench.analysis.comparison import Runs, check_logged, comparison_of
from optbench.common.errors import UserError
from optbench.common.text import show


def by_seed(
    runs: Runs,
    y: str = "val_loss",
    facet: Sequence[str] | None = None,
    only: Collection[str] | None = None,
) -> pd.DataFrame:
    """Final values of the tidy table: a line per (problem, seed), a column per optimizer.

    Columns are the optimizers (with their settings, where a problem has several of one), problems
    the panels as `layout` makes them
    (phases of a tuned study are apart), so that a line holds a pair of runs with the same initial
    weights and batches. A diverged run is the worst value; NaN: that run does not exist.
    only: of the runs of one phase. Raises UserError where `y` was not logged, and as `layout` does.
    """
    made = comparison_of(runs)
    check_logged(made.table, y)
    return pair_up(run_keys(made, facet, only), made.finals(y))


def run_keys(
    runs: Runs, facet: Sequence[str] | None = None, only: Collection[str] | None = None
) -> pd.DataFrame:
    """A line per run: run, problem (its panel in words), seed, variant, optimizer. Errors as
    `layout`.

    An optimizer with one setting on each problem (its tuned one) has one name on all of them.
    """
    plan = comparison_of(runs).series(facet)
    keys = [key for key in plan.facet if key != "optimizer"]
    chosen = plan.runs
    if only is not None:  # of one phase
        chosen = chosen[chosen["run"].isin(set(only))]
        keys = [key for key in keys if key != "phase"]
    texts = [", ".join(map(show, row)) for row in chosen[keys].to_numpy()]
    found = chosen[["run", "seed", "variant", "optimizer"]].assign(problem=texts)
    found = found.astype({"optimizer": str})
    settings = found.groupby(["problem", "optimizer"])["variant"].nunique()
    several = settings.groupby("optimizer").max().loc[found["optimizer"]].to_numpy() > 1
    # an optimizer may be called as another one with its setting is
    alone = dict(zip(found["optimizer"], found["optimizer"], strict=True))
    taken = set(found["variant"][several])
    alone |= {name: repr(name) for name in alone if name in taken}
    names = found["variant"].where(several, found["optimizer"].map(alone))
    return found.assign(variant=names)


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
    frame = frame.astype(float).rename_axis(columns=None)
    frame.attrs["owners"] = dict(zip(runs["variant"], runs["optimizer"], strict=True))
    return frame


def owners_of(frame: pd.DataFrame) -> Mapping[str, str]:
    """The optimizer of each column of a `by_seed` frame; of another frame the column itself."""
    own = {str(name): str(name) for name in frame}
    return own | dict(frame.attrs.get("owners", {}))

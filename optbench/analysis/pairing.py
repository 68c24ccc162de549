"""Final values of runs, paired by problem and seed.

`attrs["owners"]` of a frame names the optimizer of each column: a column's label does not tell, as
a name may hold blanks.
"""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from optbench.analysis.columns import problem_text
from optbench.analysis.comparison import Runs, check_logged, comparison_of
from optbench.common.errors import UserError
from optbench.stats.corrections import MAX_TYPE, least_seeds

PLURALS = {"run": "runs", "seed": "seeds", "search": "searches"}  # of what is compared


def by_seed(
    runs: Runs,
    y: str = "val_loss",
    facet: Sequence[str] | None = None,
    only: Collection[str] | None = None,
) -> pd.DataFrame:
    """Return the final values, a row per (problem, seed), a column per optimizer.

    A column is an optimizer, with its setting if a problem has several. A problem is a panel of
    `assign_series`; phases of a tuned study are apart. So a row pairs runs with the same initial
    weights and batches. If the values of a problem's key are compared (`compared_key`), a column is
    a value, and a row pairs runs with the same order of the examples. A diverged run is the worst
    value; NaN means no run. only: the runs of one phase. Raises UserError if `y` was not logged,
    and as `assign_series` does.
    """
    made = comparison_of(runs)
    check_logged(made.table, y)
    return pair_up(run_keys(made, facet, only), made.finals(y))


def run_keys(
    runs: Runs, facet: Sequence[str] | None = None, only: Collection[str] | None = None
) -> pd.DataFrame:
    """Return run, problem (its panel in words), seed, variant and optimizer per run.

    An optimizer with one setting on each problem (its tuned one) has one name on all of them.
    Raises UserError as `assign_series` does.
    """
    plan = comparison_of(runs).compared(facet)
    keys = [key for key in plan.facet if key != "optimizer"]
    chosen = plan.runs
    if only is not None:  # the runs of one phase
        chosen = chosen[chosen["run"].isin(set(only))]
        keys = [key for key in keys if key != "phase"]
    texts = [problem_text(keys, row) for row in chosen[keys].to_numpy()]
    found = units(chosen).assign(problem=texts).astype({"optimizer": str})
    settings = found.groupby(["problem", "optimizer"])["variant"].nunique()
    several = settings.groupby("optimizer").max().loc[found["optimizer"]].to_numpy() > 1
    # an optimizer's name may equal another's name with its setting
    alone = dict(zip(found["optimizer"], found["optimizer"], strict=True))
    taken = set(found["variant"][several])
    alone |= {name: repr(name) for name in alone if name in taken}
    names = found["variant"].where(several, found["optimizer"].map(alone))
    return found.assign(variant=names)


def units(runs: pd.DataFrame) -> pd.DataFrame:
    """Return run, seed, variant and optimizer per run, a search in place of its seeds.

    The runs of one search share its luck, so the search is the unit of a test: "seed" holds the
    search's number, and "search" is true. With fewer searches than a test needs, seeds are the
    units, and a test is of the settings found. runs: those of a layout.
    """
    found = runs[["run", "seed", "variant", "optimizer"]]
    if "repeat" not in runs:
        return found.assign(search=False)
    repeat = pd.to_numeric(runs["repeat"], errors="coerce")  # NaN outside of tuned studies
    searches = repeat.groupby(runs["variant"]).nunique()
    if repeat.isna().any() or searches.min() < least_seeds(1, MAX_TYPE):
        return found.assign(search=False)
    return found.assign(seed=repeat.astype(int), search=True)


def pair_up(runs: pd.DataFrame, values: "pd.Series[float]") -> pd.DataFrame:
    """Return a value per run of `run_keys` as a frame, (problem, seed) by optimizer.

    The runs of one search give their mean. Raises UserError if two other runs have the same
    problem, seed and optimizer.
    """
    keys = ["problem", "seed", "variant"]
    double = runs.duplicated(keys) & ~runs.get("search", pd.Series(False, runs.index))
    if double.any():
        name = runs["variant"][double].iloc[0]
        raise UserError(
            f"two runs of {name} have the same problem and the same seed. The trials of an "
            f"unfinished tuned study do: repeat its command (optbench status FOLDER says how far "
            f"it is)"
        )
    filled = runs.assign(value=runs["run"].map(values).astype(float)).dropna(subset="value")
    frame = filled.pivot_table(index=keys[:2], columns="variant", values="value", aggfunc="mean")
    frame = frame.astype(float).rename_axis(columns=None)
    frame.attrs["owners"] = dict(zip(runs["variant"], runs["optimizer"], strict=True))
    return frame


def owners_of(frame: pd.DataFrame) -> Mapping[str, str]:
    """Return the optimizer of each column of a `by_seed` frame, else the column."""
    own = {str(name): str(name) for name in frame}
    return own | dict(frame.attrs.get("owners", {}))

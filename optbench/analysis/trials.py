"""Scores of trials and settings, and lines against learning rate and budget.

The lines are data: matplotlib and the page draw the same numbers.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.columns import resolve
from optbench.analysis.comparison import Comparison, Runs, comparison_of
from optbench.analysis.final_values import divergence_limit
from optbench.analysis.series import Layout, one_line_per_run, variant_keys
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.formats.study import entries_in, trial_ids
from optbench.stats.estimates import median
from optbench.stats.tuning_curves import check_exchangeable, expected_best


class Line(NamedTuple):
    """A series of one panel."""

    text: str  # its label in the panel
    name: str  # optimizer and setting
    optimizer: str
    x: np.ndarray
    mid: np.ndarray  # infinite where the runs diverged
    low: np.ndarray | None  # of runs that did not diverge; NaN without one
    high: np.ndarray | None
    dots: np.ndarray | None  # (runs, 2), a dot per run
    lost: np.ndarray | None  # the x of runs that diverged
    counts: list[int]  # of runs at each point
    runs: int
    diverged: int


class Lines(NamedTuple):
    """The lines of a figure."""

    plan: Layout
    panels: list[list[Line]]  # in the order of the panels, and of the series of each
    by_median: bool = False  # budget lines: the median of the best of n, not the mean


def trial_scores(trials: Runs, metric: str, pick: str) -> pd.DataFrame:
    """Return a row per trial with problem, optimizer, repeat, lr, score and drawn.

    The index is the trial's first run. pick: "best" for the best evaluation of each run, else the
    last. score: the median over the trial's seeds; the worst value if diverged. drawn: whether the
    setting comes from the random sequence of a search, and is neither the default setting nor that
    of a follow-up trial.
    """
    made = comparison_of(trials)
    table = made.table
    first = table.groupby("run", observed=True, sort=False).first()
    score = made.finals(metric)
    if pick == "best":
        # the untrained model does not count as an epoch
        by_run = table[table["step"] > 0].groupby("run", observed=True, sort=False)[metric]
        best = by_run.min() if metric_of(metric).smaller else by_run.max()
        score = best.reindex(score.index).where(score.abs() < math.inf, score)
    lr = first["optimizer.lr"] if "optimizer.lr" in first else pd.Series(math.nan, first.index)
    repeat = first["repeat"] if "repeat" in first else pd.Series(0, first.index)
    ids = first["run_id"].astype(str)
    told = trials_told(made)
    frame = pd.DataFrame(
        {
            "problem": first["problem"].astype(str),
            "optimizer": first["optimizer"].astype(str),
            "repeat": pd.to_numeric(repeat.astype(object), errors="coerce").fillna(0).astype(int),
            "lr": pd.to_numeric(lr.astype(object), errors="coerce"),
            "score": score.reindex(first.index).astype(float),
            "drawn": [told.get(one, (one, True))[1] for one in ids],
        }
    )
    trial = pd.Series([told.get(one, (one, True))[0] for one in ids], first.index)
    if trial.duplicated().any():
        frame["score"] = frame.groupby(trial)["score"].transform("median")
        frame = frame[~trial.duplicated()]
    return frame


def trials_told(made: Comparison) -> dict[str, tuple[str, bool]]:
    """Return by run id its trial's first run id, and whether the setting was drawn."""
    entries = [entry for manifest in made.manifests for entry in entries_in(manifest)]
    return {
        one: (ids[0], trial.get("kind", "search") == "search")
        for entry in entries
        for trial in entry["trials"]
        for ids in [trial_ids(trial)]
        for one in ids
    }


def order_of(scores: pd.DataFrame, metric: str) -> list[str]:
    """Return the optimizers of a problem, the best by validation first.

    An optimizer's result is the median over its searches of the best trial. scores: the problem's
    rows of `trial_scores`. An optimizer whose trials all diverged is left out.
    """
    ended = scores[np.isfinite(scores["score"])]
    smaller = metric_of(metric).smaller
    each = ended.groupby(["optimizer", "repeat"])["score"].agg("min" if smaller else "max")
    best = each.groupby(level="optimizer").median()
    sign = 1 if smaller else -1
    return sorted(map(str, best.index), key=lambda name: (sign * best[name], name))


def trial_series(
    trials: Runs, metric: str, pick: str, facet: Sequence[str] | None = None
) -> Layout:
    """Return a panel per problem, a series per optimizer, with x (lr) and y (score)."""
    made = comparison_of(trials)
    plan = made.series(facet, None, variant_keys(one_line_per_run(made.table)))
    scores = trial_scores(made, metric, pick).reindex(plan.runs["run"])
    both = {
        "x": scores["lr"].to_numpy(),
        "y": scores["score"].to_numpy(),
        "repeat": scores["repeat"].to_numpy(),
        "drawn": (scores["drawn"] == True).to_numpy(),  # noqa: E712  # NaN: not a trial's first run
    }
    return plan._replace(runs=plan.runs.assign(**both), sequential=False)


def make_lines(
    plan: Layout, make: Callable[[str, str, pd.DataFrame], Line], by_median: bool = False
) -> Lines:
    """Return the line of each series of each panel."""
    panels = [[make(*series) for series in plan.series_of(part)] for part in plan.panels]
    return Lines(plan, panels, by_median)


def trial_lines(trials: Runs, metric: str, pick: str, facet: Sequence[str] | None = None) -> Lines:
    """Return every trial at its learning rate; lines join the best per half decade.

    With repeated searches a line is the median over the searches, with the quartiles. Raises
    UserError unless the trials have two learning rates.
    """
    plan = trial_series(trials, metric, pick, facet)
    runs = plan.runs.dropna(subset=["x"])
    runs = runs[runs["x"] > 0]
    if runs.empty or runs["x"].nunique() < 2:
        raise UserError("these trials do not have two learning rates")

    def make(optimizer: str, text: str, own: pd.DataFrame) -> Line:
        own = own.sort_values("x")
        x, y = own["x"].to_numpy(dtype=float), own["y"].to_numpy(dtype=float)
        finite = np.isfinite(y)
        line = envelope_of(own, metric_of(metric).smaller)
        return Line(
            text, str(own["variant"].iloc[0]), optimizer, *line,
            np.column_stack([x[finite], y[finite]]), x[~finite], [1] * len(own), len(own),
            int((~finite).sum()),
        )  # fmt: skip

    return make_lines(plan._replace(runs=runs), make)


def envelope_of(
    own: pd.DataFrame, smaller: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return rates, and the median and quartiles of the best trial per half decade.

    Median and quartiles are over the searches. own: trials with x, y and repeat, in the order of x.
    With one search, the rates are those of its best trials, and there are no quartiles. With
    several, the rates are the middles of the half decades.
    """
    if own["repeat"].nunique() < 2:
        x, y = own["x"].to_numpy(dtype=float), own["y"].to_numpy(dtype=float)
        best = envelope(x, y, smaller)
        return x[best], y[best], None, None
    cell = np.floor(2 * np.log10(own["x"].to_numpy(dtype=float)) + 1e-9)
    finite = own[np.isfinite(own["y"])].assign(cell=cell[np.isfinite(own["y"])])
    each = finite.groupby(["cell", "repeat"])["y"].agg("min" if smaller else "max")
    by_cell = each.groupby(level="cell")
    mid, low, high = (by_cell.quantile(share) for share in (0.5, 0.25, 0.75))
    middles = 10 ** ((mid.index.to_numpy(dtype=float) + 0.5) / 2)
    return middles, mid.to_numpy(), low.to_numpy(), high.to_numpy()


def envelope(x: np.ndarray, y: np.ndarray, smaller: bool) -> np.ndarray:
    """Return the indices of the best finite y in each half decade of ascending x."""
    bins = np.floor(2 * np.log10(x) + 1e-9)
    chosen = []
    for value in np.unique(bins):
        here = np.flatnonzero((bins == value) & np.isfinite(y))
        if len(here):
            chosen.append(here[np.argmin(y[here] if smaller else -y[here])])
    return np.array(chosen, dtype=int)


def budget_lines(trials: Runs, metric: str, pick: str, facet: Sequence[str] | None = None) -> Lines:
    """Return the expected best of 1, 2, ... random trials, or the median of the best.

    A trial that diverged or blew up makes the mean useless: then all lines are medians. Raises
    UserError unless trials are random.
    """
    made = comparison_of(trials)
    check_exchangeable(made.table)
    plan = trial_series(made, metric, pick, facet)
    plan = plan._replace(runs=plan.runs[plan.runs["drawn"]])
    if plan.runs.empty:
        raise UserError("no trial but that of the default setting was made")
    scores = plan.runs["y"].to_numpy(dtype=float)
    lost = bool((np.isinf(scores) | (scores > divergence_limit(made.table, metric))).any())
    names = ("median", "median_low", "median_high") if lost else ("expected", "low", "high")

    def make(optimizer: str, text: str, own: pd.DataFrame) -> Line:
        values = own["y"].to_numpy(dtype=float)
        curve = expected_best(values, metric_of(metric).smaller)
        mid, low, high = (curve[name].to_numpy(dtype=float) for name in names)
        return Line(
            text, str(own["variant"].iloc[0]), optimizer, curve["trials"].to_numpy(dtype=float),
            mid, low, high, None, None, [len(own)], len(own), int(np.isinf(values).sum()),
        )  # fmt: skip

    return make_lines(plan, make, lost)


def rate_lines(
    runs: Runs,
    y: str,
    x: str = "optimizer.lr",
    facet: Sequence[str] | None = None,
    lines: str | None = None,
) -> Lines:
    """Return the median final `y` against a numeric setting `x`.

    lines: the key that makes the lines; None: the optimizer and its other settings. The extremes
    are of runs that did not diverge. Raises UserError without two values of `x`.
    """
    made = comparison_of(runs)
    x = resolve(made.table, x)
    plan = made.series(facet, None if lines == x else lines, [x])
    finals = made.finals(y).reindex(plan.runs["run"])
    found = plan.runs.assign(x=pd.to_numeric(plan.runs[x], errors="coerce"), y=finals.to_numpy())
    found = found.astype({"x": float, "y": float}).dropna(subset=["x", "y"])
    count = found.groupby(["optimizer", "variant"])["x"].transform("nunique")
    # a line needs two points; an optimizer that has one value alone is a point beside the lines
    alone = count.groupby(found["optimizer"]).transform("max") == 1
    single = found.groupby("optimizer")["variant"].transform("nunique") == 1
    found = found[(count > 1) | (alone & single & bool((count > 1).any()))]
    if found.empty:
        raise UserError(f"no optimizer has two values of {x} in these runs: nothing to compare")

    def make(optimizer: str, text: str, own: pd.DataFrame) -> Line:
        by_x = [(at, group["y"].to_numpy(dtype=float)) for at, group in own.groupby("x")]
        finite = [values[np.isfinite(values)] for _, values in by_x]
        return Line(
            text, str(own["variant"].iloc[0]), optimizer,
            np.array([at for at, _ in by_x]),
            np.array([float(median(values)) for _, values in by_x]),
            np.array([values.min() if len(values) else math.nan for values in finite]),
            np.array([values.max() if len(values) else math.nan for values in finite]),
            None,
            np.array([at for at, values in by_x if not np.isfinite(values).all()]),
            [len(values) for _, values in by_x],
            len(own),
            int((own["status"] == "diverged").sum()),
        )  # fmt: skip

    return make_lines(plan._replace(runs=found), make)

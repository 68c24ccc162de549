"""Time to target: when each run first reached its target, and a table of them.

The target is a validation result, never one of the test set. Runs are checked at evaluations, so
times are whole multiples of `log.eval_epochs` (seconds: the clock then). The time of a target that
was never reached is inf; NaN is a time that must not be compared.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Comparison, Runs, check_logged, comparison_of
from optbench.analysis.final_values import STEP_COSTS, timing_note
from optbench.analysis.pairing import pair_up, run_keys
from optbench.analysis.series import Layout
from optbench.analysis.targets import resolve_target
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.stats.estimates import median

CLOCKS = ("step", "epoch", "seconds")
UNITS = {"step": "steps", "epoch": "epochs", "seconds": "seconds"}
Targets = float | Mapping[str, float]
EXTREMES = (np.min, np.max)


class TimeToTarget(NamedTuple):
    """The times at which each optimizer reached the target of its problem."""

    frame: pd.DataFrame  # see `time_to_target`
    times: pd.DataFrame  # steps of the (tuned) runs, (problem, seed) by optimizer
    column: str
    rule: str  # in words
    owners: Mapping[str, str]  # the optimizer of each name in the frame
    plan: Layout  # the panel and series of each run
    members: list[str]  # for each row of the frame, one of its runs
    note: str = ""  # on seconds that are not shown: `final_values.timing_of`

    @property
    def sign(self) -> str:
        """Return how a value that has reached the target compares with it."""
        return "≤" if metric_of(self.column).smaller else "≥"


def time_to_target(
    runs: Runs, column: str, rule: str | float | None = None, facet: Sequence[str] | None = None
) -> TimeToTarget:
    """Return the time to target of each optimizer on each problem.

    rule: a number; "worst" (the default: the final result of the worst tuned optimizer that did not
    diverge, each at its best setting), "baseline:NAME" (that of a named optimizer) or
    "quantile:SHARE" (a result that the best share of all runs reached). Final results are medians
    over seeds. In a tuned study the tuned runs set the target, for the default ones as well.
    Columns: phase (of a tuned study), problem, optimizer, target, seeds, reached (n); median, min
    and max of steps, epochs and seconds (inf: never, as for every diverged run; NaN: all runs are
    of other engines than the majority's); STEP_COSTS, as a count of steps needs the cost of a step.
    Raises UserError for an unknown rule, and as `by_seed` does.
    """
    made = comparison_of(runs)
    check_logged(made.table, column)
    smaller = metric_of(column).smaller
    targets: dict[str, float] = {}
    owners: dict[str, str] = {}
    lines: list[dict[str, Any]] = []
    steps: list[pd.DataFrame] = []
    members: list[str] = []
    phases: Mapping[str, list[str] | None] = made.phases or {"": None}
    seeds = made.table.drop_duplicates("run").set_index("run")["seed"]
    for phase, only in phases.items():
        keys = run_keys(made, facet, only)
        # times are of runs, and a mean of times that a run never reached says nothing
        keys = keys.assign(seed=keys["run"].map(seeds), search=False)
        owners |= dict(zip(keys["variant"], keys["optimizer"], strict=True))
        if not targets:
            finals = pair_up(keys, made.finals(column))
            targets, words = resolve_target(finals, rule, smaller)
        if lacking := sorted(set(keys["problem"]) - set(targets)):
            raise UserError("no tuned run sets a target" + f" on {lacking[0]}".removesuffix(" on "))
        each = pd.Series([targets[name] for name in keys["problem"]], keys["run"], dtype=float)
        found = {clock: run_times(made, column, each, clock) for clock in CLOCKS}
        steps.append(pair_up(keys, found["step"]))
        for (where, name), own in keys.groupby(["problem", "variant"], sort=False):
            problem = str(where)
            line: dict[str, Any] = {"phase": phase} if phase else {}
            line |= {"problem": problem, "optimizer": name, "target": targets[problem]}
            for clock in CLOCKS:
                values = found[clock].loc[own["run"]].to_numpy(dtype=float)
                if clock == "step":
                    reached = int(np.isfinite(values).sum())
                    line |= {"seeds": len(values), "reached": reached}
                values = values[~np.isnan(values)]
                ends = (median(values), *(f(values) if len(values) else math.nan for f in EXTREMES))
                for word, value in zip(("", "_min", "_max"), ends, strict=True):
                    line[UNITS[clock] + word] = float(value)
            costs = made.costs.loc[own["run"]]
            line |= {cost: float(costs[cost].median()) for cost in STEP_COSTS}
            if line["step_ms"] > line["ms_per_step"]:  # possible if runs lack one of the two
                line["step_ms"] = line["ms_per_step"]
            lines.append(line)
            members.append(str(own["run"].iloc[0]))
    frame = pd.DataFrame(lines).sort_values(["steps", "seconds"], kind="stable")
    panel = [key for key in ("phase", "problem") if key in frame]
    frame = frame.sort_values(panel, ascending=[key == "problem" for key in panel], kind="stable")
    members = [members[row] for row in frame.index]
    frame = frame.reset_index(drop=True)  # tuned before default, problems by name
    notes = (made.timing.sentence, timing_note(made.costs))
    note, plan = "; ".join(text for text in notes if text), made.compared(facet)
    return TimeToTarget(frame, steps[0], column, words, owners, plan, members, note)


def time_text(value: float) -> str:
    """Return a time to target as text; "" for a time that must not be compared."""
    return "" if math.isnan(value) else f"{value:.4g}" if math.isfinite(value) else "never"


def asked_times(made: Comparison) -> TimeToTarget | None:
    """Return `find_times` of a comparison, computed once."""
    found: TimeToTarget | None = made.once("times", lambda: find_times(made))
    return found


def find_times(made: Comparison) -> TimeToTarget | None:
    """Return the time to target; None if nobody asked and nothing is compared.

    The target is a value of the shown column if that is a validation column, or of its validation
    column if that is of the test set, else of the metric by which trials are judged, else of the
    validation loss or the training loss. Raises UserError for a target of a metric without a
    validation column.
    """
    rule: str | float | None = made.options.target
    facet = made.options.facet
    stopped = stop_target(made) if rule is None else None
    shown = made.final.replace("test_", "val_", 1)  # a target is never of the test set
    names = [shown if shown.startswith("val_") else made.protocol.metric]
    names += ["val_loss", "train_loss"]
    known = [name for name in names if name in made.table and np.isfinite(made.table[name]).any()]
    try:
        # lines of different problems have a target each, so nothing is compared
        alone = made.options.lines or made.table["optimizer"].nunique() < 2
        if rule is None and stopped is None and alone:
            return None
        if rule is not None and made.options.y is not None and shown not in known:
            check_logged(made.table, shown)
        if not known:
            raise UserError("there are no times to target: no run logged a finite loss")
        if stopped is not None and stopped[0] == known[0]:
            rule = stopped[1]
        return time_to_target(made, known[0], rule, facet)
    except UserError:
        if rule is not None:
            raise
        return None


def stop_target(made: Comparison) -> tuple[str, float] | None:
    """Return metric and value of `stop_at` if all runs were to end there, else None."""
    keys = ["stop_at.metric", "stop_at.value"]
    if not set(keys) <= set(made.table):
        return None
    asked = made.table[keys].astype(str).drop_duplicates()
    value = pd.to_numeric(asked[keys[1]], errors="coerce").iloc[0]
    return None if len(asked) > 1 or math.isnan(value) else (asked[keys[0]].iloc[0], float(value))


def run_times(
    runs: Runs, y: str, target: "float | pd.Series[float]", clock: str = "step"
) -> "pd.Series[float]":
    """Return the clock of each run at the first row at which `y` reached the target.

    clock: "step", "epoch" or "seconds". target: one number, or one for each run. Index: run. inf if
    never reached, and for every diverged run. Seconds are NaN for runs by another engine than the
    majority's.
    """
    made = comparison_of(runs)
    table = made.table
    if clock not in CLOCKS:
        raise UserError(f"no clock {clock!r}; allowed: {', '.join(CLOCKS)}")
    check_logged(table, y)
    names = table["run"].astype(object)
    wanted = names.map(target).astype(float) if isinstance(target, pd.Series) else target
    reached = table[y] <= wanted if metric_of(y).smaller else table[y] >= wanted
    hits = table[reached & (table["status"] != "diverged")]
    first = hits.groupby("run", observed=True, sort=False)[clock].first().astype(float)
    first.index = first.index.astype(object)
    first = first.reindex(list(dict.fromkeys(names))).fillna(math.inf)
    return first.mask(first.index.isin(made.timing.untimed)) if clock == "seconds" else first


def times(
    runs: Runs, y: str, target: Targets, clock: str = "step", facet: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return times to target in the form of `pairing.by_seed`; inf is a miss.

    target: one number, or one for each problem as named by `by_seed`. Raises UserError if a problem
    has no target, and as `by_seed` does.
    """
    made = comparison_of(runs)
    keys = run_keys(made, facet)
    if not isinstance(target, Mapping):
        return pair_up(keys, run_times(made, y, target, clock))
    if lacking := sorted(set(keys["problem"]) - set(target)):
        raise UserError(f"no target for the problem {lacking[0]!r}")
    each = pd.Series([target[name] for name in keys["problem"]], keys["run"], dtype=float)
    return pair_up(keys, run_times(made, y, each, clock))

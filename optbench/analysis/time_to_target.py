"""Time to target: when each run first reached its target, and a table of who did when.

The target is one of the validation results, never of the test set. A run is looked at when it is
evaluated, so that times are whole multiples of `log.eval_epochs` (seconds: the clock then). Never
is inf; NaN is a time that is not to be compared.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Comparison, Runs, check_logged, comparison_of
from optbench.analysis.final_values import STEP_COSTS
from optbench.analysis.pairing import pair_up, run_keys
from optbench.analysis.targets import resolve_target
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.stats.estimates import middle

CLOCKS = ("step", "epoch", "seconds")
UNITS = {"step": "steps", "epoch": "epochs", "seconds": "seconds"}
Targets = float | Mapping[str, float]
ENDS = (np.min, np.max)


class TimeToTarget(NamedTuple):
    """When each optimizer reached the target of its problem."""

    frame: pd.DataFrame  # see `time_to_target`
    times: pd.DataFrame  # steps by problem and seed, a column per optimizer: of the tuned runs
    column: str
    rule: str  # in words
    owners: Mapping[str, str]  # the optimizer of each name in the frame
    note: str = ""  # of the seconds that are not shown: `final_values.timing_of`

    @property
    def sign(self) -> str:
        """How a value that has reached the target compares with it."""
        return "≤" if metric_of(self.column).smaller else "≥"


def time_to_target(
    runs: Runs, column: str, rule: str | float | None = None, facet: Sequence[str] | None = None
) -> TimeToTarget:
    """Time to target of the tidy table's runs.

    rule: a number; "worst" (the default: the final result of the worst tuned optimizer that came
    to an end, each at its best setting), "baseline:NAME" (that of a named optimizer) or
    "quantile:SHARE" (what the best share of all runs reached); finals are medians over seeds. In a
    tuned study the tuned runs set the target, for the default ones as well.
    Columns: phase (of a tuned study), problem, optimizer, target, seeds, reached (n), then median,
    min and max of steps, epochs and seconds (inf: never, as for every run that diverged; NaN: all
    runs are of other engines than the majority's), and
    STEP_COSTS: what a step costs belongs beside every count of steps.
    Raises UserError for an unknown rule, and as `by_seed` does.
    """
    made = comparison_of(runs)
    check_logged(made.table, column)
    smaller = metric_of(column).smaller
    targets: dict[str, float] = {}
    owners: dict[str, str] = {}
    lines: list[dict[str, Any]] = []
    steps: list[pd.DataFrame] = []
    phases: Mapping[str, list[str] | None] = made.phases or {"": None}
    for phase, only in phases.items():
        keys = run_keys(made, facet, only)
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
                ends = (middle(values), *(f(values) if len(values) else math.nan for f in ENDS))
                for word, value in zip(("", "_min", "_max"), ends, strict=True):
                    line[UNITS[clock] + word] = float(value)
            costs = made.costs.loc[own["run"]]
            line |= {cost: float(costs[cost].median()) for cost in STEP_COSTS}
            if line["step_ms"] > line["ms_per_step"]:  # of runs that lack one of the two
                line["step_ms"] = line["ms_per_step"]
            lines.append(line)
    frame = pd.DataFrame(lines).sort_values(["steps", "seconds"], kind="stable")
    panel = [key for key in ("phase", "problem") if key in frame]
    frame = frame.sort_values(panel, ascending=[key == "problem" for key in panel], kind="stable")
    frame = frame.reset_index(drop=True)  # tuned before default, problems by name
    return TimeToTarget(frame, steps[0], column, words, owners, made.timing.sentence)


def time_text(value: float) -> str:
    """A time to target in a table; empty where there is none that may be compared."""
    return "" if math.isnan(value) else f"{value:.4g}" if math.isfinite(value) else "never"


def asked_times(made: Comparison) -> TimeToTarget | None:
    """`find_times` of a comparison, found once."""
    found: TimeToTarget | None = made.once("times", lambda: find_times(made))
    return found


def find_times(made: Comparison) -> TimeToTarget | None:
    """When each optimizer reached the target; None where nobody asked and nothing is compared.

    The target is one of the shown column if that is of the validation set, else of the metric by
    which trials are judged, else of the training loss: never of the test set.
    """
    rule, facet = made.options.target, made.options.facet
    names = [made.final if made.final.startswith("val_") else made.protocol.metric]
    names += ["val_loss", "train_loss"]
    known = [name for name in names if name in made.table and np.isfinite(made.table[name]).any()]
    try:
        # where the lines are of different problems, a target for each of them compares nothing
        alone = made.options.lines or made.series(facet).runs["variant"].nunique() < 2
        if rule is None and alone:
            return None
        if not known:
            raise UserError("there are no times to target: no run logged a finite loss")
        return time_to_target(made, known[0], rule, facet)
    except UserError:
        if rule is not None:
            raise
        return None


def run_times(
    runs: Runs, y: str, target: "float | pd.Series[float]", clock: str = "step"
) -> "pd.Series[float]":
    """`clock` ("step", "epoch", "seconds") at the first row at which `y` reached the target.

    target: one number, or one for each run. Index: run. inf where it was never reached, and for
    a run that diverged, whatever it had reached; seconds are NaN of runs by another engine than the
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
    """Times to target in the form of `pairing.by_seed`: (problem, seed) by optimizer; inf: a miss.

    target: one number, or one for each problem as named by `by_seed`.
    Raises UserError where a problem has no target, and as `by_seed` does.
    """
    made = comparison_of(runs)
    keys = run_keys(made, facet)
    if not isinstance(target, Mapping):
        return pair_up(keys, run_times(made, y, target, clock))
    if lacking := sorted(set(keys["problem"]) - set(target)):
        raise UserError(f"no target for the problem {lacking[0]!r}")
    each = pd.Series([target[name] for name in keys["problem"]], keys["run"], dtype=float)
    return pair_up(keys, run_times(made, y, each, clock))

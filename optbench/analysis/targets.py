"""Time to target: which target, and when each run first reached it (inf: never)."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from optbench.analysis.pairing import pair_up, run_keys
from optbench.common.errors import UserError
from optbench.common.metrics import smaller_is_better
from optbench.stats.estimates import middle

CLOCKS = ("step", "epoch", "seconds")
Targets = float | Mapping[str, float]


def baseline_targets(frame: pd.DataFrame, baseline: str, smaller: bool = True) -> dict[str, float]:
    """Target of each problem: the best final result of a named baseline.

    frame: `pairing.by_seed` of a validation column. Its result is the median over seeds (see
    `best_final`); where it was run with several settings ("adam lr=0.01", ...), the best counts.
    """
    return {
        str(problem): best_final(part, baseline, smaller)
        for problem, part in frame.groupby(level="problem", sort=False)
    }


def worst_baseline_targets(
    frame: pd.DataFrame, baselines: Sequence[str], smaller: bool = True
) -> dict[str, float]:
    """Target of each problem: the final result of the worst of the tuned baselines."""
    if not baselines:
        raise UserError("name at least one baseline")
    choose = max if smaller else min
    return {
        str(problem): choose(best_final(part, name, smaller) for name in baselines)
        for problem, part in frame.groupby(level="problem", sort=False)
    }


def quantile_targets(
    frame: pd.DataFrame, quantile: float, smaller: bool = True
) -> dict[str, float]:
    """Target of each problem: the result that the best `quantile` of all its runs reached.

    A value that a run did have (no interpolation), so that diverged runs need no arithmetic.
    """
    if not 0 < quantile <= 1:
        raise UserError(f"quantile must lie in (0, 1], not {quantile:g}")
    sign = 1.0 if smaller else -1.0
    targets = {}
    for problem, part in frame.groupby(level="problem", sort=False):
        values = part.to_numpy().ravel()
        values = sign * values[~np.isnan(values)]
        targets[str(problem)] = sign * float(np.quantile(values, quantile, method="inverted_cdf"))
    return targets


def best_final(part: pd.DataFrame, name: str, smaller: bool) -> float:
    """The best setting of an optimizer by its median over seeds: of an even number of seeds the
    worse of the two in the middle, so that at least half of them have reached it."""
    columns = [str(c) for c in part if str(c) == name or str(c).startswith(f"{name} ")]
    results = [part[column].dropna().to_numpy() for column in columns]
    side = "higher" if smaller else "lower"
    finals = [float(np.quantile(v, 0.5, method=side)) for v in results if len(v)]  # type: ignore[call-overload]
    if not finals:
        raise UserError(f"no run of the baseline {name!r}; there are: {', '.join(map(str, part))}")
    return min(finals) if smaller else max(finals)


def run_times(
    table: pd.DataFrame, y: str, target: "float | pd.Series[float]", clock: str = "step"
) -> "pd.Series[float]":
    """`clock` ("step", "epoch", "seconds") at the first row at which `y` reached the target.

    target: one number, or one for each run. Index: run. inf where it was never reached, and for
    a run that diverged, whatever it had reached.
    """
    if clock not in CLOCKS:
        raise UserError(f"no clock {clock!r}; allowed: {', '.join(CLOCKS)}")
    if y not in table:
        raise UserError(f"no logged column {y!r}; there are: {', '.join(map(str, table))}")
    names = table["run"].astype(object)
    wanted = names.map(target).astype(float) if isinstance(target, pd.Series) else target
    reached = table[y] <= wanted if smaller_is_better(y) else table[y] >= wanted
    hits = table[reached & (table["status"] != "diverged")]
    first = hits.groupby("run", observed=True, sort=False)[clock].first().astype(float)
    first.index = first.index.astype(object)
    return first.reindex(list(dict.fromkeys(names))).fillna(math.inf)


def times(
    table: pd.DataFrame,
    y: str,
    target: Targets,
    clock: str = "step",
    facet: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Times to target in the form of `pairing.by_seed`: (problem, seed) by optimizer; inf: a miss.

    target: one number, or one for each problem as named by `by_seed`.
    Raises UserError where a problem has no target, and as `by_seed` does.
    """
    runs = run_keys(table, facet)
    if isinstance(target, Mapping):
        if lacking := sorted(set(runs["problem"]) - set(target)):
            raise UserError(f"no target for the problem {lacking[0]!r}")
        each = pd.Series([target[name] for name in runs["problem"]], runs["run"], dtype=float)
    else:
        each = pd.Series(float(target), runs["run"])
    return pair_up(runs, run_times(table, y, each, clock))


def time_matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """Median over seeds of `times`: rows optimizers, columns problems, as `score` wants it.

    Raises UserError where an optimizer was not run on a problem: that is not a miss.
    """
    columns: dict[str, list[float]] = {}
    for problem, part in frame.groupby(level="problem", sort=False):
        for name, column in part.items():
            if column.isna().all():
                raise UserError(f"{name} was not run on {problem}")
        columns[str(problem)] = [middle(part[name].dropna().to_numpy()) for name in frame]
    return pd.DataFrame(columns, index=list(frame))

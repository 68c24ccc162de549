"""The target of each problem, by a rule: a number, or what other optimizers came to."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from optbench.analysis.pairing import owners_of
from optbench.common.errors import UserError

RULES = "a number, worst, baseline:NAME or quantile:SHARE"


def resolve_target(
    frame: pd.DataFrame, rule: str | float | None, smaller: bool
) -> tuple[dict[str, float], str]:
    """The target of each problem, and the rule in words. frame: `by_seed` of its column."""
    kind, _, value = str(rule or "worst").strip().partition(":")
    problems = [str(name) for name in frame.index.get_level_values("problem").unique()]
    if kind == "worst" and not value:
        targets = each_problem(frame, lambda part: worst_of(part, smaller))
        words = "the final result of the worst optimizer at its best setting"
    elif kind == "baseline" and value:
        targets = baseline_targets(frame, value, smaller)
        words = f"the final result of {value} at its best setting"
    else:
        try:
            number = float(value if kind == "quantile" else str(rule))
        except ValueError:
            raise UserError(f"no target rule {rule!r}; allowed: {RULES}") from None
        if not math.isfinite(number):
            raise UserError(f"a target must be a finite number, not {rule!r}; or one of: {RULES}")
        if kind == "quantile":
            targets = quantile_targets(frame, number, smaller)
            words = f"what the best {100 * number:g} % of the runs ended with"
        else:
            targets, words = dict.fromkeys(problems, number), "as given"
    lost = [name for name, target in targets.items() if not math.isfinite(target)]
    if lost:
        raise UserError(
            f"the rule {rule or 'worst'} gives no target{f' on {lost[0]}' if lost[0] else ''}: its "
            "runs diverged. Give a number, or another baseline"
        )
    return targets, words


def each_problem(frame: pd.DataFrame, target: Callable[[pd.DataFrame], float]) -> dict[str, float]:
    """The target of each problem as a function of the problem's rows."""
    return {str(name): target(part) for name, part in frame.groupby(level="problem", sort=False)}


def worst_of(part: pd.DataFrame, smaller: bool) -> float:
    """The worst optimizer's best result, those that diverged left out; inf where all did."""
    owners = owners_of(part)
    names = dict.fromkeys(owners[str(name)] for name in part.columns[part.notna().any()])
    finals = [best_final(part, name, smaller) for name in names]
    finals = [value for value in finals if math.isfinite(value)]
    return (max if smaller else min)(finals, default=math.inf)


def baseline_targets(frame: pd.DataFrame, baseline: str, smaller: bool = True) -> dict[str, float]:
    """Target of each problem: the best final result of a named baseline.

    frame: `pairing.by_seed` of a validation column. Its result is the median over seeds (see
    `best_final`); where it was run with several settings ("adam lr=0.01", ...), the best counts.
    """
    return each_problem(frame, lambda part: best_final(part, baseline, smaller))


def worst_baseline_targets(
    frame: pd.DataFrame, baselines: Sequence[str], smaller: bool = True
) -> dict[str, float]:
    """Target of each problem: the final result of the worst of the tuned baselines."""
    if not baselines:
        raise UserError("name at least one baseline")
    choose = max if smaller else min
    return each_problem(
        frame, lambda part: choose(best_final(part, name, smaller) for name in baselines)
    )


def quantile_targets(
    frame: pd.DataFrame, quantile: float, smaller: bool = True
) -> dict[str, float]:
    """Target of each problem: the result that the best `quantile` of all its runs reached.

    A value that a run did have (no interpolation), so that diverged runs need no arithmetic.
    """
    if not 0 < quantile <= 1:
        raise UserError(f"quantile must lie in (0, 1], not {quantile:g}")
    sign = 1.0 if smaller else -1.0

    def target(part: pd.DataFrame) -> float:
        values = part.to_numpy().ravel()
        values = sign * values[~np.isnan(values)]
        return sign * float(np.quantile(values, quantile, method="inverted_cdf"))

    return each_problem(frame, target)


def best_final(part: pd.DataFrame, name: str, smaller: bool) -> float:
    """The best setting of an optimizer by its median over seeds: of an even number of seeds the
    worse of the two in the middle, so that at least half of them have reached it."""
    owners = owners_of(part)
    columns = [str(c) for c in part if owners[str(c)] == name]
    columns = columns or [str(c) for c in part if str(c) == name]
    results = [part[column].dropna().to_numpy() for column in columns]
    side = "higher" if smaller else "lower"
    finals = [float(np.quantile(v, 0.5, method=side)) for v in results if len(v)]  # type: ignore[call-overload]
    if not finals:
        raise UserError(f"no run of the baseline {name!r}; there are: {', '.join(map(str, part))}")
    return min(finals) if smaller else max(finals)

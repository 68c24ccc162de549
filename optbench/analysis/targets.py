"""The target of each problem by a rule: a number, or a result of other optimizers."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from optbench.analysis.pairing import owners_of
from optbench.common.errors import UserError

RULES = "a number, worst, baseline:NAME or quantile:SHARE"  # that set a target


def resolve_target(
    frame: pd.DataFrame, rule: str | float | None, smaller: bool
) -> tuple[dict[str, float], str]:
    """Return the target of each problem of a `by_seed` frame, and the rule in words."""
    rule = "worst" if rule in (None, "") else rule
    kind, value, number = parse_rule(rule)
    problems = [str(name) for name in frame.index.get_level_values("problem").unique()]
    if kind == "worst":
        targets = each_problem(frame, lambda part: worst_of(part, smaller))
        words = "the final result of the worst optimizer at its best setting"
    elif kind == "baseline":
        targets = baseline_targets(frame, value, smaller)
        words = f"the final result of {value} at its best setting"
    elif kind == "quantile":
        targets = quantile_targets(frame, number, smaller)
        words = f"what the best {100 * number:g} % of the runs ended with"
    else:
        targets, words = dict.fromkeys(problems, number), "as given"
    counts = frame.groupby(level="problem").count()
    if kind in ("worst", "baseline") and ((counts > 0) & (counts % 2 == 0)).any(axis=None):
        words += ", of two middle seeds the worse"
    lost = [name for name, target in targets.items() if not math.isfinite(target)]
    if lost:
        raise UserError(
            f"the rule {rule} gives no target{f' on {lost[0]}' if lost[0] else ''}: its "
            "runs diverged. Give a number, or another baseline"
        )
    return targets, words


def parse_rule(rule: str | float) -> tuple[str, str, float]:
    """Return the kind of a target's rule, the text after its colon, and its number.

    The number is NaN for a rule without one. Raises UserError for another form of rule.
    """
    kind, _, value = str(rule).strip().partition(":")
    if (kind == "worst" and not value) or (kind == "baseline" and value):
        return kind, value, math.nan
    try:
        number = float(value if kind == "quantile" else str(rule))
    except ValueError:
        raise UserError(f"no target rule {rule!r}; allowed: {RULES}") from None
    if not math.isfinite(number):
        raise UserError(f"a target must be a finite number, not {rule!r}; or one of: {RULES}")
    return kind, value, number


def each_problem(frame: pd.DataFrame, target: Callable[[pd.DataFrame], float]) -> dict[str, float]:
    """Return the target of each problem as a function of the problem's rows."""
    return {str(name): target(part) for name, part in frame.groupby(level="problem", sort=False)}


def worst_of(part: pd.DataFrame, smaller: bool) -> float:
    """Return the result of the worst optimizer at its best setting, among finite ones.

    inf if all optimizers diverged.
    """
    owners = owners_of(part)
    names = dict.fromkeys(owners[str(name)] for name in part.columns[part.notna().any()])
    finals = [best_final(part, name, smaller) for name in names]
    finals = [value for value in finals if math.isfinite(value)]
    return (max if smaller else min)(finals, default=math.inf)


def baseline_targets(frame: pd.DataFrame, baseline: str, smaller: bool = True) -> dict[str, float]:
    """Return the final result of a named baseline's best setting on each problem.

    frame: `pairing.by_seed` of a validation column. See `best_final`.
    """
    return each_problem(frame, lambda part: best_final(part, baseline, smaller))


def quantile_targets(
    frame: pd.DataFrame, quantile: float, smaller: bool = True
) -> dict[str, float]:
    """Return the result that the best `quantile` of a problem's runs reached.

    It is the value of a run, not interpolated, so that diverged runs need no arithmetic.
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
    """Return an optimizer's median over seeds at its best setting.

    Of an even number of seeds the worse middle value counts, so that half of the seeds reach it.
    """
    owners = owners_of(part)
    columns = [str(c) for c in part if owners[str(c)] == name]
    columns = columns or [str(c) for c in part if str(c) == name]
    results = [part[column].dropna().to_numpy() for column in columns]
    side = "higher" if smaller else "lower"
    finals = [float(np.quantile(v, 0.5, method=side)) for v in results if len(v)]  # type: ignore[call-overload]
    if not finals:
        raise UserError(f"no run of the baseline {name!r}; there are: {', '.join(map(str, part))}")
    return min(finals) if smaller else max(finals)

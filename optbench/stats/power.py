"""Effect sizes, and the number of seeds needed to see one.

Every function raises UserError for NaN or no values; a single value without spread gives NaN.
"""

import math
from numbers import Real

import numpy as np
import scipy

from optbench.common.errors import UserError
from optbench.stats.paired_tests import (
    Values,
    check_share,
    check_values,
    check_whole,
    enough_seeds,
    replace_infinities,
)

MOST_SEEDS = 10_000  # more are reported as "more than" this


def effect_size(d: Values) -> float:
    """Return Cohen's d of the pairs, mean(d) / sd(d); infinite if all differ equally.

    Cohen 1988. NaN for an infinite or a single difference, 0 if nothing differs.
    """
    d = check_values(d)
    if len(d) < 2 or not np.isfinite(d).all():
        return math.nan
    units = d / max(np.abs(d).max(), np.finfo(float).tiny)  # else squares of huge values overflow
    centre, spread = float(units.mean()), float(units.std(ddof=1))
    if spread <= 1e-12 * abs(centre):
        return math.copysign(math.inf, centre) if centre else 0.0
    return centre / spread


def rank_biserial(d: Values) -> float:
    """Return the rank-biserial correlation (T+ - T-) / (T+ + T-) (Kerby 2014).

    An effect size in [-1, 1] that diverged runs do not break; 0 if nothing differs.
    """
    d = check_values(d)
    d = d[d != 0]
    ranks = scipy.stats.rankdata(np.abs(d))
    return float((np.sign(d) * ranks).sum() / ranks.sum()) if len(d) else 0.0


def probability_of_improvement(a: Values, b: Values, smaller: bool = True) -> float:
    """Return P(A beats B) + P(tie) / 2 over unpaired runs (Agarwal et al. 2021), in [0, 1].

    a, b: the runs' values, (n,) and (m,); smaller: whether the smaller value wins. Raises UserError
    for NaN and without runs.
    """
    x, y = check_values(a)[:, None], check_values(b)[None, :]
    wins = x < y if smaller else x > y
    return float((wins + 0.5 * (x == y)).mean())


def seeds_needed(
    d: Values, power: float = 0.8, alpha: float = 0.05, least: int | None = None
) -> float:
    """Return about how many seeds the signed-rank test needs to see this difference.

    The paired t test's n by the noncentral t distribution, times pi / 3 for the signed-rank test's
    efficiency (Lehmann, Nonparametrics, A.5). With diverged runs it is Noether's formula (1987), n
    = (z_alpha + z_beta)^2 / (3 (p - 1/2)^2), p = P(a Walsh average > 0). The result is at least
    `least`, by default the fewest seeds with which one uncorrected test can reject. It is inf
    without a difference, NaN for a single pair.
    """
    d = check_values(d)
    check_share("power", power)
    check_share("alpha", alpha)
    least = enough_seeds(1, alpha) if least is None else least
    if len(d) < 2:
        return math.nan
    size = abs(effect_size(d))
    if math.isnan(size):
        i, j = np.triu_indices(len(d), 1)
        sums = replace_infinities(d)[i] + replace_infinities(d)[j]
        lead = abs(float(((sums > 0) + 0.5 * (sums == 0)).mean()) - 0.5)
        if lead == 0.5:  # all on one side, like an infinite effect
            return least
        z = scipy.stats.norm.ppf(1 - alpha / 2) + scipy.stats.norm.ppf(power)
        return math.inf if lead == 0 else max(least, math.ceil(z**2 / (3 * lead**2)))
    if size == 0:
        return math.inf
    if size == math.inf:
        return least
    low, high = 1, 2
    while t_power(size, high, alpha) < power:
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return float(low)
    while high - low > 1:
        centre = (low + high) // 2
        low, high = (centre, high) if t_power(size, centre, alpha) < power else (low, centre)
    return max(least, math.ceil(high * math.pi / 3))


def t_power(size: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the two-sided paired t test at Cohen's d `size` with n >= 2."""
    check_whole("the number of pairs", n, 2)
    check_share("alpha", alpha)
    if not isinstance(size, Real) or math.isnan(size):
        raise UserError(f"the power of a test needs an effect size, not {size!r}")
    edge, shift = scipy.stats.t.ppf(1 - alpha / 2, n - 1), abs(size) * math.sqrt(n)
    # far from the edge scipy's noncentral t underflows to NaN, and the power is 1
    value = scipy.stats.nct.sf(edge, n - 1, shift)
    return 1.0 if math.isnan(value) else float(value)

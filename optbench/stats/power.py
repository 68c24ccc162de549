"""Effect sizes, and how many seeds it would take to see one.

Every function here raises UserError for NaN and for no values at all, and returns NaN where a
single value shows no spread.
"""

import math

import numpy as np
from scipy import stats

from optbench.common.errors import UserError
from optbench.stats.paired_tests import (
    Values,
    bounded,
    check_share,
    check_whole,
    enough_seeds,
    numbers,
)

MOST = 10_000  # seeds; more than this is said as such


def effect_size(d: Values) -> float:
    """Cohen's d of the pairs, mean(d) / sd(d) (Cohen 1988); NaN with an infinite difference or
    a single one, 0 where nothing differs, infinite where all differ by the same."""
    d = numbers(d)
    if len(d) < 2 or not np.isfinite(d).all():
        return math.nan
    units = d / max(np.abs(d).max(), np.finfo(float).tiny)  # squares of huge ones are infinite
    centre, spread = float(units.mean()), float(units.std(ddof=1))
    if spread <= 1e-12 * abs(centre):
        return math.copysign(math.inf, centre) if centre else 0.0
    return centre / spread


def rank_biserial(d: Values) -> float:
    """Matched-pairs rank-biserial correlation (T+ - T-) / (T+ + T-) in [-1, 1] (Kerby 2014): an
    effect size that diverged runs do not break; 0 where nothing differs."""
    d = numbers(d)
    d = d[d != 0]
    ranks = stats.rankdata(np.abs(d))
    return float((np.sign(d) * ranks).sum() / ranks.sum()) if len(d) else 0.0


def probability_of_improvement(a: Values, b: Values, smaller: bool = True) -> float:
    """P(a run of A beats one of B) + P(tie) / 2, over all n_a * n_b pairs of runs: the
    Mann-Whitney statistic, as in Agarwal et al. 2021. The runs are not paired."""
    x, y = numbers(a)[:, None], numbers(b)[None, :]
    wins = x < y if smaller else x > y
    return float((wins + 0.5 * (x == y)).mean())


def seeds_needed(
    d: Values, power: float = 0.8, alpha: float = 0.05, least: int | None = None
) -> float:
    """About how many seeds the signed-rank test needs to see the observed difference.

    The paired t test's n by the noncentral t distribution, times pi / 3 for the signed-rank
    test's efficiency (Lehmann, Nonparametrics, A.5); with diverged runs Noether's formula (1987),
    n = (z_alpha + z_beta)^2 / (3 (p - 1/2)^2), p = P(a Walsh average > 0). Never fewer than can
    reject at all (`least`, by default of one uncorrected test); inf where no difference was seen,
    NaN for a single one.
    """
    d = numbers(d)
    check_share("power", power)
    check_share("alpha", alpha)
    least = enough_seeds(1, alpha) if least is None else least
    if len(d) < 2:
        return math.nan
    size = abs(effect_size(d))
    if math.isnan(size):
        i, j = np.triu_indices(len(d), 1)
        sums = bounded(d)[i] + bounded(d)[j]
        lead = abs(float(((sums > 0) + 0.5 * (sums == 0)).mean()) - 0.5)
        if lead == 0.5:  # all on one side, as an infinite effect is
            return least
        z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
        return math.inf if lead == 0 else max(least, math.ceil(z**2 / (3 * lead**2)))
    if size == 0:
        return math.inf
    if size == math.inf:
        return least
    low, high = 1, 2
    while t_power(size, high, alpha) < power:
        low, high = high, 2 * high
        if low > MOST:
            return float(low)
    while high - low > 1:
        centre = (low + high) // 2
        low, high = (centre, high) if t_power(size, centre, alpha) < power else (low, centre)
    return max(least, math.ceil(high * math.pi / 3))


def t_power(size: float, n: int, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test at Cohen's d `size` with n pairs, at least two."""
    check_whole("the number of pairs", n, 2)
    check_share("alpha", alpha)
    if math.isnan(size):
        raise UserError("the power of a test needs an effect size, not NaN")
    edge, shift = stats.t.ppf(1 - alpha / 2, n - 1), abs(size) * math.sqrt(n)
    # far from the edge scipy's noncentral t underflows to NaN, and the power is 1
    value = stats.nct.sf(edge, n - 1, shift)
    return 1.0 if math.isnan(value) else float(value)

"""The test of two optimizers whose runs are not paired, and an interval to match.

Runs of other programs, or with other seeds for each optimizer, share no initial weights or batches.
Wilcoxon's rank-sum test (Mann and Whitney 1947) is the twin of the signed-rank test: exact, and
without arithmetic on diverged runs. m and n runs cannot go below p = 2 / binomial(m + n, n): three
and three never reach 0.05, four and four do.
"""

import math
from functools import cache

import numpy as np
import scipy

from optbench.common.errors import UserError
from optbench.stats.estimates import bootstrap
from optbench.stats.paired_tests import Values, as_numbers, check_share, check_whole

MOST_EXACT_RUNS = 100  # of both optimizers together; more are tested by scipy's approximation


def check_groups(a: Values, b: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return both groups as arrays; UserError if one is empty or holds NaN."""
    first, second = as_numbers(a), as_numbers(b)
    if not len(first) or not len(second) or np.isnan(first).any() or np.isnan(second).any():
        raise UserError("a test of two groups needs a list of numbers for each, none of them NaN")
    return first, second


def least_unpaired_p(n: int, m: int | None = None) -> float:
    """Return the smallest two-sided p of n and m (default n) runs in a rank-sum test."""
    check_whole("the number of runs", n)
    m = n if m is None else m
    check_whole("the number of runs", m)
    return min(1.0, 2 / math.comb(n + m, n))


def enough_runs(comparisons: int = 1, alpha: float = 0.05) -> int:
    """Return the fewest runs of each with comparisons * `least_unpaired_p` <= alpha."""
    check_whole("the number of comparisons", comparisons)
    check_share("alpha", alpha)
    n = 1
    while comparisons * least_unpaired_p(n) > alpha:
        n += 1
    return n


def rank_sum(a: Values, b: Values) -> float:
    """Return the two-sided p of Wilcoxon's rank-sum test, ties with their mean rank.

    Exact up to 100 runs of both optimizers together, else scipy's approximation.
    """
    x, y = check_groups(a, b)
    if len(x) + len(y) > MOST_EXACT_RUNS:
        return float(scipy.stats.mannwhitneyu(x, y, method="asymptotic").pvalue)
    # twice the ranks, so that mean ranks of ties are whole
    ranks = np.rint(2 * scipy.stats.rankdata(np.concatenate([x, y]))).astype(int)
    shares = sum_distribution(tuple(sorted(ranks.tolist())), len(x))
    own = int(ranks[: len(x)].sum())
    return min(1.0, 2 * float(min(shares[: own + 1].sum(), shares[own:].sum())))


@cache
def sum_distribution(ranks: tuple[int, ...], size: int) -> np.ndarray:
    """Return for each sum, from 0 on, the share of choices of `size` ranks with it."""
    counts = np.zeros((size + 1, sum(ranks) + 1))
    counts[0, 0] = 1
    for rank in ranks:
        counts[1:, rank:] += counts[:-1, : counts.shape[1] - rank].copy()
    return np.asarray(counts[size] / math.comb(len(ranks), size))


def shift(a: Values, b: Values, level: float = 0.95) -> tuple[float, float, float]:
    """Return the median of all differences a_i - b_j, and its exact interval.

    Hodges and Lehmann's estimate; Hollander, Wolfe and Chicken, Nonparametric Statistical Methods,
    4.2 and 4.3. Two diverged runs differ by 0. The interval is (-inf, inf) with too few runs for
    the level. Without ties it excludes 0 exactly if the rank-sum test rejects.
    """
    check_share("level", level)
    x, y = check_groups(a, b)
    first, second = np.repeat(x, len(y)), np.tile(y, len(x))
    same = first == second
    d = np.where(same, 0.0, np.where(same, 0.0, first) - np.where(same, 0.0, second))
    d.sort()
    upper, lower = d[len(d) // 2], d[(len(d) - 1) // 2]
    centre = upper if upper == lower else (upper + lower) / 2
    if math.isnan(centre):
        centre = 0.0  # between -inf and inf
    total = len(x) + len(y)
    if total > MOST_EXACT_RUNS:
        spread = math.sqrt(len(d) * (total + 1) / 12)
        edge = len(d) / 2 - scipy.stats.norm.ppf((1 + level) / 2) * spread
        rejected = max(0, math.floor(edge))
    else:
        shares = sum_distribution(tuple(range(1, total + 1)), len(x))
        least = len(x) * (len(x) + 1) // 2  # the sum of the smallest ranks
        below = np.cumsum(shares[least:])
        rejected = int((below <= (1 - level) / 2 * (1 + 1e-9)).sum())
    if not rejected:
        return float(centre), -math.inf, math.inf
    return float(centre), float(d[rejected - 1]), float(d[len(d) - rejected])


def dominance(a: Values, b: Values) -> float:
    """Return P(a > b) - P(a < b) over all runs of both (Cliff 1993), in [-1, 1].

    a, b: (n,) and (m,). Raises UserError for NaN and without runs.
    """
    x, y = check_groups(a, b)
    return float((x[:, None] > y).mean() - (x[:, None] < y).mean())


def unpaired_effect_size(a: Values, b: Values) -> float:
    """Return Cohen's d of two groups, by their pooled standard deviation.

    Cohen 1988. NaN with an infinite value or a group of one, 0 if nothing differs.
    """
    x, y = check_groups(a, b)
    if min(len(x), len(y)) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan
    gap = float(x.mean() - y.mean())
    weights = (len(x) - 1) * x.var(ddof=1) + (len(y) - 1) * y.var(ddof=1)
    spread = math.sqrt(weights / (len(x) + len(y) - 2))
    if spread <= 1e-12 * abs(gap):
        return math.copysign(math.inf, gap) if gap else 0.0
    return gap / spread


def mean_gap(a: Values, b: Values, seed: int = 0) -> tuple[float, float, float]:
    """Return mean(a) - mean(b) with its percentile bootstrap 95 % interval.

    Each group is resampled by itself. NaN if a run diverged or a group has a single run.
    """
    x, y = check_groups(a, b)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan, math.nan, math.nan
    values, groups = np.concatenate([x, y]), [0] * len(x) + [1] * len(y)
    found = bootstrap(
        values, lambda v: float(v[: len(x)].mean() - v[len(x) :].mean()), groups, seed=seed
    )
    return found.value, found.low, found.high


def runs_needed(
    a: Values, b: Values, power: float = 0.8, alpha: float = 0.05, least: int = 1
) -> float:
    """Return about how many runs of each group the rank-sum test needs.

    The test is to see this difference with the given power. Noether's formula (1987), n = (z_alpha
    + z_beta)^2 / (6 (p - 1/2)^2) with p = P(a > b) + P(tie) / 2. At least `least`; inf without a
    difference, NaN for single runs.
    """
    x, y = check_groups(a, b)
    check_share("power", power)
    check_share("alpha", alpha)
    if min(len(x), len(y)) < 2:
        return math.nan
    lead = abs(dominance(x, y)) / 2
    if lead == 0:
        return math.inf
    if lead == 0.5:  # every run of one is better than every run of the other
        return least
    z = scipy.stats.norm.ppf(1 - alpha / 2) + scipy.stats.norm.ppf(power)
    return float(max(least, math.ceil(z**2 / (6 * lead**2))))

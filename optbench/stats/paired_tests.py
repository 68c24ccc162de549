"""Tests of paired differences, an interval to match, and Holm's correction.

n pairs cannot go below p = 2 ** (1 - n) in a two-sided signed-rank or sign-flip test: five never
reach 0.05, six do, and eight still do when Holm's correction spans six comparisons.

Every function here raises UserError for NaN: a missing run is no difference of 0.
"""

import math
from collections.abc import Sequence
from functools import cache
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import scipy

from optbench.common.errors import UserError

Values = Sequence[float] | np.ndarray  # one for each run
MOST_EXACT_PAIRS = 50  # of a signed-rank test; more are tested by scipy's approximation
MOST_FLIPPED_PAIRS = 14  # with all 2 ** n flips in the sign-flip test


def as_numbers(values: Any, dimensions: int | None = 1) -> np.ndarray:
    """Return the values as an array of floats, NaN where masked.

    Raises UserError for other values, and for another number of dimensions (None: any).
    """
    try:
        found = np.ma.asarray(values) if np.ma.isMaskedArray(values) else np.asarray(values)
    except (TypeError, ValueError):  # such as rows of unequal lengths
        found = np.empty((), object)
    kind = found.dtype.kind
    fits = kind in "biuf" or (kind == "O" and all(isinstance(v, Real) for v in found.flat))
    if not fits or found.ndim != (dimensions or found.ndim):
        needed = "a list of numbers is needed, such as [0.3, 0.5]"
        if dimensions != 1:
            needed = "rows of numbers, of one length, are needed, such as [[0.3, 0.5], [0.4, 0.6]]"
        raise UserError(f"{needed}, not {str(values)[:100]!r}")
    return np.ma.filled(found.astype(float), math.nan)


def check_runs(frame: object) -> None:
    """Raise UserError unless this is a frame of `analysis.pairing.by_seed`."""
    if not isinstance(frame, pd.DataFrame) or "problem" not in frame.index.names:
        raise UserError(
            f"a frame of runs is needed, with problem and seed as its index and a column for each "
            f"optimizer (analysis.pairing.by_seed makes one), not {str(frame)[:100]!r}"
        )
    as_numbers(frame, 2)


def check_whole(name: str, value: float, least: int = 1) -> None:
    """Raise UserError unless the value is a whole number of at least `least`."""
    known = isinstance(value, Real) and math.isfinite(value)
    if not (known and value == int(value) and value >= least):
        raise UserError(f"{name} must be a whole number of at least {least}, not {value!r}")


def check_share(name: str, value: float) -> None:
    """Raise UserError unless the value lies strictly between 0 and 1."""
    if not isinstance(value, Real) or not 0 < value < 1:
        raise UserError(f"{name} must lie between 0 and 1, not {value!r}")


def least_p(n: int) -> float:
    """Return the smallest two-sided p of n pairs in a signed-rank or sign-flip test, 2^(1 - n).

    Raises UserError unless n is a whole number from 1.
    """
    check_whole("the number of pairs", n)
    return min(1.0, 2.0 ** (1 - n))


def enough_seeds(comparisons: int = 1, alpha: float = 0.05) -> int:
    """Return the fewest seeds n with comparisons * 2^(1 - n) <= alpha (Holm).

    Raises UserError unless comparisons is a whole number from 1 and alpha is in (0, 1).
    """
    check_whole("the number of comparisons", comparisons)
    check_share("alpha", alpha)
    return math.ceil(1 - math.log2(alpha / comparisons))


def differences(a: Values, b: Values) -> np.ndarray:
    """Return a - b by seed, (n,); 0 if both runs diverged, infinite if one did.

    Raises UserError for runs without a partner, NaN or a list of another length.
    """
    first, second = as_numbers(a), as_numbers(b)
    if first.shape != second.shape or not len(first):
        raise UserError(f"pairs need the same seeds: {first.shape} and {second.shape} runs")
    if np.isnan(first).any() or np.isnan(second).any():
        raise UserError("pairs need the same seeds: a run is missing (NaN)")
    same = first == second
    return np.where(same, 0.0, np.where(same, 0.0, first) - np.where(same, 0.0, second))


def check_values(d: Values) -> np.ndarray:
    """Return the values as an array (n,); UserError if one is missing or none given."""
    values = as_numbers(d)
    if not len(values) or np.isnan(values).any():
        raise UserError("a test of pairs needs a list of differences, none of them NaN")
    return values


def signed_rank(d: Values) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test, zeros dropped.

    Exact up to 50 pairs, else scipy's approximation. Equal sizes have their mean rank. 1 if all
    differences are 0.
    """
    values = check_values(d)
    values = values[values != 0]
    if not len(values):
        return 1.0
    if len(values) > MOST_EXACT_PAIRS:
        return float(scipy.stats.wilcoxon(values).pvalue)
    ranks = doubled_ranks(values)
    positive = int(ranks[values > 0].sum())
    smaller = min(positive, int(ranks.sum()) - positive)
    return min(1.0, 2 * float(flips_cdf(tuple(sorted(ranks.tolist())))[smaller]))


def doubled_ranks(values: np.ndarray) -> np.ndarray:
    """Return twice the ranks of the sizes: mean ranks of ties may be halves."""
    return np.asarray(np.rint(2 * scipy.stats.rankdata(np.abs(values))).astype(int))


def sign_flip(d: Values, flips: int = 9999, seed: int = 0) -> float:
    """Return the two-sided p of the paired permutation test of the mean (Fisher 1935).

    scipy's test, with all 2 ** n flips up to 14 pairs and `flips` random ones beyond. An infinite
    difference outweighs all finite ones together.
    """
    check_whole("flips", flips)
    values = replace_infinities(check_values(d))
    if len(values) < 2 or not values.any():
        return 1.0
    result = scipy.stats.permutation_test(
        (values,),
        lambda x, axis: np.sum(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**MOST_FLIPPED_PAIRS if len(values) <= MOST_FLIPPED_PAIRS else flips,
        rng=np.random.default_rng(seed),
    )
    return min(1.0, float(result.pvalue))


def replace_infinities(d: np.ndarray) -> np.ndarray:
    """Replace infinities by a number that outweighs all finite values together."""
    finite = np.isfinite(d)
    big = 1 + 2 * float(np.abs(d[finite]).sum())
    return np.where(finite, d, np.sign(d) * big)


def hodges_lehmann(d: Values, level: float = 0.95) -> tuple[float, float, float]:
    """Return the median of the Walsh averages (d_i + d_j) / 2 and its exact interval.

    i <= j; Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3.2 and 3.3. The
    interval is (-inf, inf) if n is too small for the level. Without ties it excludes 0 exactly if
    the signed-rank test rejects.
    """
    check_share("level", level)
    d = check_values(d)
    i, j = np.triu_indices(len(d))
    # infinite differences become a large number, so that inf and -inf average to 0
    scale = 4 * (1 + np.abs(d[np.isfinite(d)]).max(initial=0.0))
    finite = np.where(np.isfinite(d), d, 0.0)
    ends = np.where(np.isfinite(d), 0.0, np.sign(d))
    tops, parts = ends[i] + ends[j], (finite[i] + finite[j]) / 2
    walsh = np.sort(np.where(tops == 0, parts, np.sign(tops) * scale))
    walsh = np.where(np.abs(walsh) == scale, np.copysign(np.inf, walsh), walsh)
    size = len(walsh)
    upper, lower = walsh[size // 2], walsh[(size - 1) // 2]
    centre = upper if upper == lower else (upper + lower) / 2
    below = null_cdf(len(d)) <= (1 - level) / 2 * (1 + 1e-9)
    rejected = int(below.sum())  # statistics 0 .. rejected - 1 lie in the tail
    if not rejected:
        return float(centre), -math.inf, math.inf
    return float(centre), float(walsh[rejected - 1]), float(walsh[size - rejected])


@cache
def flips_cdf(ranks: tuple[int, ...]) -> np.ndarray:
    """Return P(T <= t) of the sum T of the positive ranks for t = 0 .. their sum.

    Each rank is positive with probability 1 / 2.
    """
    shares = np.ones(1)
    for rank in ranks:
        shifted = np.concatenate([np.zeros(rank), shares])
        shares = (np.concatenate([shares, np.zeros(rank)]) + shifted) / 2
    return np.cumsum(shares)


def null_cdf(n: int) -> np.ndarray:
    """Return P(T <= t) of the signed-rank statistic without ties for t = 0 .. n (n + 1) / 2."""
    return flips_cdf(tuple(range(1, n + 1)))


def holm(p: Values) -> np.ndarray:
    """Return p-values by Holm's step-down correction (1979).

    Sorted p-values times (m, m - 1, ...), made monotone. Raises UserError outside of [0, 1].
    """
    values = as_numbers(p)
    if not ((values >= 0) & (values <= 1)).all():
        raise UserError("Holm's correction needs a list of p-values from 0 to 1, none of them NaN")
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    result = np.empty_like(values)
    result[order] = np.minimum(1, np.maximum.accumulate(steps))
    return result

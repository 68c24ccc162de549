"""Tuning curves: the expected best trial, and the width of good learning rates."""

import math
from numbers import Real
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.common.errors import UserError
from optbench.stats.estimates import median
from optbench.stats.paired_tests import Values, as_numbers, check_share, check_whole

ORDERED_METHODS = ("tpe", "grid")  # their trials are not exchangeable


class Width(NamedTuple):
    """The learning rates from `low` to `high`, whose values are within a share of the best.

    decades: log10(high / low).
    """

    decades: float
    low: float
    high: float
    open_low: bool  # at the smallest rate tried, so the range may be wider
    open_high: bool
    n: int  # rates tried


def check_exchangeable(trials: pd.DataFrame) -> None:
    """Raise UserError unless trials are random: else the best of n tells nothing.

    A tpe trial depends on those before it, and a grid of n is not a part of a larger one.
    """
    methods = set(trials["tuning.method"].astype(str)) if "tuning.method" in trials else set()
    if ordered := sorted(methods & {*ORDERED_METHODS}):
        raise UserError(
            "the expected best of n trials (Dodge et al. 2019) is left out: it takes random "
            f"trials, which those of tuning.method={', '.join(ordered)} are not"
        )


def expected_best(
    scores: Values,
    smaller: bool = True,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    replacement: bool = True,
) -> pd.DataFrame:
    """Return the best validation result to expect of 1, ..., N of N random trials.

    Dodge et al. 2019, "Show Your Work", eq. 4-6: trials are drawn with replacement, and with the
    results sorted from worst to best P(best of n <= v_i) = (i / N)^n, so that E = sum_i v_i ((i /
    N)^n - ((i - 1) / N)^n). replacement=False: the unbiased C(i, n) / C(N, n) instead (Tang et al.
    2020). A diverged trial is infinitely bad, and so is every expectation that it can enter (with
    replacement: all); `median` is then still a number. Columns: trials, expected, sd (of the best
    of n, Dodge's band), median (of the best of n; the worse of two middle ones), low, high
    (bootstrap over trials, of `expected`), median_low, median_high (of `median`), n (all trials).
    Raises UserError for NaN and without scores.
    """
    check_share("level", level)
    check_whole("resamples", resamples)
    values = as_numbers(scores)
    if not len(values) or np.isnan(values).any():
        raise UserError("an expected best needs one number per trial; a diverged one is infinite")
    sign = -1.0 if smaller else 1.0
    ordered = np.sort(sign * values)  # worst first
    weights = best_weights(len(values), replacement)
    centre = weighted_sums(weights, ordered)
    finite = np.isfinite(ordered)
    known = np.where(finite, ordered, 0.0)
    spread = np.full(len(values), math.inf)
    for row in np.flatnonzero(np.isfinite(centre)):
        spread[row] = math.sqrt(float(weights[row] @ (known - centre[row]) ** 2))
    half = (np.cumsum(weights, axis=1) < 0.5 - 1e-12).sum(axis=1)
    random = np.random.default_rng(seed)
    picks = np.sort(random.choice(sign * values, (resamples, len(values))), axis=1)
    drawn = np.array([weighted_sums(weights, pick) for pick in picks])
    edges = [(1 - level) / 2, (1 + level) / 2]
    ends = []
    for sample in (drawn, picks[:, half]):
        low, high = np.quantile(sample, edges, axis=0, method="inverted_cdf")
        ends += [-high, -low] if smaller else [low, high]
    return pd.DataFrame(
        {
            "trials": np.arange(1, len(values) + 1),
            "expected": sign * centre,
            "sd": spread,
            "median": sign * ordered[half],
            "low": ends[0],
            "high": ends[1],
            "median_low": ends[2],
            "median_high": ends[3],
            "n": len(values),
        }
    )


def best_weights(count: int, replacement: bool = True) -> np.ndarray:
    """Return P(the best of n trials is the i-th from the worst), (n, i)."""
    if replacement:
        shares = np.arange(count + 1) / count
        cdf = shares[None, :] ** np.arange(1, count + 1)[:, None]
    else:
        cdf = np.array(
            [
                [math.comb(i, n) / math.comb(count, n) for i in range(count + 1)]
                for n in range(1, count + 1)
            ]
        )
    return np.diff(cdf, axis=1)


def weighted_sums(weights: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Return the sum over i of weights times values, where 0 times infinity is 0."""
    finite = np.isfinite(ordered)
    total = weights @ np.where(finite, ordered, 0.0)
    lost = weights[:, ~finite].sum(axis=1) > 0
    return np.where(lost, -math.inf, total)


def rate_width(rates: Values, values: Values, smaller: bool = True, within: float = 0.05) -> Width:
    """Return the width of the unbroken range of good learning rates, in decades.

    The range lies around the best rate; its values are within the share `within` of the best.
    Several runs at one rate count as their median. Between rates the value is taken as linear in
    log10(rate); next to a diverged rate the range ends at the last rate that did not. NaN decades
    if all diverged. Raises UserError without two positive, finite rates, for NaN, and for a
    negative share.
    """
    x, y = as_numbers(rates), as_numbers(values)
    positive = bool(((x > 0) & np.isfinite(x)).all())
    if x.shape != y.shape or not positive or len(np.unique(x)) < 2 or np.isnan(y).any():
        raise UserError("a width needs two positive learning rates or more, and a value for each")
    if not isinstance(within, Real) or not 0 <= within < math.inf:
        raise UserError(f"within must be a share of at least 0, not {within!r}")
    lr = np.unique(x)
    sign = 1.0 if smaller else -1.0
    loss = sign * np.array([float(median(y[x == rate])) for rate in lr])
    best = int(np.argmin(loss))
    if not np.isfinite(loss[best]):
        return Width(math.nan, math.nan, math.nan, False, False, len(lr))
    limit = loss[best] + within * abs(loss[best])
    logs = np.log10(lr)
    ends = []
    for step in (-1, 1):
        here = best
        while 0 <= here + step < len(lr) and loss[here + step] <= limit:
            here += step
        beyond = here + step
        at = logs[here]
        if 0 <= beyond < len(lr) and np.isfinite(loss[beyond]):
            share = (limit - loss[here]) / (loss[beyond] - loss[here])
            at += share * (logs[beyond] - logs[here])
        ends.append((float(at), not 0 <= beyond < len(lr)))
    (low, open_low), (high, open_high) = ends
    return Width(high - low, 10**low, 10**high, open_low, open_high, len(lr))


def rate_widths(rates: Values, values: Values, smaller: bool = True) -> dict[float, Width]:
    """Return `rate_width` within 1, 5 and 10 % of the best, by these shares (0.01, 0.05, 0.1).

    rates, values: (n,), a run's learning rate and its final value. Errors are `rate_width`'s.
    """
    return {share: rate_width(rates, values, smaller, share) for share in (0.01, 0.05, 0.1)}

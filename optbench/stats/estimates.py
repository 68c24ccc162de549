"""Location, spread and intervals of a handful of runs, with n beside each number.

Diverged runs are +inf in losses and -inf in accuracies and are never dropped: a mean over them is
infinite, a median or interquartile mean is finite as long as few enough runs diverged. NaN is no
divergence: it makes the statistics NaN, and their intervals a UserError.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy

from optbench.common.errors import UserError, check_choice
from optbench.stats.paired_tests import Values, as_numbers, check_runs, check_share, check_whole

Statistic = Callable[[np.ndarray], float]
BOOTSTRAP_METHODS = ("percentile", "bca")


class Estimate(NamedTuple):
    """A number, its interval from `low` to `high`, and its number `n` of runs."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] (n = {self.n})"


def mean(values: np.ndarray) -> float:
    """Return the mean; infinite if a run diverged, NaN with a NaN or without values."""
    values = as_numbers(values)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(values.mean()) if len(values) else math.nan


def median(values: np.ndarray) -> float:
    """Return the median as a float; NaN with a NaN or without values."""
    values = as_numbers(values)
    return float(median_along(values)) if len(values) else math.nan


def iqm(values: np.ndarray) -> float:
    """Return the mean without the floor(n / 4) smallest and largest values (IQM).

    Agarwal et al. 2021 (rliable); scipy's trimmed mean at 25 %. Finite if at most floor(n / 4) of
    the runs diverged. NaN with a NaN or without values.
    """
    values = as_numbers(values)
    if not len(values) or np.isnan(values).any():  # trimming takes NaN for the largest
        return math.nan
    with np.errstate(over="ignore", invalid="ignore"):
        return float(scipy.stats.trim_mean(values, 0.25))


def sd(values: np.ndarray) -> float:
    """Return the sample sd (n - 1); inf if a run diverged, NaN if one is NaN or n < 2."""
    values = as_numbers(values)
    if len(values) < 2 or np.isnan(values).any():
        return math.nan
    return float(values.std(ddof=1)) if np.isfinite(values).all() else math.inf


STATISTICS: dict[str, Statistic] = {"median": median, "mean": mean, "iqm": iqm}


def rowwise(rows: np.ndarray, function: Statistic) -> np.ndarray:
    """Return a statistic of each row. The functions of `STATISTICS` are vectorized."""
    with np.errstate(over="ignore", invalid="ignore"):
        if function is iqm:
            return np.asarray(scipy.stats.trim_mean(rows, 0.25, axis=1))
        if function is mean:
            return np.asarray(rows.mean(axis=1))
        if function is median:
            return median_along(rows, axis=1)
    return np.array([function(row) for row in rows])


def bootstrap(
    values: Values,
    statistic: str | Statistic = "iqm",
    strata: Sequence[object] | None = None,
    method: str = "percentile",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return a statistic with a bootstrap interval (Efron and Tibshirani 1993).

    strata: the problem of each value; each problem is resampled by itself (Agarwal et al. 2021).
    method: "percentile", whose ends are resampled values, so that infinite ones need no arithmetic;
    or "bca" (`scipy.stats.bootstrap`). BCa's acceleration does not exist if a run diverged: then
    the percentile method is used.
    The interval is NaN if a problem has a single run. Raises UserError for unknown names, for NaN,
    without values, and unless strata have one label for each value.
    """
    check_choice("method", method, BOOTSTRAP_METHODS)
    data = as_numbers(values)
    if np.isnan(data).any() or not len(data):
        raise UserError("a bootstrap needs numbers: there are none, or NaN among them")
    check_share("level", level)
    check_whole("resamples", resamples)
    names = np.zeros(len(data)) if strata is None else np.ravel(np.asarray(strata, dtype=object))
    labels = pd.factorize(names)[0] if len(names) == len(data) else np.array([-1])
    if (labels < 0).any():
        raise UserError(f"strata must name the problem of each of the {len(data)} values")
    parts = [data[labels == label] for label in range(labels.max() + 1)]
    if not callable(statistic):
        check_choice("statistic", statistic, STATISTICS)
    function = STATISTICS[statistic] if isinstance(statistic, str) else statistic
    value = function(data)
    if min(map(len, parts)) < 2:
        return Estimate(value, math.nan, math.nan, len(data))
    if len(np.unique(data)) == 1:
        return Estimate(value, value, value, len(data))

    if method == "bca" and np.isfinite(data).all():

        def joined(*samples: np.ndarray) -> float:
            return function(np.concatenate(samples))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
            result = scipy.stats.bootstrap(
                tuple(parts), joined, vectorized=False, method="BCa", confidence_level=level,
                n_resamples=resamples, rng=np.random.default_rng(seed),
            )  # fmt: skip
        ends = result.confidence_interval
        if not (math.isnan(ends.low) or math.isnan(ends.high)):
            return Estimate(value, float(ends.low), float(ends.high), len(data))
    drawn = resampled(parts, function, resamples, seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Estimate(value, float(low), float(high), len(data))


def resampled(
    parts: Sequence[np.ndarray], function: Statistic, resamples: int, seed: int
) -> np.ndarray:
    """Return the statistic of resampled values; each part is resampled by itself."""
    random = np.random.default_rng(seed)
    draws = [part[random.integers(len(part), size=(resamples, len(part)))] for part in parts]
    return rowwise(np.concatenate(draws, axis=1), function)


def describe(
    values: Values,
    strata: Sequence[object] | None = None,
    method: str = "percentile",
    seed: int = 0,
) -> dict[str, float]:
    """Return n, the number diverged, sd, and median, mean and iqm, each with its interval.

    values: (n,), infinite for a diverged run. The keys are "n", "diverged", "sd", "median",
    "median_low", "median_high", "mean", ...; strata, method and errors are `bootstrap`'s.
    """
    data = as_numbers(values)
    line: dict[str, float] = {"n": len(data), "diverged": int(np.isinf(data).sum())}
    for name in STATISTICS:
        estimate = bootstrap(data, name, strata, method, seed=seed)
        line |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return line | {"sd": sd(data)}


def describe_all(
    frame: pd.DataFrame, method: str = "percentile", seed: int = 0
) -> dict[tuple[str, str], Mapping[str, float]]:
    """Return `describe` of each (problem, optimizer) of a `by_seed` frame."""
    check_runs(frame)
    return {
        (str(problem), str(name)): describe(column.dropna().to_numpy(), method=method, seed=seed)
        for problem, part in frame.groupby(level="problem", sort=False)
        for name, column in part.items()
        if column.notna().any()
    }


def median_along(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Return `np.median` without warnings of infinities (diverged runs) and overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.median(values, axis=axis))

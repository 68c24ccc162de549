"""Scores of other benchmarks, each under its own name and by its own conventions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from optbench.common.errors import UserError
from optbench.stats.estimates import Estimate
from optbench.stats.paired_tests import Values, as_numbers


class Track3(NamedTuple):
    """modded-nanogpt's verdict on a set of runs."""

    passes: bool
    statistic: float  # (target - mean) * sqrt(n)
    required: float
    n: int
    mean: float


def deepobs_speed(
    curves: Sequence[Sequence[float]] | np.ndarray, target: float, smaller: bool = True
) -> float:
    """Return DeepOBS's speed, the mean over seeds of the first epoch at the target.

    A miss counts as epochs + 1 (Schneider, Balles and Hennig 2019; `calculate_speed` of their
    code). curves: (seeds, epochs + 1), the first column before training. To average over hits and
    misses is DeepOBS's convention. Prefer `analysis.time_to_target.times`, which keeps them apart.
    """
    values = as_numbers(curves, None)
    if values.ndim != 2 or values.shape[1] < 2:
        raise UserError("DeepOBS's speed needs an array of (seeds, epochs + 1) values")
    if math.isnan(target):
        raise UserError("DeepOBS's speed needs a number as its target, not NaN")
    reached = values <= target if smaller else values >= target
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), values.shape[1])
    return float(first.mean())


def deepobs_overhead(times: Values, sgd_times: Values) -> Estimate:
    """Return DeepOBS's overhead, the mean quotient of paired run times over SGD's.

    As `estimate_runtime` of DeepOBS. low and high are the mean minus and plus the standard
    deviation (by n, not n - 1), as DeepOBS prints it.
    """
    a, b = as_numbers(times), as_numbers(sgd_times)
    if a.shape != b.shape or not len(a) or not (b > 0).all() or np.isnan(a).any():
        raise UserError("the overhead needs as many run times of SGD, all above 0")
    centre, spread = float((a / b).mean()), float((a / b).std())
    return Estimate(centre, centre - spread, centre + spread, len(a))


def track3(losses: Values, target: float = 3.28) -> Track3:
    """Return whether runs that stop at one fixed step attain modded-nanogpt's target.

    They do if (target - mean) * sqrt(n) >= 0.004: a one-sided z test at p < 0.001, with
    modded-nanogpt's noise of 0.0013 between seeds (3.09 * 0.0013). So 0.004 is right for that model
    and loss only. No seed may be left out; with a diverged one the runs fail.
    """
    values = as_numbers(losses)
    if not len(values) or np.isnan(values).any() or math.isnan(target):
        raise UserError("track 3 needs the final loss of every run; a diverged one is inf")
    average = float(values.mean())
    statistic = (target - average) * math.sqrt(len(values))
    return Track3(statistic >= 0.004 - 1e-12, statistic, 0.004, len(values), average)


def smoothed(curve: np.ndarray, decay: float = 0.95) -> np.ndarray:
    """Return a curve's bias-corrected moving average, NaN from divergence on."""
    total, weight, result = 0.0, 0.0, []
    for value in curve:
        total = decay * total + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        result.append(total / weight)
    return np.array(result)


def adam_steps(
    losses: Values,
    steps: Values,
    adam: Sequence[Sequence[float]] | np.ndarray,
    decay: float = 0.0,
    strict: bool = True,
) -> np.ndarray:
    """Return the steps that tuned Adam would need for each loss (Metz et al. 2022).

    As in learned_optimization's `normalizers.py`. steps: (points,), at which Adam's curves were
    measured. adam: (learning rates, points), the mean training loss of Adam with each of its
    learning rates. decay: of a moving average that smooths the curves first (0.95 in
    learned_optimization, over losses of single batches). The envelope is the lowest of the curves
    at each point, made monotone, with linear interpolation between points. A loss below the
    envelope takes infinitely many steps, or with strict=False the last step, as in
    learned_optimization. A loss above the envelope takes the first step only, and so does a
    diverged run (inf, NaN).
    """
    x, curves = as_numbers(steps), np.atleast_2d(as_numbers(adam, None))
    if curves.shape[1] != len(x) or len(x) < 2 or not (np.diff(x) > 0).all():
        raise UserError("the envelope needs increasing steps and one loss of each curve for each")
    if decay:
        curves = np.array([smoothed(curve, decay) for curve in curves])
    # fmin leaves out a learning rate from its divergence (NaN) on
    bottom = np.fmin.reduce(np.where(np.isfinite(curves), curves, np.nan), axis=0)
    if np.isnan(bottom[0]):
        raise UserError("no curve of Adam has a finite loss at its first step")
    envelope = np.fmin.accumulate(bottom)
    wanted = as_numbers(losses, None)
    # the first step of each level, as a flat stretch is reached at its beginning
    keep = np.concatenate([[True], np.diff(envelope) < 0])
    levels, firsts = envelope[keep][::-1], x[keep][::-1]
    last = math.inf if strict else x[-1]
    wanted = np.where(np.isnan(wanted), math.inf, wanted)
    return np.interp(wanted, levels, firsts, left=last)

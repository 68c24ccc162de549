"""The points of a search, its scores, and its choice."""

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np

from optbench.common.errors import UserError
from optbench.common.metrics import TASK_METRICS, metric_of
from optbench.tuning.space import Point, Space, ranges, scale_point

METHODS = ("sobol", "halton", "random", "grid", "tpe")
METRICS = tuple(
    f"{averaged}val_{name}" for averaged in ("", "averaged_") for name in ("loss", *TASK_METRICS)
)
PICKS = ("final", "best")


def points(space: Space, trials: int, method: str, seed: int) -> list[Point]:
    """Return the first `trials` points of a sequence over the space.

    sobol and halton are scrambled quasi-random sequences (Owen 1998), equal for all optimizers with
    the same number of hyperparameters. grid spreads its points evenly over a full grid of about as
    many points; `check_grid` refuses too few. More trials only add points, except with grid, where
    they move all points.
    """
    dimensions = sum(1 for _ in ranges(space))
    if dimensions == 0:
        return [{}]  # a second trial would be the same
    if trials == 0:
        return []
    return [scale_point(space, row) for row in unit_points(dimensions, trials, method, seed)]


def unit_points(
    dimensions: int, trials: int, method: str, seed: int | Sequence[int]
) -> "np.ndarray[Any, Any]":
    """Return points of the unit cube, of shape (trials, dimensions)."""
    from scipy.stats import qmc

    if method == "grid":
        return _grid(dimensions, trials)
    generator = np.random.default_rng(seed)
    if method == "random":
        return generator.random((trials, dimensions))
    sequence = {"sobol": qmc.Sobol, "halton": qmc.Halton}[method]
    with warnings.catch_warnings():
        # SciPy warns that only a power of two is balanced; any other number is a prefix of one
        warnings.simplefilter("ignore", UserWarning)
        unit: np.ndarray = sequence(dimensions, scramble=True, rng=generator).random(trials)
    return unit


def _grid(dimensions: int, trials: int) -> np.ndarray:
    """Return exactly `trials` points of a grid, so that all optimizers get as many."""
    each = math.ceil(trials ** (1 / dimensions) - 1e-9)
    counts = [each] * dimensions
    for last in range(dimensions - 1, -1, -1):  # coarsens the last ranges, if enough points remain
        fewer = [*counts[:last], each - 1, *counts[last + 1 :]]
        if math.prod(fewer) >= trials:
            counts = fewer
    sides = [np.linspace(0, 1, size) if size > 1 else np.array([0.5]) for size in counts]
    full = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, dimensions)
    # steps are at least 1, and are rounded half up, so that no point occurs twice
    return full[np.floor(np.linspace(0, len(full) - 1, trials) + 0.5).astype(int)]


def check_grid(name: str, space: Space, trials: int) -> None:
    """Raise `UserError` for a grid with fewer trials than it has corners."""
    dimensions = sum(1 for _ in ranges(space))
    if dimensions and trials < 2**dimensions:
        raise UserError(
            f"{name}: a grid over {dimensions} values needs {2**dimensions} or more trials besides "
            f"that of the default setting, not {trials}: set tuning.trials={2**dimensions + 1} or "
            f"more, search fewer hyperparameters, or use tuning.method=sobol"
        )


def score(summary: Mapping[str, Any] | None, metric: str, pick: str) -> float:
    """Return a trial's validation result (smaller is better); inf without a result."""
    value = (summary or {}).get(metric if pick == "final" else f"best_{metric}")
    if value is None:
        return inf
    return float(value) if metric_of(metric).smaller else -float(value)


def choose(scores: Sequence[float]) -> int | None:
    """Return the index of the best trial, the first of equals; None if none completed."""
    ended = [index for index, score in enumerate(scores) if score < inf]  # leaves out NaN as well
    return min(ended, key=scores.__getitem__, default=None)


class Tpe:
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011)."""

    def __init__(self, space: Space, seed: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise UserError(
                "tuning.method=tpe needs Optuna: pip install 'optbench[tuning]'"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        self.asked: list[Any] = []

    def ask(self) -> Point:
        """Return the next point, whose score may be told later."""
        trial = self.study.ask()
        self.asked.append(trial)
        places = [str(i) for i, _ in enumerate(ranges(self.space))]
        return scale_point(self.space, [trial.suggest_float(i, 0, 1) for i in places])

    def tell(self, value: float) -> None:
        """Note the score of the oldest open point; inf for a trial that did not complete."""
        self.study.tell(self.asked.pop(0), min(value, sys.float_info.max))

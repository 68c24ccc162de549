"""Tuning under an equal budget: the search spaces, the points, and the choice.

A space maps each hyperparameter to a range `{low, high, scale}`. The scale is linear, log, or
one_minus_log (for momenta: 1 - value is log-uniform). A list of ranges makes a list of values, such
as betas. A range with `int: true` has whole numbers; `with_types` adds the key where it is missing.
"""

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import exp, inf, log
from typing import Any

import numpy as np

from optbench.common.errors import UserError, check_choice
from optbench.common.metrics import metric_of

METHODS = ("sobol", "halton", "random", "grid", "tpe")
METRICS = ("val_loss", "val_accuracy", "averaged_val_loss", "averaged_val_accuracy")
PICKS = ("final", "best")
# the functions onto the axis on which a range is uniform, and back
SCALES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "log": (log, exp),
    "linear": (float, float),
    "one_minus_log": (lambda value: log(1 - value), lambda u: 1 - exp(u)),
}
DEFAULT_SPACE = {"lr": {"low": 1e-5, "high": 1.0, "scale": "log"}}  # for an optimizer without one
Space = Mapping[str, Any]
Point = dict[str, Any]


def check_space(space: Any) -> None:
    """Raise `UserError` unless a space has ranges, and all are well formed."""
    if not isinstance(space, Mapping):
        raise UserError(
            f"optimizer.search is a group of keys such as optimizer.search.lr, not {space!r}"
        )
    if not space:
        raise UserError(
            "optimizer.search is empty: give a range, as in "
            "+optimizer.search.lr={low:1e-4,high:1,scale:log}, or leave it out"
        )
    for name, spec in space.items():
        if isinstance(spec, Sequence) and not isinstance(spec, str) and not spec:
            raise UserError(f"optimizer.search.{name} is an empty list: a range for each value")
    for name, part, spec in _ranges(space):
        _check_range(f"optimizer.search.{name}" + ("" if part is None else f"[{part}]"), spec)


def _check_range(where: str, spec: Any) -> None:
    needed = {"low", "high", "scale"}
    if not isinstance(spec, Mapping) or not needed <= set(spec) <= {*needed, "int"}:
        raise UserError(
            f"{where} must have low, high and scale (and int: true for whole numbers), not {spec!r}"
        )
    low, high, scale = spec["low"], spec["high"], spec["scale"]
    check_choice(f"{where}.scale", scale, SCALES)
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high)):
        raise UserError(f"{where}: low and high must be numbers, not {low!r} and {high!r}")
    if not -inf < low < high < inf:
        raise UserError(f"{where}: low must be below high, not {low!r} and {high!r}")
    if (scale == "log" and low <= 0) or (scale == "one_minus_log" and high >= 1):
        bound = "low must be above 0" if scale == "log" else "high must be below 1"
        raise UserError(f"{where}: {bound} on the scale {scale}")
    whole = spec.get("int", False)
    if not isinstance(whole, bool):
        raise UserError(f"{where}.int must be true or false, not {whole!r}")
    if whole and not (low == int(low) and high == int(high)):
        raise UserError(f"{where}: low and high must be whole numbers, not {low!r} and {high!r}")
    if whole and scale == "one_minus_log":
        raise UserError(f"{where}: whole numbers have the scale linear or log, not {scale}")


def with_types(space: Space, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the space with `int: true` added to ranges of whole numbers.

    defaults: the known values of the optimizer's hyperparameters. A range gets the key if its ends
    and its default are whole numbers; without a default, if its ends are written as whole numbers.
    A learning rate, or a range shorter than 2, never gets the key: the user must write it there.
    Raises `UserError` for a hyperparameter that is no number.
    """
    found: dict[str, Any] = {}
    for name, spec in space.items():
        default = defaults.get(name)
        if isinstance(spec, Mapping):
            found[name] = _with_type(f"optimizer.search.{name}", spec, default)
            continue
        several = isinstance(default, Sequence) and not isinstance(default, str)
        if default is not None and not (several and len(default) == len(spec)):
            raise UserError(
                f"optimizer.search.{name} is a list of {len(spec)} ranges, and optimizer.{name} is "
                f"{default!r}: a range for each of its values"
            )
        parts: Sequence[Any] = list(default or [None] * len(spec))
        found[name] = [
            _with_type(f"optimizer.search.{name}[{place}]", part, value)
            for place, (part, value) in enumerate(zip(spec, parts, strict=True))
        ]
    return found


def _with_type(where: str, spec: Mapping[str, Any], default: Any) -> dict[str, Any]:
    if isinstance(default, bool | str | Sequence | Mapping):
        raise UserError(
            f"{where} is a range of numbers, and the default is {default!r}: such a setting is not "
            f"searched, -m optimizer.KEY=VALUE,VALUE compares its values"
        )
    ends = (spec["low"], spec["high"])
    whole = all(end == int(end) for end in ends) and ends[1] - ends[0] >= 2
    if default is None:
        whole = whole and all(isinstance(end, int) for end in ends)
    else:
        whole = whole and isinstance(default, int)
    whole = whole and spec["scale"] != "one_minus_log" and where != "optimizer.search.lr"
    return dict(spec) | ({"int": True} if whole and "int" not in spec else {})


def whole_numbers(space: Space) -> list[str]:
    """Return the names of the hyperparameters that are searched in whole numbers."""
    return list(dict.fromkeys(name for name, _, spec in _ranges(space) if spec.get("int")))


def points(space: Space, trials: int, method: str, seed: int) -> list[Point]:
    """Return the first `trials` points of a sequence over the space.

    sobol and halton are scrambled quasi-random sequences (Owen 1998), equal for all optimizers with
    the same number of hyperparameters. grid spreads its points evenly over a full grid of about as
    many points. More trials only add points, except with grid, where they move all points.
    """
    dimensions = sum(1 for _ in _ranges(space))
    if dimensions == 0:
        return [{}]  # a second trial would be the same
    return [scale_point(space, row) for row in _unit(dimensions, trials, method, seed)]


def _unit(dimensions: int, trials: int, method: str, seed: int) -> np.ndarray:
    """Return points of the unit cube, of shape (trials, dimensions)."""
    from scipy.stats import qmc

    if method == "grid":
        return _grid(dimensions, trials)
    if method == "random":
        return np.random.default_rng(seed).random((trials, dimensions))
    sequence = {"sobol": qmc.Sobol, "halton": qmc.Halton}[method]
    with warnings.catch_warnings():
        # SciPy warns that only a power of two is balanced; any other number is a prefix of one
        warnings.simplefilter("ignore", UserWarning)
        unit: np.ndarray = sequence(dimensions, scramble=True, rng=seed).random(trials)
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


def scale_point(space: Space, unit: Sequence[float]) -> Point:
    """Return the hyperparameters at coordinates in [0, 1], rounded to six digits."""
    point: Point = {}
    for (name, part, spec), u in zip(_ranges(space), unit, strict=True):
        value = _scale(float(u), spec)
        if part is None:
            point[name] = value
        else:
            point.setdefault(name, []).append(value)
    return point


def _scale(u: float, spec: Mapping[str, Any]) -> float | int:
    low, high = float(spec["low"]), float(spec["high"])
    if whole := bool(spec.get("int")):
        low, high = low - 0.5, high + 0.5  # so that both ends are as likely as other numbers
    onto, back = SCALES[spec["scale"]]
    value = back(onto(low) + u * (onto(high) - onto(low)))
    if whole:
        return min(max(math.floor(value + 0.5), int(spec["low"])), int(spec["high"]))
    return min(max(float(f"{value:.6g}"), low), high)


def overrides(point: Point) -> list[str]:
    """Return a point as overrides of the command line."""
    return [f"optimizer.{key}={value}".replace(" ", "") for key, value in point.items()]


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


def at_edge(space: Space, point: Point, share: float = 0.05) -> list[str]:
    """Return the hyperparameters within `share` of the ends of their ranges."""
    found = []
    for name, part, spec in _ranges(space):
        value = point[name] if part is None else point[name][part]
        onto, _ = SCALES[spec["scale"]]
        low, high = onto(float(spec["low"])), onto(float(spec["high"]))
        u = (onto(float(value)) - low) / (high - low)
        if u < share or u > 1 - share:
            label = name if part is None else f"{name}[{part}]"
            found.append(f"{label}={value:g} in [{spec['low']:g}, {spec['high']:g}]")
    return found


def _ranges(space: Space) -> Iterator[tuple[str, int | None, Any]]:
    for name, spec in space.items():
        if isinstance(spec, Sequence) and not isinstance(spec, str):
            yield from ((name, part, item) for part, item in enumerate(spec))
        else:
            yield name, None, spec


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
        self.trial: Any = None

    def ask(self) -> Point:
        """Return the next point; `tell` its score before asking again."""
        self.trial = self.study.ask()
        places = [str(i) for i, _ in enumerate(_ranges(self.space))]
        return scale_point(self.space, [self.trial.suggest_float(i, 0, 1) for i in places])

    def tell(self, value: float) -> None:
        """Note the score of the last point; inf for a trial that did not complete."""
        self.study.tell(self.trial, min(value, sys.float_info.max))

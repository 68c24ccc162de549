"""Search spaces: the ranges and values of hyperparameters, ranked by the budget.

A space maps a hyperparameter to a range `{low, high, scale}`, to `{values: [...]}`, or to a list of
ranges, one for each entry of a list such as betas. The scale is linear, log, or one_minus_log (for
momenta: 1 - value is log-uniform). `int: true` searches whole numbers; `with_types` adds the key
where it is missing. `from: N` searches a hyperparameter in studies of N or more trials. A key of
the schedule begins with "schedule."; other keys are the optimizer's.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import exp, inf, log
from typing import Any

from optbench.common.errors import UserError, check_choice

# for each scale: the function onto the axis on which a range is uniform, and the one back
SCALES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "log": (log, exp),
    "linear": (float, float),
    "one_minus_log": (lambda value: log(1 - value), lambda u: 1 - exp(u)),
}
DEFAULT_SPACE = {"lr": {"low": 1e-5, "high": 1.0, "scale": "log"}}  # for an optimizer without one
SCHEDULE = "schedule."  # the prefix of a schedule's hyperparameters
Space = Mapping[str, Any]
Point = dict[str, Any]


def path(name: str) -> str:
    """Return the config key of a space's hyperparameter."""
    return name if name.startswith(SCHEDULE) else f"optimizer.{name}"


def search_path(name: str, part: int | None = None) -> str:
    """Return the config key of a hyperparameter's range, for a message."""
    group, _, key = path(name).partition(".")
    return f"{group}.search.{key}" + ("" if part is None else f"[{part}]")


def check_space(space: Any, group: str = "optimizer") -> None:
    """Raise `UserError` unless a space has ranges, and all are well formed."""
    if not isinstance(space, Mapping):
        raise UserError(
            f"{group}.search is a group of keys such as optimizer.search.lr, not {space!r}"
        )
    if not space:
        raise UserError(
            f"{group}.search is empty: give a range, as in "
            "+optimizer.search.lr={low:1e-4,high:1,scale:log}, or leave it out"
        )
    for name, spec in space.items():
        if isinstance(spec, Sequence) and not isinstance(spec, str) and not spec:
            raise UserError(f"{search_path(name)} is an empty list: a range for each value")
    for name, part, spec in ranges(space):
        _check(search_path(name, part), spec)


def _check(where: str, spec: Any) -> None:
    needed, optional = {"low", "high", "scale"}, {"int", "from"}
    if isinstance(spec, Mapping) and "values" in spec:
        _check_values(where, spec)
    elif not isinstance(spec, Mapping) or not needed <= set(spec) <= {*needed, *optional}:
        raise UserError(
            f"{where} must have low, high and scale (and int: true for whole numbers, from: N for "
            f"studies of N or more trials), or {{values: [...]}}, not {spec!r}"
        )
    rank = spec.get("from", 1)
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise UserError(
            f"{where}.from must be a whole number of at least 1, the trials from which the "
            f"hyperparameter is searched, not {rank!r}"
        )
    if "values" not in spec:
        _check_range(where, spec)


def _check_values(where: str, spec: Mapping[str, Any]) -> None:
    values = spec["values"]
    several = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 1
    if not several or not set(spec) <= {"values", "from"}:
        raise UserError(
            f"{where} must be {{values: [...]}} with two or more values (and from: N), not {spec!r}"
        )
    if bad := [v for v in values if not isinstance(v, int | float | str | bool | None)]:
        raise UserError(f"{where}.values holds numbers, words, true, false or null, not {bad[0]!r}")
    if len({repr(value) for value in values}) < len(values):
        raise UserError(f"{where}.values names a value twice: {list(values)}")


def _check_range(where: str, spec: Mapping[str, Any]) -> None:
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

    defaults: the known values of the hyperparameters. A range gets the key if its ends and its
    default are whole numbers; without a default, if its ends are written as whole numbers. A
    learning rate, or a range shorter than 2, never gets the key: the user must write it there.
    Raises `UserError` for a range of a hyperparameter that is no number.
    """
    found: dict[str, Any] = {}
    for name, spec in space.items():
        default = defaults.get(name)
        if isinstance(spec, Mapping):
            found[name] = _with_type(name, None, spec, default)
            continue
        several = isinstance(default, Sequence) and not isinstance(default, str)
        if default is not None and not (several and len(default) == len(spec)):
            raise UserError(
                f"{search_path(name)} is a list of {len(spec)} ranges, and {path(name)} is "
                f"{default!r}: a range for each of its values"
            )
        parts: Sequence[Any] = list(default or [None] * len(spec))
        found[name] = [
            _with_type(name, place, part, value)
            for place, (part, value) in enumerate(zip(spec, parts, strict=True))
        ]
    return found


def _with_type(
    name: str, part: int | None, spec: Mapping[str, Any], default: Any
) -> dict[str, Any]:
    if "values" in spec:
        return dict(spec)
    if isinstance(default, bool | str | Sequence | Mapping):
        raise UserError(
            f"{search_path(name, part)} is a range of numbers, and the default is {default!r}: "
            f"name the values to try, {{values: [...]}}"
        )
    ends = (spec["low"], spec["high"])
    whole = all(end == int(end) for end in ends) and ends[1] - ends[0] >= 2
    if default is None:
        whole = whole and all(isinstance(end, int) for end in ends)
    else:
        whole = whole and isinstance(default, int)
    whole = whole and spec["scale"] != "one_minus_log" and name != "lr"
    return dict(spec) | ({"int": True} if whole and "int" not in spec else {})


def within_budget(
    space: Space, trials: int, named: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Return the part of a space that is searched, and the names of the rest.

    trials: the budget, which must reach a hyperparameter's rank. named: hyperparameters
    that are searched whatever their rank.
    """
    rank = dict.fromkeys(space, 1)
    for name, _, spec in ranges(space):
        rank[name] = max(rank[name], spec.get("from", 1))
    searched = {name: spec for name, spec in space.items() if rank[name] <= trials or name in named}
    return searched, [name for name in space if name not in searched]


def whole_numbers(space: Space) -> list[str]:
    """Return the names of the hyperparameters that are searched in whole numbers."""
    return list(dict.fromkeys(name for name, _, spec in ranges(space) if spec.get("int")))


def ranges(space: Space) -> Iterator[tuple[str, int | None, Any]]:
    """Yield each range with its hyperparameter, and its place in a list."""
    for name, spec in space.items():
        if isinstance(spec, Sequence) and not isinstance(spec, str):
            yield from ((name, part, item) for part, item in enumerate(spec))
        else:
            yield name, None, spec


def scale_point(space: Space, unit: Sequence[float]) -> Point:
    """Return the hyperparameters at coordinates in [0, 1], rounded to six digits."""
    point: Point = {}
    for (name, part, spec), u in zip(ranges(space), unit, strict=True):
        put(point, name, part, scale(float(u), spec))
    return point


def put(point: Point, name: str, part: int | None, value: Any) -> None:
    """Set a hyperparameter, or one entry of its list, which may be a new last one."""
    if part is None:
        point[name] = value
    else:
        point[name] = [*point.get(name, [])[:part], value, *point.get(name, [])[part + 1 :]]


def scale(u: float, spec: Mapping[str, Any]) -> Any:
    """Return the value at a coordinate in [0, 1] of a range, or of a list of values."""
    if "values" in spec:
        return spec["values"][min(int(u * len(spec["values"])), len(spec["values"]) - 1)]
    low, high = float(spec["low"]), float(spec["high"])
    if whole := bool(spec.get("int")):
        low, high = low - 0.5, high + 0.5  # so that both ends are as likely as other numbers
        if spec["scale"] == "log":
            low = max(low, 0.5)
    onto, back = SCALES[spec["scale"]]
    value = back(onto(low) + u * (onto(high) - onto(low)))
    if whole:
        return min(max(math.floor(value + 0.5), int(spec["low"])), int(spec["high"]))
    return min(max(float(f"{value:.6g}"), low), high)


def value_at(point: Point, name: str, part: int | None) -> Any:
    """Return a hyperparameter, or one entry of its list; None if the point lacks it."""
    value = point.get(name)
    return value if part is None or value is None else value[part]


def overrides(point: Point) -> list[str]:
    """Return a point as overrides of the command line."""
    return [f"{path(key)}={_text(value)}" for key, value in point.items()]


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str({None: "null", True: "true", False: "false"}[value])
    if isinstance(value, str):
        return "'" + value.replace("'", "\\'") + "'"  # a word such as "true" stays a word
    return str(value).replace(" ", "")

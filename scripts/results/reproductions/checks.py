"""Checks of our values against published ones, and the verdict that follows from them."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scripts.results.reproductions.frames import values_at

SMOOTHED = 9  # points of a curve
PARTLY_SHARE = 0.5  # of the checks, which hold where a figure is partly reproduced


class Check(NamedTuple):
    """One comparison with what was published, and the limit that its study states."""

    what: str
    published: str
    ours: str
    distance: float  # as `limit`
    limit: float
    held: bool


class Crossing(NamedTuple):
    """Two curves that change places, and the x at which they last cross; NaN: they do not."""

    pair: str  # first the one that is ahead at first in the published figure
    published: float
    ours: float


def crossings(
    spec: Mapping[str, Any], ours: pd.DataFrame, published: pd.DataFrame
) -> list[Crossing]:
    """Return the pairs that change places between the first and the last x of `order`.

    They do so in either figure. None for a study without two such x.
    """
    at = sorted(x for asked in spec["checks"] for x in asked.get("order", ()))
    reached = [x for x in at if x <= ours["x"].max()]
    if len(reached) < 2:
        return []
    names = sorted(set(ours["series"]) & set(published["series"]))
    found = []
    for one, two in combinations(names, 2):
        theirs, own = (crossing(f, one, two, reached[0], reached[-1]) for f in (published, ours))
        if np.isfinite([theirs, own]).any():
            first = values_at(published, reached[0])
            pair = sorted((one, two), key=first.__getitem__)
            found.append(Crossing(" and ".join(pair), theirs, own))
    return found


def crossing(frame: pd.DataFrame, one: str, two: str, low: float, high: float) -> float:
    """Return the x at which two curves last cross, if they have changed places; else NaN.

    Moving means of `SMOOTHED` values are compared, as single points cross by noise.
    """
    x = np.arange(low, high + 0.5)
    curves = [frame[frame["series"] == name].sort_values("x") for name in (one, two)]
    logs = [np.interp(x, part["x"], np.log(part["value"])) for part in curves]
    gap = np.convolve(logs[0] - logs[1], np.full(SMOOTHED, 1 / SMOOTHED), "valid")
    places = np.sign(gap)
    if places[0] == places[-1]:
        return float("nan")
    return float(x[SMOOTHED // 2 :][np.flatnonzero(places != places[-1])[-1] + 1])


def judge(spec: Mapping[str, Any], ours: pd.DataFrame, published: pd.DataFrame) -> list[Check]:
    """Return the checks of a study's YAML.

    ours, published: series, x, value. Raises ValueError for a check of no known kind.
    """
    found: list[Check] = []
    for asked in spec["checks"]:
        kind = next((kind for kind in KINDS if kind in asked), None)
        if kind is None:
            raise ValueError(f"the check {asked} is none of: {', '.join(KINDS)}")
        found += KINDS[kind](asked, ours, published)
    return found


def verdict(checks: list[Check], *, fit: bool = False) -> str:
    """Return "reproduced" if all checks held, "partly" if half of them did, else "not".

    fit: whether the study chose settings by the published values; its word is "fit".
    """
    if fit:
        return "fit"
    share = sum(check.held for check in checks) / len(checks)
    return "reproduced" if share == 1 else "partly" if share >= PARTLY_SHARE else "not"


def log_error(ours: pd.DataFrame, published: pd.DataFrame, low: float, high: float) -> float:
    """Return the mean absolute log error of a curve, at our points from low to high.

    Published values are interpolated between neighbouring points, linearly in their logarithm; our
    points beyond the published ones are left out. inf where no point is left, or one is not finite
    and positive.
    """
    theirs = published.sort_values("x")
    kept = ours[
        (ours["x"] >= max(low, theirs["x"].min() - 0.01))
        & (ours["x"] <= min(high, theirs["x"].max() + 0.01))
    ]
    values = kept["value"].to_numpy(dtype=float)
    if not len(values) or not np.isfinite(values).all() or (values <= 0).any():
        return float("inf")
    expected = np.interp(kept["x"], theirs["x"], np.log(theirs["value"]))
    return float(np.abs(np.log(values) - expected).mean())


def digits(values: Iterable[float]) -> str:
    """Return values with four digits each, in a table's cell."""
    return ", ".join(f"{value:.4g}" for value in values)


def curve_checks(asked: Mapping[str, Any], ours: pd.DataFrame, theirs: pd.DataFrame) -> list[Check]:
    """Return a check of each published curve: `within` bounds its mean absolute log error.

    `curves` is the first and the last x that count.
    """
    found = []
    for name, part in theirs.groupby("series"):
        own = ours[ours["series"] == name]
        error = log_error(own, part, *asked["curves"])
        (low, high), limit = asked["curves"], float(asked["within"])
        reached = min(high, own["x"].max(), part["x"].max()) if len(own) else high
        ends = [values_at(frame, reached).get(str(name), np.nan) for frame in (part, own)]
        what = f"{name}, curve over {low:g} to {reached:g}; values are those at its end"
        found.append(Check(what, digits(ends[:1]), digits(ends[1:]), error, limit, error <= limit))
    return found


def order_checks(asked: Mapping[str, Any], ours: pd.DataFrame, theirs: pd.DataFrame) -> list[Check]:
    """Return a check of each x in `order`: at most `discordant` pairs stand the other way round."""
    found = []
    for x in asked["order"]:
        if x > ours["x"].max():
            continue  # a short form ends before
        a, b = values_at(theirs, x), values_at(ours, x)
        names = sorted(set(a) & set(b))
        wrong = sum((a[p] < a[q]) != (b[p] < b[q]) for p, q in combinations(names, 2))
        theirs_first, ours_first = (", ".join(sorted(names, key=at.__getitem__)) for at in (a, b))
        limit = asked["discordant"]
        whole = len(names) == len(a)
        what = f"order at {x:g}, best first; distance: pairs the other way round"
        found.append(Check(what, theirs_first, ours_first, wrong, limit, whole and wrong <= limit))
    return found


def cell_checks(asked: Mapping[str, Any], ours: pd.DataFrame, theirs: pd.DataFrame) -> list[Check]:
    """Return a check of each series of a table: the median absolute log error of its cells.

    `without` names series with the x of cells that do not count.
    """
    found = []
    for name, rows_of_series in theirs.groupby("series"):
        fitted = asked.get("without", {}).get(name, [])
        part = rows_of_series[~rows_of_series["x"].isin(fitted)]
        both = part.merge(ours[ours["series"] == name], on="x", suffixes=("", "_ours"))
        errors = np.abs(np.log((both["value_ours"] / both["value"]).to_numpy(dtype=float)))
        error = float(np.median(errors)) if len(both) == len(part) else float("inf")
        rows = digits(both["value"]), digits(both["value_ours"])
        what = f"{name} at {', '.join(f'{x:g}' for x in both['x'])}"
        limit = float(asked["cells"])
        found.append(Check(what, rows[0], rows[1], error, limit, error <= limit))
    return found


def range_checks(asked: Mapping[str, Any], ours: pd.DataFrame, theirs: pd.DataFrame) -> list[Check]:
    """Return a check that our value of `series` at `x` lies in `range`; distance: beyond it.

    With `over`, the value is divided by that of another series at the same x. With `at: [a, b]` for
    `x`, the value at a is divided by that at b.
    """
    low, high = (float(end) for end in asked["range"])
    series = asked["series"]
    first, last = asked["at"] if "at" in asked else (asked["x"], asked["x"])
    value = values_at(ours, first).get(series, np.nan)
    if "over" in asked or "at" in asked:
        value /= values_at(ours, last).get(asked.get("over", series), np.nan)
    beyond = max(low - value, value - high, 0.0) if np.isfinite(value) else float("inf")
    held = bool(low <= value <= high)
    return [Check(asked["what"], f"{low:g} to {high:g}", f"{value:.4g}", beyond, 0.0, held)]


def nearest_checks(
    asked: Mapping[str, Any], ours: pd.DataFrame, theirs: pd.DataFrame
) -> list[Check]:
    """Return a check that one of our series is near a published one, at our values of x.

    The distance is the mean absolute log error of the nearest series.
    """
    name = asked["nearest"]
    target = theirs[theirs["series"] == name].sort_values("x")
    errors = {}
    for series, part in ours.groupby("series"):
        both = part.merge(target, on="x", suffixes=("_ours", ""))
        errors[str(series)] = float(np.abs(np.log(both["value_ours"] / both["value"])).mean())
    best = min(errors, key=errors.__getitem__)
    both = ours[ours["series"] == best].merge(target, on="x", suffixes=("_ours", ""))
    shown = digits(both["value"]), digits(both["value_ours"])
    limit = float(asked["within"])
    what = f"{name} at {', '.join(f'{x:g}' for x in both['x'])}; ours: {best}"
    return [Check(what, shown[0], shown[1], errors[best], limit, errors[best] <= limit)]


def best_checks(asked: Mapping[str, Any], ours: pd.DataFrame, theirs: pd.DataFrame) -> list[Check]:
    """Return a check that the x of the least value of the series `best` lies in `range`.

    The distance is the log of the factor by which it lies beyond.
    """
    low, high = (float(end) for end in asked["range"])
    own = ours[(ours["series"] == asked["best"]) & np.isfinite(ours["value"])]
    x = float(own.loc[own["value"].idxmin(), "x"]) if len(own) else np.nan
    beyond = max(np.log(low / x), np.log(x / high), 0.0) if np.isfinite(x) else float("inf")
    held = bool(low <= x <= high)
    return [Check(asked["what"], f"{low:g} to {high:g}", f"{x:.4g}", float(beyond), 0.0, held)]


KINDS = {
    "best": best_checks,
    "nearest": nearest_checks,
    "curves": curve_checks,
    "order": order_checks,
    "cells": cell_checks,
    "range": range_checks,
}

"""One number per run from its curves: a column, a layer and a time.

`value` is a column of epochs.csv or layers.csv, or the quotient of two ("update_norm / grad_norm").
`at` is the time: last (the default), first, max, min, an epoch, or a quotient of those ("last /
1"). `depth` is the layer in the same words ("last / first"), among modules of one `kind`; without
it the rows of the whole model are read.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from optbench.analysis.columns import measured_columns, short_name
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of

CHECK_KEYS = ("value", "at", "kind", "depth")
END_POSITIONS = {"first": 0, "last": -1}


def parts_of(spec: object) -> list[str]:
    """Return the parts of a quotient such as "last / first", or the only part."""
    return [part.strip() for part in str(spec).split("/")]


def column_values(table: pd.DataFrame, value: object) -> "pd.Series[float]":
    """Return a column of the table, or the quotient of two; UserError without it."""
    names = parts_of(value)
    if missing := [name for name in names if name not in measured_columns(table)]:
        there = ", ".join(measured_columns(table))
        raise UserError(f"no logged column {' and '.join(missing)}; there are: {there}")
    result = table[names[0]].astype(float)
    for name in names[1:]:
        result = result / table[name].astype(float)
    return result


def needs_layers(table: pd.DataFrame, check: Mapping[str, Any]) -> bool:
    """Return whether a check reads layers.csv, as epochs.csv lacks its column."""
    return not set(parts_of(check["value"])) <= set(measured_columns(table))


def title(check: Mapping[str, Any]) -> str:
    """Return the measured value in words."""
    words = " / ".join(metric_of(part).label for part in parts_of(check["value"]))
    if "depth" in check:
        kind = check.get("kind", "linear")
        places = [f"layer {p}" if p.isdigit() else p for p in parts_of(check["depth"])]
        words += f" of {kind} layers ({' over '.join(places)})"
    names = {"first": "at the first step", "last": "final", "max": "largest", "min": "smallest"}
    moments = [names.get(p, f"epoch {p}") for p in parts_of(check.get("at", "last"))]
    moment = " over ".join(moments).replace("over at ", "over ")
    words = f"final {words}" if moment == "final" else f"{words}, {moment}"
    spread = [short_name(key) for key, how in check.get("across", {}).items() if how == "spread"]
    return f"spread over {' and '.join(spread)} of {words}" if spread else words


def measure_runs(table: pd.DataFrame, check: Mapping[str, Any]) -> "pd.Series[float]":
    """Return the value of each run (index: run).

    A diverged run's last row counts as the worst value of a loss or an accuracy, and as NaN of
    anything else. Raises UserError for a column or a place that does not exist.
    """
    names = parts_of(check["value"])
    value = column_values(table, check["value"])
    # axes of each run: epochs, then layers
    frame = table[["run", "status", "epoch"]].assign(value=value, depth=0.0)
    if "layer" in table:
        depth = table["depth"].astype(float)
        chosen = (table["layer"] == "all") if "depth" not in check else depth.notna()
        if "depth" in check:
            chosen &= table["kind"] == check.get("kind", "linear")
        frame = frame.assign(depth=depth.fillna(0))[chosen]
    bad = metric_of(names[0]).worst if len(names) == 1 else math.nan
    found = {}
    for run, rows in frame.groupby("run", observed=True, sort=False):
        place = check.get("depth", "last")
        series = pd.Series(
            {
                epoch: value_at(at.set_index("depth")["value"].sort_index(), place)
                for epoch, at in rows.groupby("epoch")
            },
            dtype=float,
        )
        if rows["status"].iloc[0] == "diverged":
            series.iloc[-1] = bad
            found[str(run)] = value_at(series.fillna(bad), check.get("at", "last"), missing=bad)
        else:
            found[str(run)] = value_at(series.dropna(), check.get("at", "last"))
    return pd.Series(found, dtype=float)


def value_at(values: "pd.Series[float]", spec: object, missing: float | None = None) -> float:
    """Return the value at first, last, max, min, a number of the index, or A / B.

    missing: the value if the index lacks the number; None: a UserError.
    """
    parts = parts_of(spec)
    if not len(values) and missing is not None:
        return missing
    if not len(values):
        raise UserError("the claim compares a value that no run has measured")
    if len(parts) > 2:
        raise UserError(f"{spec!r} divides more than two values; allowed is A / B")
    if len(parts) == 2:
        a, b = (value_at(values, part, missing) for part in parts)
        with np.errstate(all="ignore"):
            return float(np.divide(a, b))
    if parts == ["max"] or parts == ["min"]:
        return float(values.max() if parts == ["max"] else values.min())
    if parts[0] in END_POSITIONS and len(values):
        return float(values.iloc[END_POSITIONS[parts[0]]])
    try:
        near = np.isclose(values.index.to_numpy(dtype=float), float(parts[0]))
    except ValueError:
        raise UserError(
            f"{spec!r} is no place in the curves; allowed: first, last, max, min, an epoch (or a "
            "depth), or a quotient of two, as last / first"
        ) from None
    if near.any():
        return float(values[near].iloc[0])
    if missing is None:
        there = ", ".join(f"{value:g}" for value in values.index)
        raise UserError(f"there is no value at {parts[0]} in the curves; there are: {there}")
    return missing

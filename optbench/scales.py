"""Axes: their scales, limits, ticks and labels."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from optbench.errors import UserError
from optbench.keys import logged_columns, show

MARKED = "_diverged"  # the label of a cross, whose place says nothing about the scale


def check_column(table: pd.DataFrame, y: str) -> None:
    """Raise UserError unless column `y` was logged and holds a number."""
    columns = [name for name in logged_columns(table) if name not in ("step", "epoch")]
    if y not in columns:
        raise UserError(f"no logged column {y!r}; there are: {', '.join(columns)}")
    if not np.isfinite(table[y]).any():
        raise UserError(f"column {y!r} holds no finite number in these runs (no such split?)")


def default_log(y: str) -> bool:
    """Whether the y axis is logarithmic where nobody says: losses and rates are."""
    return "accuracy" not in y and "seconds" not in y


def y_label(table: pd.DataFrame, y: str) -> str:
    """The name of a logged column with its unit."""
    if "accuracy" in y:
        split = {"train": "training", "val": "validation"}
        return " ".join(split.get(word, word) for word in y.split("_")) + " (%)"
    batch = table.attrs.get("rows") == "steps"
    names = {
        "train_loss": "mini-batch training loss" if batch else "training cost",
        "running_loss": "training cost, epoch mean",
        "val_loss": "validation loss",
        "test_loss": "test loss",
        "lr": "learning rate",
        "seconds": "training time (s)",
        "total_seconds": "total time (s)",
    }
    text = names.get(y, y)
    known = "loss.name" in table and "loss" in y
    losses = list(table["loss.name"].unique()) if known else []
    if len(losses) == 1:
        loss = show(losses[0]).replace("_", " ")
        text += f" ({loss}, nats)" if loss == "cross entropy" else f" ({loss})"
    return text


def log_y(axes: Axes) -> None:
    """A logarithmic y axis, unless every run diverged: there is no number to place then."""
    lines = [line for line in axes.lines if line.get_label() != MARKED]
    if any((np.asarray(line.get_ydata(), dtype=float) > 0).any() for line in lines):
        axes.set_yscale("log", nonpositive="mask")


def set_percent(axes: Axes) -> None:
    """Tick labels of accuracies (fractions) in per cent."""
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))


def blown_up(table: pd.DataFrame, y: str) -> float:
    """Four times the untrained value of a loss: what ends above it has learned nothing."""
    first = table[~table["run"].duplicated()][y].to_numpy(dtype=float)
    first = first[np.isfinite(first)]
    return 4 * float(np.median(first)) if default_log(y) and len(first) else math.inf


def cap(panels: Iterable[Axes], table: pd.DataFrame, y: str, values: "pd.Series[float]") -> str:
    """End logarithmic y axes at four times the untrained value, so that a run that blew up does
    not squeeze the others. Returns the note that says for how many of the final `values`."""
    limit = blown_up(table, y)
    finite = values[np.isfinite(values)]
    above = int((finite > limit).sum())
    if not above:
        return ""
    for axes in panels:
        low, high = axes.get_ylim()
        if low < limit < high:  # the margin below was a part of the range that is cut off
            least = finite[finite > 0].min()
            axes.set_ylim(max(low, least / 1.5) if least < limit else low, limit)
    return f"; {above} above the axis, which ends at four times the untrained value"


def log_ticks(panels: Iterable[Axes]) -> None:
    """Labels for logarithmic y axes shorter than two decades, which would show one or none; to be
    called when their limits are final."""
    for axes in panels:
        low, high = axes.get_ylim()
        if axes.get_yscale() == "log" and 0 < low < high:
            ticks(axes.yaxis, low, high, (1, 2, 5))


def ticks(axis: Axis, low: float, high: float, subs: Sequence[int]) -> None:
    """Ticks of a logarithmic axis: powers of ten, and below two decades their multiples in `subs`,
    never so many that their labels meet."""
    decades = math.log10(high / low)
    axis.set_minor_formatter(NullFormatter())
    if decades >= 2:
        return
    wide = decades < 1.1
    axis.set_major_locator(
        MaxNLocator(4) if decades < 0.7 else LogLocator(subs=(1, 2, 5) if wide else subs)
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def dress(axes: Axes, column: str) -> None:
    """The y axis of values of a column: logarithmic for losses, per cent for accuracies."""
    if default_log(column):
        log_y(axes)
    if "accuracy" in column:
        set_percent(axes)


def show_all(axes: Axes, x: "pd.Series[float]") -> None:
    """An x axis that holds every value tried: those that only diverged have no point of their own.
    Logarithmic where all are positive."""
    low, high = float(x.min()), float(x.max())
    if low > 0:
        axes.set_xscale("log")
        margin = (high / low) ** 0.05
        axes.set_xlim(low / margin, high * margin)
        ticks(axes.xaxis, low / margin, high * margin, subs=(1, 3))
    else:
        axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))

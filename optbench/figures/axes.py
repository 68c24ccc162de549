"""Axes: their scales, limits, ticks and labels."""

import math
import re
from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)
from matplotlib.transforms import Bbox, TransformedBbox

from optbench.analysis.columns import logged_columns
from optbench.analysis.comparison import check_logged
from optbench.analysis.final_values import divergence_limit
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import show
from optbench.figures import style

BREAKS = re.compile(r"[_=]|\.(?=[A-Za-z])")  # a dot inside a number is no place for a break
LEAST_LETTERS = 9  # of a line below a panel, so that "optimizer" is whole
CROSS_LABEL = "_diverged"  # marks a cross, whose position is an edge and no value on the axis
MIN_TICKS = 4  # of a logarithmic axis of a part of a decade
MULTIPLES = ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))  # for its ticks
LINEAR_NOTE = "; the axis is linear: a logarithmic one has no place for values of 0 or below"


class NothingFinite(UserError):
    """An error: every run diverged before a value of the column was logged."""


def check_column(table: pd.DataFrame, y: str) -> None:
    """Raise UserError unless column `y` was logged and holds a finite number.
    Raises `NothingFinite` if all runs diverged before the first value."""
    columns = [name for name in logged_columns(table) if name not in ("step", "epoch")]
    check_logged(table, y, columns)
    if not np.isfinite(table[y]).any() and (table["status"] == "diverged").all():
        raise NothingFinite(f"all runs diverged, and column {y!r} holds no finite number")
    if not np.isfinite(table[y]).any():
        raise UserError(f"column {y!r} holds no finite number in these runs (no such split?)")


def y_label(table: pd.DataFrame, y: str) -> str:
    """Return the label of a logged column with its unit."""
    found = metric_of(y)
    text = f"{found.label} ({found.unit})" if found.unit else found.label
    if y == "train_loss" and table.attrs.get("rows") == "steps":
        text = "mini-batch training loss"
    known = "loss.name" in table and found.is_loss
    losses = list(table["loss.name"].unique()) if known else []
    if len(losses) == 1:
        loss = show(losses[0]).replace("_", " ")
        text += f" ({loss}, nats)" if loss == "cross entropy" else f" ({loss})"
    return text


def set_log_y(panels: Iterable[Axes], values: Iterable[float]) -> str:
    """Make y axes logarithmic, as far as all drawn values have a place on them.

    values: all that the panels show. All above 0: a logarithmic axis. Zeros and numbers that span
    a decade: logarithmic, and linear below the power of ten under the smallest number. A negative
    value: linear. No finite value: unchanged.
    Returns a note on an axis that is not purely logarithmic, or "".
    """
    finite = np.array([value for value in values if math.isfinite(value)])
    if not len(finite):
        return ""
    if finite.min() > 0:
        for axes in panels:
            axes.set_yscale("log", nonpositive="mask")
        return ""
    positive = finite[finite > 0]
    if finite.min() < 0 or not len(positive) or positive.max() < 10 * positive.min():
        return LINEAR_NOTE
    threshold = 10.0 ** math.floor(math.log10(positive.min()))
    for axes in panels:
        axes.set_yscale("symlog", linthresh=threshold)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -threshold / 4), high)  # no ticks at negative numbers
    return f"; the axis is logarithmic above {threshold:g} and linear below it, to show values of 0"


def set_percent(axes: Axes) -> None:
    """Format the tick labels of accuracies (fractions) in per cent."""
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))


def limit_words(negative: bool, factor: str = "four times") -> str:
    """Return in words where a loss axis ends that cuts off larger values."""
    if negative:
        return "as far above the untrained value as the lowest value lies below it"
    return f"at {factor} the untrained value"


def limit_y(panels: Iterable[Axes], table: pd.DataFrame, y: str, values: "pd.Series[float]") -> str:
    """End the y axes of losses at `divergence_limit`; return a note on values above.
    Otherwise a run that blew up would squeeze the others. values: final values of the runs."""
    limit = divergence_limit(table, y)
    finite = values[np.isfinite(values)]
    above = int((finite > limit).sum())
    if not above:
        return ""
    kept, cut = finite[finite <= limit], False
    for axes in panels:
        low, high = axes.get_ylim()
        if not low < limit < high:
            continue
        if len(kept):  # the lower margin was a share of the range that is cut off
            least = float(kept.min())
            log = axes.get_yscale() == "log"
            low = max(low, least / 1.5 if log else least - 0.05 * (limit - least))
        axes.set_ylim(low, limit)
        cut = True
    if not cut:
        return ""
    words = limit_words(bool((table[y] < 0).any()))
    return f"; {above} above the axis, which ends {words}"


def log_ticks(panels: Iterable[Axes]) -> None:
    """Label logarithmic y axes shorter than two decades, which have too few labels.
    The limits of the axes must be final."""
    for axes in panels:
        low, high = axes.get_ylim()
        if axes.get_yscale() == "log" and 0 < low < high:
            ticks(axes.yaxis, low, high, (1, 2, 5))


def ticks(axis: Axis, low: float, high: float, subs: Sequence[int]) -> None:
    """Set the ticks of a logarithmic axis, so that no labels overlap.
    Ticks are at powers of ten, and below two decades also at their multiples in `subs`."""
    decades = math.log10(high / low)
    axis.set_minor_formatter(NullFormatter())
    if decades >= 2:
        return
    wide = decades < 1.1
    axis.set_major_locator(
        short_locator(low, high) if decades < 0.7 else LogLocator(subs=(1, 2, 5) if wide else subs)
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def short_locator(low: float, high: float) -> Locator:
    """Return the ticks of a logarithmic axis of a part of a decade: four or more round numbers.

    Steps of one size would leave the lower part of the axis without a tick.
    """
    for multiples in MULTIPLES:
        powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
        round_ones = [float(f"{one}e{power}") for power in powers for one in multiples]
        inside = [value for value in round_ones if low <= value <= high]
        if len(inside) >= MIN_TICKS:
            return FixedLocator(inside)
    return MaxNLocator(4)


def scale_y_for(panels: Sequence[Axes], column: str, values: Iterable[float]) -> str:
    """Scale y axes for a column: logarithmic for losses, per cent for accuracies.

    Returns the note of `set_log_y`.
    """
    if metric_of(column).percent:
        for axes in panels:
            set_percent(axes)
    return set_log_y(panels, values) if metric_of(column).log else ""


def cover_x(axes: Axes, x: "pd.Series[float]") -> None:
    """Set an x axis that holds every value tried, also those that only diverged.
    The axis is logarithmic if all values are positive."""
    low, high = float(x.min()), float(x.max())
    if low > 0:
        axes.set_xscale("log")
        margin = (high / low) ** 0.05
        axes.set_xlim(low / margin, high * margin)
        ticks(axes.xaxis, low / margin, high * margin, subs=(1, 3))
    else:
        axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def end_at_data(axes: Axes) -> None:
    """End the x axis at the first and the last point, without cutting their markers."""
    axes.margins(x=0)
    for line in axes.lines:  # cut by the y axis alone: no point lies beyond the x axis
        line.set_clip_box(TransformedBbox(Bbox([[-1, 0], [2, 1]]), axes.transAxes))


def set_title(figure: Figure, axes: Axes, texts: Sequence[str], beside: float) -> None:
    """Set a panel's title, wrapped to the panel's width.

    A key that is too long for a line is shortened to its last part. The panel's label is the whole
    title, for the caption. beside: inches that ticks and legend take, at print size."""
    axes.set_label(", ".join(texts))
    width = max_chars(figure, axes, beside)
    if len(", ".join(texts)) <= width:
        axes.set_title(", ".join(texts), loc="left")
        return
    lines = []
    for text in texts:
        key, equals, value = text.partition(" = ")
        whole = len(text) <= width or not equals
        lines.append(wrapped(text if whole else f"{key.split('.')[-1]} = {value}", width))
    axes.set_title("\n".join(lines), loc="left")


def max_chars(figure: Figure, axes: Axes, beside: float) -> int:
    """Return how many letters fit above or below a panel. beside: inches taken."""
    spec = axes.get_subplotspec()
    assert spec is not None
    width = figure.get_figwidth() / spec.get_gridspec().ncols
    return max(LEAST_LETTERS, int(width / style.points(0.06) - beside / 0.06))


def wrapped(name: str, width: int) -> str:
    """Wrap a name to lines of at most `width` letters.

    A word that is too long for a line breaks after an underscore, a dot or an equals sign.
    """
    words = (
        word if len(word) <= width else BREAKS.sub("\\g<0>\0 ", word) for word in name.split(" ")
    )
    return fill(" ".join(words), width).replace("\0 ", "").replace("\0", "")


def legend_height(figure: Figure) -> float:
    """Return the inches that the legend above all panels takes."""
    return sum(legend.get_window_extent().height for legend in figure.legends) / figure.dpi


class RowNames(NamedTuple):
    """The wrapped names beside the rows of a panel."""

    texts: dict[str, str]
    inches: float  # width of the names beside the axis
    height: float  # inches of a row


def row_names(names: Iterable[object]) -> RowNames:
    """Wrap the names of rows to the width of a panel or a page's column."""
    most = 28 if style.columns() is None else 16 * (style.columns() or 1)
    texts = {name: wrapped(name, most) for name in map(str, names)}
    rows = [text.split("\n") for text in texts.values()]
    longest = max(len(row) for part in rows for row in part)
    lines = max(map(len, rows))
    return RowNames(texts, style.points(0.056 * longest), style.points(0.09 + 0.13 * lines))


def label_axes(figure: Figure, axes: Axes, x: str, y: str, beside: float = 0.65) -> None:
    """Label the axes, wrapped to the size of the panel. beside: as in `set_title`."""
    spec = axes.get_subplotspec()
    assert spec is not None
    height = (figure.get_figheight() - legend_height(figure)) / spec.get_gridspec().nrows
    axes.set_xlabel(fill(x, max_chars(figure, axes, beside)))
    axes.set_ylabel(fill(y, max(8, int(height / style.points(0.06) - 10))))
    axes.xaxis.label.set_label(x)  # whole, for the caption: a narrow panel breaks words
    axes.yaxis.label.set_label(y)

"""What the figures share: the grid of panels, how each series looks, legends and labels."""

import math
from collections.abc import Iterable
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from optbench import style
from optbench.errors import UserError
from optbench.keys import measured_columns, order, short, show
from optbench.layout import Layout
from optbench.summary import seeds_text

# a cross that says "diverged here", above the lines and not cut at the edge
CROSS: dict[str, Any] = {
    "linestyle": "none",
    "marker": "X",
    "markersize": 6,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "zorder": 5,
    "clip_on": False,
    "label": "_diverged",
}


def check_column(table: pd.DataFrame, y: str) -> None:
    """Raise UserError unless column `y` was logged and holds a number."""
    columns = [name for name in measured_columns(table) if name not in ("step", "epoch")]
    if y not in columns:
        raise UserError(f"no logged column {y!r}; there are: {', '.join(columns)}")
    if not np.isfinite(table[y]).any():
        raise UserError(f"column {y!r} holds no finite number in these runs (no such split?)")


def default_log(y: str) -> bool:
    """Whether the y axis is logarithmic where nobody says: losses and rates are."""
    return "accuracy" not in y and "seconds" not in y


MAX_PANELS = 24


class TooManyPanels(UserError):
    """The runs are of too many problems for one figure; their table can still be made."""


def make_panels(
    plan: Layout, share_y: bool = True
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with titled, empty panels, each with its runs: a grid for two keys, otherwise
    wrapped rows. share_y: one y axis for all.

    Raises TooManyPanels.
    """
    # by `order`, because an unset value (NaN) would not equal itself
    keys = [tuple(map(order, panel)) for panel in plan.runs["panel"]]
    places = sorted(set(keys))
    parts = [plan.runs[[key == place for key in keys]] for place in places]
    texts = [titles(plan, part["panel"].iloc[0]) for part in parts]
    count = len(places)
    if count > MAX_PANELS:
        raise TooManyPanels(
            f"{count} panels (by {', '.join(plan.facet)}) do not fit one figure, {MAX_PANELS} do: "
            "choose the panels with --facet KEY [KEY], or some of the runs with --where KEY=VALUE"
        )
    if len(plan.facet) == 2:
        down, across = (sorted({place[axis] for place in places}) for axis in (0, 1))
        rows, columns = len(down), len(across)
        spots = [down.index(row) * columns + across.index(column) for row, column in places]
    else:
        columns = min(count, 3 if count != 4 else 2)
        rows, spots = math.ceil(count / columns), list(range(count))
    size = (5.6, 3.4) if count == 1 else (1.0 + 3.1 * columns, 0.7 + 2.2 * rows)
    figure = Figure(figsize=size, layout="constrained")
    between = "\n" if max(len(", ".join(text)) for text in texts) > 36 else ", "
    panels: list[tuple[Axes, pd.DataFrame]] = []
    for spot, part, text in zip(spots, parts, texts, strict=True):
        share = panels[0][0] if panels and share_y else None
        axes = figure.add_subplot(rows, columns, spot + 1, sharey=share)
        axes.set_title(between.join(text), loc="left")
        panels.append((axes, part))
    return figure, panels


def titles(plan: Layout, panel: tuple[Any, ...]) -> list[str]:
    """The panel's value of each key, as in "batch_size = 32"."""
    return [
        show(value) if key == "optimizer" else f"{short(key)} = {show(value)}"
        for key, value in zip(plan.facet, panel, strict=True)
    ]


def series_of(runs: pd.DataFrame, plan: Layout) -> list[tuple[str, list[str], style.Look]]:
    """(label, runs, look) of each series of a panel, by name and setting."""
    rank = {
        (name, text): tuple(map(order, setting))
        for name, text, setting in runs[["optimizer", "series", "setting"]].to_numpy()
    }
    every = plan.runs.drop_duplicates(["optimizer", "series"])
    result = []
    for name, text in sorted(rank, key=lambda key: (key[0], rank[key], key[1])):
        # the place among all panels, so that a setting looks the same in each
        group = every if plan.sequential else every[every["optimizer"] == name]
        ranks = sorted({tuple(map(order, setting)) for setting in group["setting"]})
        place, count = ranks.index(rank[name, text]), len(ranks)
        if not plan.sequential:
            look = style.shade(style.look(name), place, count)
        elif any(other[0][0] == 0 for other in ranks if other):  # a number, see `order`
            look = style.ramp(place, count)
        else:
            look = style.choice(place, count)
        members = runs["run"][(runs["optimizer"] == name) & (runs["series"] == text)]
        result.append((text, sorted(members), look))
    return result


def series_label(text: str, diverged: int, count: int) -> str:
    """The label of a series, with how many of its runs diverged."""
    return f"{text}\n({diverged} of {count} diverged)" if diverged else text


def add_legend(axes: Axes, lines: Iterable[tuple[float, str, Line2D]]) -> None:
    """Beside the panel, from the highest end (minus the first element) to the lowest, as drawn."""
    handles = [line for *_, line in sorted(lines, key=lambda item: item[:2])]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))


def log_y(axes: Axes) -> None:
    """A logarithmic y axis, unless every run diverged: there is no number to place then."""
    lines = [line for line in axes.lines if line.get_label() != CROSS["label"]]
    if any((np.asarray(line.get_ydata(), dtype=float) > 0).any() for line in lines):
        axes.set_yscale("log", nonpositive="mask")


def set_percent(axes: Axes) -> None:
    """Tick labels of accuracies (fractions) in per cent."""
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))


def finish(figure: Figure, plan: Layout, x: str, y: str, note: str) -> None:
    """Axis labels at the outer panels, and the note that says what lines and bands are."""
    panels = figure.axes
    for axes in panels:
        spec = axes.get_subplotspec()
        if spec is None:
            continue
        grid = spec.get_gridspec()
        below = spec.rowspan.stop == grid.nrows or len(panels) <= spec.num1 + grid.ncols
        if below or len(plan.facet) == 2:
            axes.set_xlabel(x)
        if spec.colspan.start == 0:
            axes.set_ylabel(y)
    caption(figure, context(plan), note)


def caption(figure: Figure, *lines: str) -> None:
    """The small print below a figure, wrapped to its width."""
    wrapped = [fill(line, int(20 * figure.get_figwidth())) for line in lines]
    figure.supxlabel("\n".join(wrapped), fontsize=6.5, color="#555555")


def add_note(figure: Figure, text: str) -> None:
    """One more line of small print."""
    caption(figure, *figure.get_supxlabel().split("\n"), text)


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
        if axes.get_yscale() != "log" or not 0 < low < high:
            continue
        decades = math.log10(high / low)
        if decades >= 2:
            continue
        axis = axes.yaxis
        axis.set_major_locator(MaxNLocator(5) if decades < 0.7 else LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def spread_note(counts: Iterable[int], diverged: bool, what: str) -> str:
    """What a line or point with `what` (a band or bars) shows of so many seeds, in words."""
    text = f"median of {seeds_text(counts)}, {what}: min to max"
    return text + (" of those that did not diverge" if diverged else "")


def context(plan: Layout) -> str:
    """What all runs of the figure share, in a few words."""
    words = []
    for key in ("dataset.name", "model.name", "batch_size", "device", "optimizer"):
        if key in plan.runs and key not in plan.facet:
            values = plan.runs[key].map(show).unique()
            if len(values) == 1 and (key != "optimizer" or plan.sequential):
                words.append(f"batch size {values[0]}" if key == "batch_size" else values[0])
    return ", ".join(words)


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

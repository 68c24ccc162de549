"""The map of learning rate by weight decay, a panel per optimizer."""

import math
from collections.abc import Sequence
from textwrap import fill
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.tuned.rate_decay import RateDecayMap, rate_decay_maps
from optbench.common.metrics import metric_of
from optbench.common.names import clip
from optbench.common.text import number
from optbench.figures import style
from optbench.figures.axes import label_axes, max_chars
from optbench.figures.panels import caption

WIDEST_RANGE = 3.0  # of the colours: a loss above this multiple of its map's best has the last one
TICKS = (1, 1.2, 1.5, 2, 3)  # of the colours, multiples of a map's best
COLUMNS = 3  # of panels, where there is one problem
PANEL = (2.9, 1.7)  # inches
TICKS_INCHES = 0.5  # that the labels of a panel's ticks take
NAME = 18  # characters of an optimizer's name above its panel
MEANING = (
    "a cell: its best trial, whatever the other settings; star: the optimum; white frame: within "
    "5 % of it; cross: all trials diverged; blank: no trial"
)


def rate_decay(trials: Runs, metric: str = "val_loss", pick: str = "final") -> Figure:
    """Draw the best trial by learning rate and weight decay, a panel per optimizer.

    Of several problems each has a column, and each optimizer a row. Cells are half decades wide.
    Colours compare a cell with the best of its own map, so that the region near each optimum shows;
    the best value stands above the map. A cross is a cell whose trials all diverged, a star the
    optimum, a frame a cell whose best trial is within 5 % of the optimum. Raises UserError as
    `rate_decay_maps` does.
    """
    made = comparison_of(trials)
    found = rate_decay_maps(made, metric, pick)
    maps = {(one.optimizer, one.problem): one for one in found}
    problems = list(dict.fromkeys(one.problem for one in found))
    optimizers = list(dict.fromkeys(one.optimizer for one in found))
    places = [(name, problem) for name in optimizers for problem in problems]
    colors = colors_of(found, metric_of(metric).smaller)
    with style.rc():
        most = len(problems) if len(problems) > 1 else min(len(optimizers), COLUMNS)
        columns = style.across(most, names=0.9)
        rows = math.ceil(len(places) / columns)
        figure = style.blank(PANEL[0] * columns + 0.9, PANEL[1] * rows)
        grid = figure.subplots(rows, columns, squeeze=False)
        names = problem_names(made) if len(problems) > 1 else {}
        for axes, place in zip(grid.flat, places, strict=False):
            if place not in maps:
                axes.remove()  # this optimizer has no map of the problem
                continue
            one = maps[place]
            shown = draw_map(axes, one, colors)
            who = ", ".join([clip(one.optimizer, NAME), *([names[place[1]]] if names else [])])
            title = f"{who}: {number(one.top)} (n = {one.trials})"
            axes.set_title(fill(title, max_chars(figure, axes, TICKS_INCHES)), loc="left")
        for axes in grid.flat[len(places) :]:
            axes.remove()
        panels = list(figure.axes)
        lowest = dict(zip(columns_of(panels), panels, strict=True))  # by column: the last one stays
        for column, axes in zip(columns_of(panels), panels, strict=True):
            x = "learning rate" if axes is lowest[column] else ""
            label_axes(figure, axes, x, "" if column else "weight decay")
        bar = figure.colorbar(
            shown, ax=panels, label=colors.label, extend="max", aspect=40, pad=0.02
        )
        if colors.relative:
            bar.set_ticks(list(TICKS), labels=[f"{tick:g}" for tick in TICKS])
            bar.ax.minorticks_off()
        best = f"above a map: its best {pick} {metric_of(metric).label}"
        caption(figure, f"{best}; colour: the cell's best, {colors.label} of its map", MEANING)
    return figure


def columns_of(panels: Sequence[Axes]) -> list[int]:
    """Return the column of each panel."""
    specs = [axes.get_subplotspec() for axes in panels]
    return [spec.colspan.start for spec in specs if spec is not None]


def problem_names(made: Runs) -> dict[str, str]:
    """Return the model's name of each problem, by its hash."""
    table = comparison_of(made).table
    first = table.drop_duplicates("problem").astype({"problem": str})
    names = first["model.name"] if "model.name" in first else first["problem"]
    return dict(zip(first["problem"], names.astype(str), strict=True))


class Colors(NamedTuple):
    """How the colours of all maps are read."""

    norm: Normalize
    relative: bool  # a multiple of the map's best, rather than the distance from that
    label: str

    def of(self, one: RateDecayMap) -> np.ndarray:
        """Return the values that a map's colours show."""
        return one.best / one.top if self.relative else np.abs(one.best - one.top)


def colors_of(maps: list[RateDecayMap], smaller: bool) -> Colors:
    """Return the colours: multiples of each map's best, or distances from it.

    Distances are of accuracies, and of losses that may be 0 or negative.
    """
    if smaller and min(one.top for one in maps) > 0:
        label = "times the best"
        return Colors(LogNorm(1, WIDEST_RANGE), True, label)
    gaps = np.concatenate([np.abs(one.best - one.top).ravel() for one in maps])
    most = float(np.quantile(gaps[np.isfinite(gaps)], 0.9))
    return Colors(Normalize(0, most or 1.0), False, "from the best")


def draw_map(axes: Axes, one: RateDecayMap, colors: Colors) -> matplotlib.cm.ScalarMappable:
    """Draw one optimizer's map."""
    height = len(one.decays)
    shown = axes.pcolormesh(
        one.rates, np.arange(height + 1), np.ma.masked_invalid(colors.of(one)), norm=colors.norm,
        cmap="viridis_r",
    )  # fmt: skip
    middles = np.sqrt(one.rates[:-1] * one.rates[1:])
    for row, column in np.argwhere(one.lost):
        axes.plot(middles[column], row + 0.5, "x", color="0.4", markersize=style.points(4))
    for row, column in np.argwhere(one.near):
        left, right = one.rates[column], one.rates[column + 1]
        frame = Rectangle(
            (left, row), right - left, 1, fill=False, edgecolor="white", linewidth=0.8
        )
        axes.add_patch(frame)
    row, column = one.optimum
    axes.plot(
        middles[column], row + 0.5, "*", color="white", markeredgecolor="black",
        markersize=style.points(7), markeredgewidth=0.5,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    ticks = range(0, height, max(1, math.ceil(height / 5)))
    axes.set_yticks([tick + 0.5 for tick in ticks], [one.decays[tick] for tick in ticks])
    axes.grid(False)
    return shown

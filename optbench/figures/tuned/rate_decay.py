"""The map of learning rate by weight decay, a panel per optimizer."""

import math

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
from optbench.figures import style

WIDEST_RANGE = 3.0  # of the colors: a loss above this multiple of the best has the last color
COLUMNS = 3  # of panels
PANEL = (2.3, 1.9)  # inches
NAME = 18  # characters of an optimizer's name above its panel
MEANING = (
    "a cell: its best trial, whatever the other settings; star: the optimum; white frame: within "
    "5 % of it; cross: all trials diverged; blank: no trial"
)


def rate_decay(trials: Runs, metric: str = "val_loss", pick: str = "final") -> Figure:
    """Draw the best trial by learning rate and weight decay, a panel per optimizer.

    Cells are half decades wide. A cross is a cell whose trials all diverged, a star the optimum, a
    frame a cell whose best trial is within 5 % of the optimum. Raises UserError as
    `rate_decay_maps` does.
    """
    made = comparison_of(trials)
    maps = rate_decay_maps(made, metric, pick)
    problems = list(dict.fromkeys(one.problem for one in maps))
    norm = scale_of(maps, metric_of(metric).smaller)
    with style.rc():
        columns = min(len(maps), style.across(COLUMNS, names=0.9))
        rows = math.ceil(len(maps) / columns)
        figure = style.blank(PANEL[0] * columns + 0.9, PANEL[1] * rows)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, one in zip(grid.flat, maps, strict=False):
            shown = draw_map(axes, one, norm)
            where = problem_names(made)[one.problem] if len(problems) > 1 else ""
            title = f"{clip(one.optimizer, NAME)}{where and f', {where}'} (n = {one.trials})"
            axes.set_title(title)
        for axes in grid.flat[len(maps) :]:
            axes.remove()
        figure.supxlabel("learning rate")
        figure.supylabel("weight decay")
        label = f"best {pick} {metric_of(metric).label}"
        figure.set_label(MEANING)
        extend = "max" if metric_of(metric).smaller else "neither"
        figure.colorbar(shown, ax=list(figure.axes), label=label, extend=extend)
    return figure


def problem_names(made: Runs) -> dict[str, str]:
    """Return the model's name of each problem, by its hash."""
    table = comparison_of(made).table
    first = table.drop_duplicates("problem").astype({"problem": str})
    names = first["model.name"] if "model.name" in first else first["problem"]
    return dict(zip(first["problem"], names.astype(str), strict=True))


def scale_of(maps: list[RateDecayMap], smaller: bool) -> Normalize:
    """Return the common scale of the colors, from the best result to one much worse."""
    values = np.concatenate([one.best[np.isfinite(one.best)] for one in maps])
    if not smaller:
        return Normalize(values.min(), values.max())
    if values.min() <= 0:
        return Normalize(values.min(), float(np.quantile(values, 0.9)))
    return LogNorm(values.min(), max(values.min() * WIDEST_RANGE, values.min() * 1.01))


def draw_map(axes: Axes, one: RateDecayMap, norm: Normalize) -> matplotlib.cm.ScalarMappable:
    """Draw one optimizer's map."""
    height = len(one.decays)
    shown = axes.pcolormesh(
        one.rates, np.arange(height + 1), np.ma.masked_invalid(one.best), norm=norm,
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

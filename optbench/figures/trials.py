"""Figures of a tuned study's trials: by learning rate, and by number of trials."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.trials import Line, budget_lines, trial_lines
from optbench.common.metrics import metric_of
from optbench.figures import style
from optbench.figures.axes import cover_x, end_at_data, y_label
from optbench.figures.panels import cross, draw_lines, label_panels


def rate_scatter(
    trials: Runs, metric: str = "val_loss", pick: str = "final", facet: Sequence[str] | None = None
) -> Figure:
    """Draw a point per trial at its learning rate, with a line through the best.
    The line joins the best trial of each half decade, whatever its other settings. A cross at the
    edge is a diverged trial. Raises UserError if no trial has a learning rate.
    """
    made = comparison_of(trials)
    lines = trial_lines(made, metric, pick, facet)
    runs = lines.plan.runs
    with style.rc():
        figure, scale = draw_lines(
            made.table, lines, metric, runs["y"], partial(draw_trials, metric)
        )
        for axes in figure.axes:
            cover_x(axes, runs["x"])
        text = "a point per trial; line: the best trial of each half decade, whatever its other "
        text += "settings"
        if any(line.low is not None for panel in lines.panels for line in panel):
            text += " (median and quartiles over the searches)"
        text += scale
        text += "; ✖ diverged" if (runs["status"] == "diverged").any() else ""
        label_panels(figure, lines.plan, "learning rate", scored(made.table, metric, pick), text)
    return figure


def draw_trials(metric: str, axes: Axes, each: Line, look: style.LineStyle) -> Line2D:
    """Draw one line, trials as points, and crosses at the edge for diverged trials."""
    assert each.dots is not None
    assert each.lost is not None
    axes.plot(
        *each.dots.T, linestyle="none", marker=look.marker, color=look.color,
        markersize=style.points(3), alpha=0.45, markeredgewidth=0,
    )  # fmt: skip
    (line,) = axes.plot(
        each.x, each.mid, color=look.color, linestyle=look.dashes, marker=look.marker,
        label=each.text,
    )  # fmt: skip
    if each.low is not None and each.high is not None:
        axes.fill_between(each.x, each.low, each.high, color=look.color, alpha=0.15, linewidth=0)
    edge = 0.0 if metric_of(metric).worst == -math.inf else 1.0
    for at in each.lost:
        place = axes.get_xaxis_transform()
        axes.plot([at], [edge], **cross(), color=look.color, transform=place)
    return line


def tuning_budget(
    trials: Runs, metric: str = "val_loss", pick: str = "final", facet: Sequence[str] | None = None
) -> Figure:
    """Draw the best validation result of 1, 2, ... trials, a line per optimizer.

    The line is the expectation with a bootstrap interval (Dodge et al. 2019). If any trial diverged
    or blew up no mean exists, and the line is the median of the best of n.
    Raises UserError where trials are not random.
    """
    made = comparison_of(trials)
    lines = budget_lines(made, metric, pick, facet)
    series = [line for panel in lines.panels for line in panel]
    ends = [end for line in series for end in (line.mid, line.low, line.high) if end is not None]
    with style.rc():
        figure, scale = draw_lines(made.table, lines, metric, np.concatenate(ends), draw_budget)
        for axes in figure.axes:
            end_at_data(axes)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        counts = [line.runs for line in series]
        what = "median of the best of n (trials diverged or blew up: no mean survives that)"
        text = what if lines.by_median else "expected best of n"
        text += f", bootstrapped from {min(counts)}"
        text += f" to {max(counts)}" if min(counts) < max(counts) else ""
        text += (
            " trials each, of all searches, without the default one; band: 95 % interval" + scale
        )
        label = f"best {y_label(made.table, metric)}"
        label_panels(figure, lines.plan, "trials", label, text)
    return figure


def draw_budget(axes: Axes, each: Line, look: style.LineStyle) -> Line2D:
    """Draw one line with its band, as far as both are finite."""
    centre, low, high = (
        np.where(np.isfinite(end), end, math.nan)
        for end in (each.mid, each.low, each.high)
        if end is not None
    )
    (line,) = axes.plot(
        each.x, centre, color=look.color, linestyle=look.dashes,
        marker=look.marker, markevery=max(1, len(each.x) // 7),
        label=each.text,
    )  # fmt: skip
    axes.fill_between(each.x, low, high, color=look.color, alpha=0.13, linewidth=0)
    return line


def scored(trials: pd.DataFrame, metric: str, pick: str) -> str:
    """Return the label of the value by which trials were judged."""
    return f"{'final' if pick == 'final' else 'best-epoch'} {y_label(trials, metric)}"

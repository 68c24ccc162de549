"""The trials of a tuned study as figures: against the learning rate, and against their number."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.trials import budget_lines, trial_lines
from optbench.common.metrics import metric_of
from optbench.figures import style
from optbench.figures.axes import cover_x, limit_y, log_ticks, scale_y_for, y_label
from optbench.figures.panels import (
    LegendEntry,
    add_legends,
    cross,
    label_panels,
    make_panels,
    series_of,
)


def rate_scatter(
    trials: Runs, metric: str = "val_loss", pick: str = "final", facet: Sequence[str] | None = None
) -> Figure:
    """A point per trial at its learning rate, and a line through the best trial of each half
    decade: the envelope over the other settings, which vary from trial to trial. A cross at the
    edge is a trial that diverged. Raises UserError where no trial has a learning rate.
    """
    made = comparison_of(trials)
    lines = trial_lines(made, metric, pick, facet)
    plan = lines.plan
    runs, bad = plan.runs, metric_of(metric).worst
    with style.rc():
        figure, panels = make_panels(plan)
        legends = []
        for (axes, part), drawn in zip(panels, lines.panels, strict=True):
            legend = []
            for each, (*_, look) in zip(drawn, series_of(part, plan), strict=True):
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
                edge = 0.0 if bad == -math.inf else 1.0
                for at in each.lost:
                    place = axes.get_xaxis_transform()
                    axes.plot([at], [edge], **cross(), color=look.color, transform=place)
                y = each.mid
                end = y.max() if len(y) and bad == -math.inf else y.min() if len(y) else bad
                legend.append(LegendEntry(-float(end), each.text, line, len(each.lost), each.runs))
            legends.append((axes, legend))
            cover_x(axes, runs["x"])
        scale = scale_y_for([axes for axes, _ in panels], metric, runs["y"])
        above = limit_y([axes for axes, _ in panels], made.table, metric, runs["y"])
        log_ticks([axes for axes, _ in panels])
        add_legends(figure, plan, legends)
        text = "a point per trial; line: the best trial of each half decade, whatever its other "
        text += "settings" + scale + above
        text += "; ✖ diverged" if (runs["status"] == "diverged").any() else ""
        label_panels(figure, plan, "learning rate", scored(made.table, metric, pick), text)
    return figure


def tuning_budget(
    trials: Runs, metric: str = "val_loss", pick: str = "final", facet: Sequence[str] | None = None
) -> Figure:
    """The best validation result of 1, 2, ... random trials, a line per optimizer.

    The expectation with its bootstrap interval (Dodge et al. 2019), or, where a trial of any
    optimizer diverged or blew up, which no mean survives, the median of the best of n instead.
    Raises UserError where trials are no random ones.
    """
    made = comparison_of(trials)
    lines = budget_lines(made, metric, pick, facet)
    plan = lines.plan
    with style.rc():
        figure, panels = make_panels(plan)
        counts, legends, values = [], [], []
        for (axes, part), drawn in zip(panels, lines.panels, strict=True):
            legend = []
            for each, (*_, look) in zip(drawn, series_of(part, plan), strict=True):
                centre, low, high = (
                    np.where(np.isfinite(end), end, math.nan)
                    for end in (each.mid, each.low, each.high)
                    if end is not None
                )
                values += [*centre, *low, *high]
                (line,) = axes.plot(
                    each.x, centre, color=look.color, linestyle=look.dashes,
                    marker=look.marker, markevery=max(1, len(each.x) // 7),
                    label=each.text,
                )  # fmt: skip
                axes.fill_between(each.x, low, high, color=look.color, alpha=0.13, linewidth=0)
                end = float(each.mid[-1])
                legend.append(LegendEntry(-end, each.text, line, each.diverged, each.runs))
                counts.append(each.runs)
            legends.append((axes, legend))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        scale = scale_y_for([axes for axes, _ in panels], metric, values)
        above = limit_y([axes for axes, _ in panels], made.table, metric, plan.runs["y"])
        log_ticks([axes for axes, _ in panels])
        add_legends(figure, plan, legends)
        what = "median of the best of n (trials diverged or blew up: no mean survives that)"
        text = what if lines.by_median else "expected best of n"
        text += f", bootstrapped from {min(counts)}"
        text += f" to {max(counts)}" if min(counts) < max(counts) else ""
        text += " trials each; band: 95 % interval" + scale + above
        label = f"best {y_label(made.table, metric)}"
        label_panels(figure, plan, "trials", label, text)
    return figure


def scored(trials: pd.DataFrame, metric: str, pick: str) -> str:
    """The name of what a trial was judged by."""
    return f"{'final' if pick == 'final' else 'best-epoch'} {y_label(trials, metric)}"

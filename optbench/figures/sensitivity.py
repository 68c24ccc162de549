"""The effect of the learning rate, or of another setting, on final values."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from optbench.analysis.columns import resolve, short_name
from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.trials import Line, Lines, rate_lines
from optbench.common.metrics import metric_of
from optbench.figures import style
from optbench.figures.axes import CROSS_LABEL, check_column, cover_x, y_label
from optbench.figures.panels import cross, draw_lines, label_panels, spread_note


def sensitivity(
    runs: Runs,
    y: str = "train_loss",
    x: str = "optimizer.lr",
    facet: Sequence[str] | None = None,
    lines: str | None = None,
) -> Figure:
    """Draw the final `y` against a numeric setting `x`, a line per optimizer.

    lines: the key that makes the lines instead, such as `model.batch_norm`. Points are medians over
    the seeds, bars the range of those that did not diverge. Where the median diverged the line
    breaks, with a cross at the top edge (accuracy: the bottom edge). Raises UserError if no
    optimizer has two values of `x`.
    """
    made = comparison_of(runs)
    check_column(made.table, y)
    drawn = rate_lines(made, y, x, facet, lines)
    plan = drawn.plan
    with style.rc():
        figure, scale = draw_lines(made.table, drawn, y, plan.runs["y"], partial(draw_line, y))
        for axes in figure.axes:
            cover_x(axes, plan.runs["x"])
        x = short_name(resolve(made.table, x))
        name = "learning rate" if x == "lr" else x
        text = seeds_note(plan.runs, drawn) + scale
        label_panels(figure, plan, name, f"final {y_label(made.table, y)}", text)
    return figure


def draw_line(y: str, axes: Axes, each: Line, look: style.LineStyle) -> Line2D:
    """Draw one line: medians with bars, and crosses at the edge for diverged medians."""
    assert each.low is not None
    assert each.high is not None
    drawn = np.isfinite(each.mid)
    line_y = np.where(drawn, each.mid, math.nan)
    (line,) = axes.plot(
        each.x,
        line_y,
        color=look.color,
        marker=look.marker,
        linestyle=look.dashes,
        label=each.text,
        zorder=3,
    )
    if each.runs > len(each.x):
        # A diverged seed counts in the median but not in the bar, so the median may lie outside.
        bars = np.zeros((2, len(each.x)))
        ends = [each.mid[drawn] - each.low[drawn], each.high[drawn] - each.mid[drawn]]
        bars[:, drawn] = np.maximum(ends, 0)
        axes.errorbar(
            each.x,
            line_y,
            yerr=bars,
            fmt="none",
            ecolor=look.color,
            elinewidth=style.points(0.8),
            capsize=2,
        )
    marked = [other for other in axes.lines if other.get_label() == CROSS_LABEL]
    crosses = [np.asarray(other.get_xdata())[0] for other in marked]
    for at in each.x[~drawn]:
        # Crosses stand side by side, so that none covers another.
        move = ScaledTranslation(-7 * crosses.count(at) / 72, 0, axes.figure.dpi_scale_trans)
        edge = 0.0 if metric_of(y).worst == -math.inf else 1.0
        place = axes.get_xaxis_transform() + move
        axes.plot([at], [edge], **cross(), color=look.color, transform=place)
    return line


def seeds_note(runs: pd.DataFrame, lines: Lines) -> str:
    """Return the number of seeds and the spread in words."""
    counts = [count for panel in lines.panels for line in panel for count in line.counts]
    diverged = bool((runs["status"] == "diverged").any())
    text = "one seed per point"
    if max(counts) > 1:
        text = spread_note(counts, diverged, "bars")
    return text + ("; ✖ diverged" if diverged else "")

"""How much the learning rate (or another setting) matters: final values against it."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from optbench.analysis.columns import resolve, short_name
from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.trials import Line, Lines, rate_lines
from optbench.common.metrics import metric_of
from optbench.figures import style
from optbench.figures.axes import check_column, cover_x, limit_y, log_ticks, scale_y_for, y_label
from optbench.figures.panels import (
    LegendEntry,
    add_legends,
    cross,
    label_panels,
    make_panels,
    series_of,
    spread_note,
)


def sensitivity(
    runs: Runs, y: str = "train_loss", x: str = "optimizer.lr", facet: Sequence[str] | None = None
) -> Figure:
    """The final `y` against a numeric setting `x`, a line per optimizer with two values of it.

    Points are medians over the seeds and bars min to max of those that did not diverge; where
    the median diverged a cross stands at the top edge (an accuracy: the bottom edge) and the
    line breaks. Raises UserError when no optimizer has two values of `x`.
    """
    made = comparison_of(runs)
    check_column(made.table, y)
    lines = rate_lines(made, y, x, facet)
    plan = lines.plan
    with style.rc():
        figure, panels = make_panels(plan)
        legends = []
        for (axes, part), drawn in zip(panels, lines.panels, strict=True):
            looks = [look for *_, look in series_of(part, plan)]
            legends.append((axes, draw_panel(figure, axes, drawn, looks, y)))
            cover_x(axes, plan.runs["x"])
        scale = scale_y_for([axes for axes, _ in panels], y, plan.runs["y"])
        above = limit_y([axes for axes, _ in panels], made.table, y, plan.runs["y"])
        log_ticks([axes for axes, _ in panels])
        add_legends(figure, plan, legends)
        x = short_name(resolve(made.table, x))
        name = "learning rate" if x == "lr" else x
        text = note(plan.runs, lines) + scale + above
        label_panels(figure, plan, name, f"final {y_label(made.table, y)}", text)
    return figure


def draw_panel(
    figure: Figure, axes: Axes, lines: Sequence[Line], looks: Sequence[style.LineStyle], y: str
) -> list[LegendEntry]:
    """One panel: medians with bars, and crosses at the edge for what diverged."""
    bad = metric_of(y).worst
    legend = []
    crosses: dict[float, int] = {}  # how many there are at each x
    for each, look in zip(lines, looks, strict=True):
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
            # the median may stand outside, where a diverged seed counts in it and not in the bar
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
        for at in each.x[~drawn]:
            # side by side, or one would cover another
            shift = 7 * crosses.get(at, 0)
            crosses[at] = crosses.get(at, 0) + 1
            move = ScaledTranslation(-shift / 72, 0, figure.dpi_scale_trans)
            edge = 0.0 if bad == -math.inf else 1.0
            place = axes.get_xaxis_transform() + move
            axes.plot([at], [edge], **cross(), color=look.color, transform=place)
        end = (np.nanmax if bad == -math.inf else np.nanmin)(line_y) if drawn.any() else bad
        legend.append(LegendEntry(-float(end), each.text, line, each.diverged, each.runs))
    return legend


def note(runs: pd.DataFrame, lines: Lines) -> str:
    """n and the spread, in words."""
    counts = [count for panel in lines.panels for line in panel for count in line.counts]
    diverged = bool((runs["status"] == "diverged").any())
    text = "one seed per point"
    if max(counts) > 1:
        text = spread_note(counts, diverged, "bars")
    return text + ("; ✖ diverged" if diverged else "")

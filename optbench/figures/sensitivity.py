"""How much the learning rate (or another setting) matters: final values against it."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from optbench.analysis.columns import resolve, short
from optbench.analysis.series import Layout, layout
from optbench.analysis.summary import final_values
from optbench.common.errors import UserError
from optbench.common.metrics import worst
from optbench.figures import style
from optbench.figures.axes import cap, check_column, dress, log_ticks, show_all, y_label
from optbench.figures.panels import (
    Entry,
    add_legends,
    cross,
    finish,
    make_panels,
    series_of,
    spread_note,
)
from optbench.stats.estimates import median


def sensitivity(
    table: pd.DataFrame,
    y: str = "train_loss",
    x: str = "optimizer.lr",
    facet: Sequence[str] | None = None,
) -> Figure:
    """The final `y` against a numeric setting `x`, a line per optimizer with two values of it.

    Points are medians over the seeds and bars min to max of those that did not diverge; where
    the median diverged a cross stands at the top edge (an accuracy: the bottom edge) and the
    line breaks. Raises UserError when no optimizer has two values of `x`.
    """
    check_column(table, y)
    x = resolve(table, x)
    plan = layout(table, facet, None, within=[x])
    finals = final_values(table, y).reindex(plan.runs["run"])
    runs = plan.runs.assign(x=pd.to_numeric(plan.runs[x], errors="coerce"), y=finals.to_numpy())
    runs = runs.astype({"x": float, "y": float}).dropna(subset=["x", "y"])
    # a line needs two points
    runs = runs[runs.groupby(["optimizer", "variant"])["x"].transform("nunique") > 1]
    if runs.empty:
        raise UserError(f"no optimizer has two values of {x} in these runs: nothing to compare")
    plan = plan._replace(runs=runs, sequential=False)
    with style.rc():
        figure, panels = make_panels(plan)
        legends = []
        for axes, part in panels:
            legends.append((axes, draw_panel(figure, axes, part, plan, y)))
            show_all(axes, runs["x"])
        scale = dress([axes for axes, _ in panels], y, runs["y"])
        above = cap([axes for axes, _ in panels], table, y, runs["y"])
        log_ticks([axes for axes, _ in panels])
        add_legends(figure, plan, legends)
        name = "learning rate" if short(x) == "lr" else short(x)
        finish(figure, plan, name, f"final {y_label(table, y)}", note(runs) + scale + above)
    return figure


def draw_panel(figure: Figure, axes: Axes, runs: pd.DataFrame, plan: Layout, y: str) -> list[Entry]:
    """One panel: medians with bars, and crosses at the edge for what diverged."""
    bad = worst(y)
    legend = []
    crosses: dict[float, int] = {}  # how many there are at each x
    for text, members, look in series_of(runs, plan):
        part = runs[runs["run"].isin(members)]
        by_x = [(at, group["y"].to_numpy()) for at, group in part.groupby("x")]
        xs = np.array([at for at, _ in by_x])
        raw = np.array([median(values) for _, values in by_x])
        drawn = np.isfinite(raw)
        line_y = np.where(drawn, raw, math.nan)
        (line,) = axes.plot(
            xs,
            line_y,
            color=look.color,
            marker=look.marker,
            linestyle=look.dashes,
            label=text,
            zorder=3,
        )
        if len(part) > len(xs):
            finite = [values[np.isfinite(values)] for _, values in by_x]
            low = np.array([np.min(values, initial=math.inf) for values in finite])
            high = np.array([np.max(values, initial=-math.inf) for values in finite])
            # the median may stand outside, where a diverged seed counts in it and not in the bar
            bars = np.zeros((2, len(xs)))
            bars[:, drawn] = np.maximum([raw[drawn] - low[drawn], high[drawn] - raw[drawn]], 0)
            axes.errorbar(
                xs,
                line_y,
                yerr=bars,
                fmt="none",
                ecolor=look.color,
                elinewidth=style.points(0.8),
                capsize=2,
            )
        for at in xs[~np.isfinite(raw)]:
            # side by side, or one would cover another
            shift = 7 * crosses.get(at, 0)
            crosses[at] = crosses.get(at, 0) + 1
            move = ScaledTranslation(-shift / 72, 0, figure.dpi_scale_trans)
            edge = 0.0 if bad == -math.inf else 1.0
            place = axes.get_xaxis_transform() + move
            axes.plot([at], [edge], **cross(), color=look.color, transform=place)
        end = (np.nanmax if bad == -math.inf else np.nanmin)(line_y) if drawn.any() else bad
        lost = int((part["status"] == "diverged").sum())
        legend.append(Entry(-float(end), text, line, lost, len(part)))
    return legend


def note(runs: pd.DataFrame) -> str:
    """n and the spread, in words."""
    counts = runs.groupby(["panel", "optimizer", "variant", "x"]).size()
    diverged = bool((runs["status"] == "diverged").any())
    text = "one seed per point"
    if counts.max() > 1:
        text = spread_note(counts, diverged, "bars")
    return text + ("; ✖ diverged" if diverged else "")

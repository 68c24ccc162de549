"""The spread of final values over seeds: a dot per run, and a box if enough runs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.final_values import divergence_limit, seeds_text
from optbench.analysis.leader import place
from optbench.common.metrics import metric_of
from optbench.figures import style
from optbench.figures.axes import check_column, label_axes, row_names, ticks, y_label
from optbench.figures.looks import series_of
from optbench.figures.panels import caption, cross, make_panels, setting_note
from optbench.stats.estimates import median

MIN_BOX_RUNS = 5  # quartiles of fewer runs rest on one or two of them
DOT_SPREAD = 0.22  # of a row's height, upwards and downwards


def finals(
    runs_of: Runs,
    y: str | None = None,
    facet: Sequence[str] | None = None,
    lines: str | None = None,
) -> Figure:
    """Draw the final `y` of every run, a row per series, best first, with n beside it.

    A dot is a run. A box spans the quartiles around the median; below `MIN_BOX_RUNS` runs the
    median stands alone. A diverged run is a cross at the bad edge, and counts as infinitely bad in
    median and quartiles. y: by default the test accuracy, else the test loss, else the column of
    the verdict. Raises UserError as `assign_series` does.
    """
    made = comparison_of(runs_of)
    table = made.table
    logged = (name for name in ("test_accuracy", "test_loss") if made.has(name))
    y = next(logged, made.judged) if y is None else y
    check_column(table, y)
    plan = made.series(facet, lines)
    values = made.finals(y)
    finite = values[np.isfinite(values)]
    limit = divergence_limit(table, y)
    near = finite[finite <= limit]
    beyond = len(finite) - len(near) if len(near) else 0  # would squeeze the others
    finite = near if beyond else finite
    log = metric_of(y).log and bool(len(finite)) and finite.min() > 0
    log = log and bool(finite.max() > 5 * finite.min())
    most = max(
        part["series"].nunique() for _, part in plan.runs.groupby(plan.runs["panel"].map(str))
    )
    with style.rc():
        names = row_names(plan.runs["series"])
        figure, panels = make_panels(plan, share_y=False, names=names.inches)
        rows = panels[0][0].get_subplotspec().get_gridspec().nrows  # type: ignore[union-attr]
        figure.set_figheight(rows * (style.points(0.6) + names.height * max(2, most)) + 0.4)
        for axes, part in panels:
            ends = limit if beyond else math.inf
            draw_panel(axes, series_of(part, plan), values, y, log, names.texts, ends)
            axes.grid(visible=False, axis="y")
            set_limits(axes, finite, log, metric_of(y).percent)
        below = [axes.get_subplotspec().rowspan.stop for axes, _ in panels]  # type: ignore[union-attr]
        for (axes, _), stop in zip(panels, below, strict=True):
            if stop == max(below):
                label_axes(figure, axes, f"final {y_label(table, y)}", "", 0.4 + names.inches)
        text = f"a dot per run, {seeds_text(plan.runs.groupby(['panel', 'variant']).size())}; box: "
        text += f"quartiles and median (below {MIN_BOX_RUNS} runs: median)"
        if beyond:
            text += f"; {beyond} beyond the axis: "
            text += (
                "further above the untrained value than the lowest value lies below it (▸)"
                if (table[y] < 0).any()
                else "above four times the untrained value (▸)"
            )
        text += "; ✖ diverged, infinitely bad" if np.isinf(values).any() else ""
        if made.unit == "search":
            text += "; tables and verdicts take the mean of each search's runs"
        caption(figure, setting_note(plan), text)
    return figure


def draw_panel(
    axes: Axes,
    series: Sequence[tuple[str, list[str], style.LineStyle]],
    values: "pd.Series[float]",
    y: str,
    log: bool,
    names: Mapping[str, str],
    limit: float,
) -> None:
    """Draw the rows of a panel, the best at the top. Values beyond `limit` are arrows.
    names: the series' labels beside the axis."""
    bad = metric_of(y).worst
    parts = [(text, look, values.reindex(runs).to_numpy(float)) for text, runs, look in series]
    parts = [(text, look, part[~np.isnan(part)]) for text, look, part in parts]
    parts.sort(key=lambda item: rank(item[2], metric_of(y).smaller))
    for row, (text, look, part) in enumerate(parts):
        finite = part[np.isfinite(part)]
        alive, beyond = np.sort(finite[finite <= limit]), int((finite > limit).sum())
        # Dots are evenly spread in their row, in an order that mixes small and large.
        places = np.arange(len(alive)) * 0.618 % 1 * 2 * DOT_SPREAD - DOT_SPREAD
        axes.plot(
            alive, row + places, linestyle="none", marker=look.marker, color=look.color, alpha=0.6,
            markersize=style.points(3.2), markeredgewidth=0, label=text, zorder=3,
        )  # fmt: skip
        low, high = (
            float(np.quantile(part, share, method="inverted_cdf")) if len(part) else math.nan
            for share in (0.25, 0.75)
        )
        centre = float(median(part)) if len(part) else math.nan
        if len(part) >= MIN_BOX_RUNS and math.isfinite(low) and math.isfinite(high):
            axes.barh(
                row, high - low, left=low, height=0.62, facecolor=look.color, alpha=0.18,
                edgecolor=look.color, linewidth=style.points(0.8),
            )  # fmt: skip
        if math.isfinite(centre):
            axes.vlines(centre, row - 0.31, row + 0.31, color=look.color, zorder=4)
        if beyond:
            axes.plot([1.0] * beyond, row + np.linspace(-0.2, 0.2, beyond) * (beyond > 1), ">",
                      color=look.color, transform=axes.get_yaxis_transform(), clip_on=False,
                      markersize=style.points(3.2), markeredgewidth=0)  # fmt: skip
        if lost := len(part) - len(finite):
            edge = 1.0 if bad == math.inf else 0.0
            transform = axes.get_yaxis_transform()
            axes.plot([edge] * lost, row + np.linspace(-0.2, 0.2, lost) * (lost > 1),
                      **cross(), color=look.color, transform=transform)  # fmt: skip
        axes.text(
            1.02, row, f"n = {len(part)}", transform=axes.get_yaxis_transform(), va="center",
            fontsize=style.points(6), color="#555555",
        )  # fmt: skip
    axes.set_yticks(range(len(parts)), [names[text] for text, *_ in parts])
    axes.set_ylim(len(parts) - 0.5, -0.5)
    if log:
        axes.set_xscale("log")


def rank(values: np.ndarray, smaller: bool) -> tuple[float, float, str]:
    """Return the rank of a series within its panel (`leader.place`)."""
    middle = float(median(values)) if len(values) else math.nan
    return place(middle, smaller, float(np.isinf(values).sum()) / max(1, len(values)))


def set_limits(axes: Axes, finite: "pd.Series[float]", log: bool, percent: bool) -> None:
    """Set the same x axis in each panel, wide enough for every dot."""
    if len(finite) and finite.max() > finite.min():
        low, high = float(finite.min()), float(finite.max())
        margin = (high / low) ** 0.04 if log else 0.04 * (high - low)
        low, high = (low / margin, high * margin) if log else (low - margin, high + margin)
        axes.set_xlim(low, high)
        if log:
            ticks(axes.xaxis, low, high, (1, 3))
    if not log:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    if not len(finite):  # all diverged, so there is no scale
        axes.set_xticks([])
    if percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))

"""What the figures share: the grid of panels, how each series looks, legends and labels."""

import math
from collections.abc import Callable, Iterable, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from optbench.analysis.columns import short_name
from optbench.analysis.final_values import seeds_text
from optbench.analysis.series import Layout
from optbench.analysis.trials import Line, Lines
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import show, sort_key
from optbench.figures import style
from optbench.figures.axes import MARKED, limit_y, log_ticks, scale_y_for

MAX_PANELS = 24
SMALL = 6.5  # points: the size of small print
HELD_LINES = 2  # of small print, for which every figure has room
MAX_LINES = 1000


def cross() -> dict[str, Any]:
    """How a marker looks that says "diverged here": above the lines and not cut at the edge."""
    return {
        "linestyle": "none",
        "marker": "X",
        "markersize": style.points(6),
        "markeredgecolor": "white",
        "markeredgewidth": style.points(0.6),
        "zorder": 5,
        "clip_on": False,
        "label": MARKED,
    }


class TooManyPanels(UserError):
    """The runs are of too many problems for one figure; their table can still be made."""


def make_panels(
    plan: Layout, share_y: bool = True, most: int = 3
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with titled, empty panels, each with its runs: a grid for two keys (where
    the page is wide enough for it), otherwise wrapped rows. share_y: one y axis for all. most: so
    many beside each other.

    Raises TooManyPanels.
    """
    parts = plan.panels
    places = [tuple(map(sort_key, part["panel"].iloc[0])) for part in parts]
    texts = [titles(plan, part["panel"].iloc[0]) for part in parts]
    count = len(places)
    if count > MAX_PANELS:
        raise TooManyPanels(
            f"{count} panels (by {', '.join(plan.facet)}) do not fit one figure, {MAX_PANELS} do: "
            "choose the panels with --facet KEY [KEY], or some of the runs with --where KEY=VALUE"
        )
    down, across = (sorted({place[axis:][:1] for place in places}) for axis in (0, 1))
    if len(plan.facet) == 2 and style.across(len(across)) == len(across):
        rows, columns = len(down), len(across)
        spots = [down.index(place[:1]) * columns + across.index(place[1:]) for place in places]
    else:
        columns = style.across(min(count, most, 2 if count == 4 else 3))
        rows, spots = math.ceil(count / columns), list(range(count))
    one = shares_legend(plan, count)
    size = (
        (0.7 + 2.0 * columns, 0.7 + 1.7 * rows) if one else (1.0 + 3.1 * columns, 0.7 + 2.2 * rows)
    )
    figure = style.blank(*(size if count > 1 else (5.6, 3.4)))
    panels: list[tuple[Axes, pd.DataFrame]] = []
    for spot, part, text in zip(spots, parts, texts, strict=True):
        share = panels[0][0] if panels and share_y else None
        axes = figure.add_subplot(rows, columns, spot + 1, sharey=share)
        set_title(figure, axes, text, 0.65 if one else 1.3)
        panels.append((axes, part))
    return figure, panels


def set_title(figure: Figure, axes: Axes, texts: Sequence[str], beside: float) -> None:
    """The title of a panel, wrapped to its width; where a key is too long for a line its last
    part stands for it. The whole title is the panel's label, for the caption.

    beside: inches at the size of print that the panel's ticks and its legend take."""
    axes.set_label(", ".join(texts))
    width = max_chars(figure, axes, beside)
    if len(", ".join(texts)) <= width:
        axes.set_title(", ".join(texts), loc="left")
        return
    lines = []
    for text in texts:
        key, equals, value = text.partition(" = ")
        whole = len(text) <= width or not equals
        lines.append(fill(text if whole else f"{key.split('.')[-1]} = {value}", width))
    axes.set_title("\n".join(lines), loc="left")


def max_chars(figure: Figure, axes: Axes, beside: float) -> int:
    """How many letters fit above or below a panel, beside whose axis so many inches are taken."""
    spec = axes.get_subplotspec()
    assert spec is not None
    width = figure.get_figwidth() / spec.get_gridspec().ncols
    return max(8, int(width / style.points(0.06) - beside / 0.06))


def titles(plan: Layout, panel: tuple[Any, ...]) -> list[str]:
    """The panel's value of each key, as in "batch_size = 32"."""
    return [
        show(value) if key == "optimizer" else f"{short_name(key)} = {show(value)}"
        for key, value in zip(plan.facet, panel, strict=True)
    ]


def series_of(runs: pd.DataFrame, plan: Layout) -> list[tuple[str, list[str], style.LineStyle]]:
    """(label, runs, look) of each series of a panel, in the order of `Layout.series_of`."""
    every = plan.runs.drop_duplicates(["optimizer", "series"])
    result = []
    looks = style.looks(map(str, every["optimizer"].unique()))
    for name, text, own in plan.series_of(runs):
        # the place among all panels, so that a setting looks the same in each
        group = every if plan.sequential else every[every["optimizer"] == name]
        ranks = sorted({tuple(map(sort_key, setting)) for setting in group["setting"]})
        setting = tuple(map(sort_key, own["setting"].iloc[0]))
        place, count = ranks.index(setting), len(ranks)
        if not plan.sequential:
            look = style.shade(looks[name], place, count)
        elif any(other[0][0] == 0 for other in ranks if other):  # a number, see `sort_key`
            look = style.sequential_style(place, count)
        else:
            look = style.categorical_style(place)
        result.append((text, sorted(own["run"]), look))
    return result


def series_label(text: str, diverged: int, count: int) -> str:
    """The label of a series, with how many of its runs diverged."""
    return f"{text}\n({diverged} of {count} diverged)" if diverged else text


class LegendEntry(NamedTuple):
    """A series in a legend."""

    end: float  # what legends are sorted by, ascending: minus where the line ends
    text: str
    line: Line2D
    diverged: int
    runs: int


def draw_lines(
    table: pd.DataFrame,
    lines: Lines,
    y: str,
    values: Iterable[float],
    draw: Callable[[Axes, Line, style.LineStyle], Line2D],
) -> tuple[Figure, str]:
    """A figure of lines with its legends, and what is to be said of its y axes.

    y: the column that they show. values: all that is drawn of it. draw: of one line.
    """
    figure, panels = make_panels(lines.plan)
    legends = []
    for (axes, part), own in zip(panels, lines.panels, strict=True):
        entries = []
        for each, (*_, look) in zip(own, series_of(part, lines.plan), strict=True):
            ends = each.mid[np.isfinite(each.mid)]
            best = np.min if metric_of(y).smaller else np.max
            end = float(best(ends)) if len(ends) else metric_of(y).worst
            drawn = draw(axes, each, look)
            entries.append(LegendEntry(-end, each.text, drawn, each.diverged, each.runs))
        legends.append((axes, entries))
    scale = scale_y_for(figure.axes, y, values)
    above = limit_y(figure.axes, table, y, lines.plan.runs["y"])
    log_ticks(figure.axes)
    add_legends(figure, lines.plan, legends)
    return figure, scale + above


def shares_legend(plan: Layout, panels: int) -> bool:
    """Whether one legend above serves all panels: small multiples, and figures for a column."""
    return style.columns() is not None or (panels > 1 and len(plan.facet) == 2)


def add_legends(
    figure: Figure, plan: Layout, panels: Sequence[tuple[Axes, Sequence[LegendEntry]]]
) -> None:
    """Beside each panel, from the highest end to the lowest, as drawn; or one above all panels."""
    if not shares_legend(plan, len(panels)):
        for axes, entries in panels:
            ordered = sorted(entries, key=lambda entry: entry[:2])
            labels = [series_label(entry.text, entry.diverged, entry.runs) for entry in ordered]
            handles = [entry.line for entry in ordered]
            axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return
    groups: dict[str, list[LegendEntry]] = {}
    for _, entries in panels:
        for entry in entries:
            groups.setdefault(entry.text, []).append(entry)
    labels = [
        series_label(text, sum(e.diverged for e in group), sum(e.runs for e in group))
        for text, group in groups.items()
    ]
    legend_above(figure, [group[0].line for group in groups.values()], labels)


def legend_above(figure: Figure, handles: Sequence[Line2D], labels: Sequence[str]) -> None:
    """One legend above all panels, in as many columns as fit; the figure grows by its rows."""
    longest = max(len(line) for label in labels for line in label.split("\n"))
    fitting = int(figure.get_figwidth() / style.points(0.6 + 0.057 * longest))
    columns = max(1, min(len(labels), fitting))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)
    figure.set_figheight(figure.get_figheight() + legend_height(figure))


def legend_height(figure: Figure) -> float:
    """Inches that the legend above all panels takes."""
    return sum(legend.get_window_extent().height for legend in figure.legends) / figure.dpi


def label_panels(figure: Figure, plan: Layout, x: str, y: str, note: str) -> None:
    """Axis labels at the outer panels, and the note that says what lines and bands are."""
    specs = [spec for axes in figure.axes if (spec := axes.get_subplotspec()) is not None]
    for axes in figure.axes:
        spec = axes.get_subplotspec()
        if spec is None:
            continue
        column = spec.colspan.start
        below = [
            s for s in specs if s.colspan.start == column and s.rowspan.stop > spec.rowspan.stop
        ]
        label_axes(figure, axes, "" if below else x, "" if column else y)
    caption(figure, setting_note(plan), note)


def label_axes(figure: Figure, axes: Axes, x: str, y: str) -> None:
    """The names of the axes, wrapped to about the size of the panel."""
    spec = axes.get_subplotspec()
    assert spec is not None
    height = (figure.get_figheight() - legend_height(figure)) / spec.get_gridspec().nrows
    axes.set_xlabel(fill(x, max_chars(figure, axes, 0.65)))
    axes.set_ylabel(fill(y, max(8, int(height / style.points(0.06) - 10))))


def caption(figure: Figure, *lines: str) -> None:
    """The small print below a figure, wrapped to its width, and as the figure's label. On a page
    it is for the caption: there it is not drawn."""
    figure.set_label("; ".join(line for line in lines if line))
    small_print(figure, lines, HELD_LINES)


def small_print(figure: Figure, lines: Sequence[str], room: int) -> int:
    """Lines below a figure, in place of those that are there; the figure grows by what is more than
    `room` of them. Returns how many there are."""
    width = int(20 * figure.get_figwidth() / style.points(1))
    printed = style.columns() is None
    text = "\n".join(fill(line, width) for line in lines if line)
    figure.supxlabel(
        text, fontsize=style.points(SMALL), color="#555555", visible=printed, in_layout=printed
    )
    count = text.count("\n") + 1
    if printed and count > room:
        more = (count - room) * 1.25 * style.points(SMALL) / 72
        figure.set_figheight(figure.get_figheight() + more)
    return count


def add_note(figure: Figure, *texts: str) -> None:
    """More small print, which is no part of the caption."""
    label = str(figure.get_label())
    own = small_print(figure, [label], MAX_LINES)
    small_print(figure, [label, *texts], max(own, HELD_LINES))


def spread_note(counts: Iterable[int], diverged: bool, what: str) -> str:
    """What a line or point with `what` (a band or bars) shows of so many seeds, in words."""
    text = f"median of {seeds_text(counts)}, {what}: min to max"
    return text + (" of those that did not diverge" if diverged else "")


def setting_note(plan: Layout) -> str:
    """What all runs of the figure share, in a few words."""
    words = []
    for key in ("dataset.name", "model.name", "batch_size", "device", "optimizer"):
        if key in plan.runs and key not in plan.facet:
            values = plan.runs[key].map(show).unique()
            if len(values) == 1 and (key != "optimizer" or plan.sequential):
                words.append(f"batch size {values[0]}" if key == "batch_size" else values[0])
    return f"Setting: {', '.join(words)}" if words else ""

"""Parts that figures share: grid of panels, styles of series, legends and labels."""

import math
from collections.abc import Callable, Iterable, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from optbench.analysis.columns import panel_key, short_name
from optbench.analysis.final_values import seeds_text
from optbench.analysis.series import Layout
from optbench.analysis.trials import Line, Lines
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import count, show
from optbench.figures import style
from optbench.figures.axes import (
    CROSS_LABEL,
    label_axes,
    legend_height,
    limit_y,
    log_ticks,
    scale_y_for,
    set_title,
    wrapped,
)
from optbench.figures.looks import handle_of, series_of

MAX_PANELS = 24
SMALL_PRINT_POINTS = 6.5
RESERVED_LINES = 2  # of small print, for which every figure has room
MAX_BESIDE = (0.33, 0.67)  # of a figure's width and height, for a legend beside the panel
MAX_ROWS = 12  # of a legend above the panels, if the figure can become wider
MAX_WIDTH = 9.0  # inches to which such a figure grows
MIN_LABEL = 8  # letters; shorter labels cannot be read


def cross() -> dict[str, Any]:
    """Return the marker style for "diverged here": above the lines, not clipped."""
    return {
        "linestyle": "none",
        "marker": "X",
        "markersize": style.points(6),
        "markeredgecolor": "white",
        "markeredgewidth": style.points(0.6),
        "zorder": 5,
        "clip_on": False,
        "label": CROSS_LABEL,
    }


class TooManyPanels(UserError):
    """An error: too many problems for one figure. Their table can still be made."""


def make_panels(
    plan: Layout, share_y: bool = True, most: int = 3, names: float = 0.0
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """Make a figure of titled, empty panels; return each panel with its runs.

    Two keys make a grid if the page is wide enough, else rows. share_y: one y axis for all.
    most: panels in a row. names: inches beside each panel for the names of rows.
    Raises TooManyPanels.
    """
    parts = plan.panels
    places = [tuple(map(panel_key, part["panel"].iloc[0])) for part in parts]
    texts = [titles(plan, part["panel"].iloc[0]) for part in parts]
    count = len(places)
    if count > MAX_PANELS:
        raise TooManyPanels(
            f"{count} panels (by {', '.join(plan.facet)}) do not fit one figure, {MAX_PANELS} do: "
            "choose the panels with --facet KEY [KEY], or some of the runs with --where KEY=VALUE"
        )
    down, across = (sorted({place[axis:][:1] for place in places}) for axis in (0, 1))
    if len(plan.facet) == 2 and style.across(len(across), names) == len(across):
        rows, columns = len(down), len(across)
        spots = [down.index(place[:1]) * columns + across.index(place[1:]) for place in places]
    else:
        columns = style.across(min(count, most, 2 if count == 4 else 3), names)
        rows, spots = math.ceil(count / columns), list(range(count))
    # in a column of a page long titles take more lines, and would leave little for the panel
    row = 2.0 if style.columns() == 1 else 1.8
    size = (0.7 + (2.3 + names) * columns, 0.7 + row * rows)
    figure = style.blank(*(size if count > 1 else (max(5.6, 3.4 + names), 3.4)))
    panels: list[tuple[Axes, pd.DataFrame]] = []
    for spot, part, text in zip(spots, parts, texts, strict=True):
        share = panels[0][0] if panels and share_y else None
        axes = figure.add_subplot(rows, columns, spot + 1, sharey=share)
        set_title(figure, axes, text, names + (0.75 if count > 1 else 1.3))
        panels.append((axes, part))
    return figure, panels


def titles(plan: Layout, panel: tuple[Any, ...]) -> list[str]:
    """Return the panel's value of each key, as in "batch_size = 32"."""
    return [
        show(value) if key == "optimizer" else f"{short_name(key)} = {show(value)}"
        for key, value in zip(plan.facet, panel, strict=True)
    ]


def series_label(text: str, diverged: int, count: int) -> str:
    """Return the label of a series, with the number of diverged runs."""
    return f"{text}\n({diverged} of {count} diverged)" if diverged else text


class LegendEntry(NamedTuple):
    """A series in a legend."""

    end: float  # ascending sort key: minus the value at which the line ends, or minus its best
    text: str
    line: Line2D
    diverged: int
    runs: int
    look: style.LineStyle


def draw_lines(
    table: pd.DataFrame,
    lines: Lines,
    y: str,
    values: Iterable[float],
    draw: Callable[[Axes, Line, style.LineStyle], Line2D],
) -> tuple[Figure, str]:
    """Draw a figure of lines with legends; return it with the note on the y axes.

    y: the column shown. values: all numbers drawn. draw: draws one line.
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
            entries.append(LegendEntry(-end, each.text, drawn, each.diverged, each.runs, look))
        legends.append((axes, entries))
    scale = scale_y_for(figure.axes, y, values)
    above = limit_y(figure.axes, table, y, lines.plan.runs["y"])
    log_ticks(figure.axes)
    add_legends(figure, lines.plan, legends)
    return figure, scale + above


def add_legends(
    figure: Figure, plan: Layout, panels: Sequence[tuple[Axes, Sequence[LegendEntry]]]
) -> None:
    """Add one legend for all panels.
    A numeric setting sorts by number, a lone panel by the lines' ends, others by name."""
    groups: dict[str, list[LegendEntry]] = {}
    for _, entries in panels:
        ordered = len(panels) > 1 or plan.ordered
        for entry in entries if ordered else sorted(entries, key=lambda entry: entry[:2]):
            groups.setdefault(entry.text, []).append(entry)
    labels = [
        series_label(text, sum(e.diverged for e in group), sum(e.runs for e in group))
        for text, group in groups.items()
    ]
    handles = [handle_of(group[0].line, [e.look for e in group]) for group in groups.values()]
    add_legend(figure, handles, labels)


def add_legend(
    figure: Figure, handles: Sequence[Line2D], labels: Sequence[str], title: str | None = None
) -> None:
    """Add a legend beside the only panel if there is room, else above all panels.
    Above, the legend has as many columns as fit, and the figure grows by the rows."""
    rows = [row for label in labels for row in label.split("\n")]
    longest = max(map(len, rows))
    if (
        len(figure.axes) == 1
        and style.columns() is None
        and style.points(0.15 * len(rows)) <= MAX_BESIDE[1] * figure.get_figheight()
        and style.points(0.4 + 0.055 * longest) <= MAX_BESIDE[0] * figure.get_figwidth()
    ):
        axes = figure.axes[0]
        axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), title=title)
        return

    def above(columns: int) -> Legend:
        return figure.legend(
            handles, labels, loc="outside upper center", ncols=columns, title=title
        )

    legend = above(1)
    gap = legend.columnspacing * float(rcParams["legend.fontsize"]) * figure.dpi / 72
    if style.columns() is None:  # a wider figure leaves room below many long names
        wanted = math.ceil(len(rows) / MAX_ROWS) * (legend.get_window_extent().width + gap)
        most = style.scaled(MAX_WIDTH)
        figure.set_figwidth(max(figure.get_figwidth(), min(wanted / figure.dpi, most)))
    room = 0.98 * figure.bbox.width
    while legend.get_window_extent().width > room and longest > MIN_LABEL:
        longest -= 2
        labels = [wrapped(label, longest) for label in labels]
        legend.remove()
        legend = above(1)
    fitting = int((room + gap) / (legend.get_window_extent().width + gap))
    lines = math.ceil(len(labels) / max(1, fitting))
    legend.remove()
    above(math.ceil(len(labels) / lines))
    figure.set_figheight(figure.get_figheight() + legend_height(figure))


def label_panels(figure: Figure, plan: Layout, x: str, y: str, note: str) -> None:
    """Label the axes of outer panels, and add the note on lines and bands."""
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


def caption(figure: Figure, *lines: str) -> None:
    """Set a figure's small print below, wrapped, and the figure's label.
    For a page the small print belongs in the caption and is not drawn."""
    figure.set_label("; ".join(line for line in lines if line))
    small_print(figure, lines)


def small_print(figure: Figure, lines: Sequence[str]) -> None:
    """Replace the lines below a figure; the figure grows if there are more lines."""
    text = "\n".join(fill(line, print_width(figure)) for line in lines if line)
    more = text.count("\n") - max(RESERVED_LINES - 1, figure.get_supxlabel().count("\n"))
    printed = style.columns() is None
    size = style.points(SMALL_PRINT_POINTS)
    figure.supxlabel(text, fontsize=size, color="#555555", visible=printed, in_layout=printed)
    if printed and more > 0:
        figure.set_figheight(figure.get_figheight() + more * 1.25 * size / 72)


def print_width(figure: Figure) -> int:
    """Return the number of letters in a line of small print."""
    return int(20 * figure.get_figwidth() / style.points(1))


def add_note(figure: Figure, text: str) -> None:
    """Add a sentence to a figure's caption and to its small print."""
    figure.set_label("; ".join(part for part in (str(figure.get_label()), text) if part))
    small_print(figure, [*figure.get_supxlabel().split("\n"), text])


def add_warning(figure: Figure, warnings: Sequence[str], file: str) -> None:
    """Add a warning to the small print, or the name of the file with all warnings.

    A warning itself is added only if it is the only one and fits one line.
    """
    line = f"Warning: {warnings[0]}"
    if len(warnings) > 1 or len(line) > print_width(figure):
        line = f"{count(len(warnings), 'warning')}: see {file}"
    small_print(figure, [*figure.get_supxlabel().split("\n"), line])


def spread_note(counts: Iterable[int], diverged: bool, what: str) -> str:
    """Return in words that a line is a median, and `what` (a band, bars) the range."""
    text = f"median of {seeds_text(counts)}, {what}: min to max"
    return text + (" of those that did not diverge" if diverged else "")


SETTINGS = {  # named below a figure where all of its runs share them
    "dataset.name": "{}", "data.subset": "subset of {} examples", "model.name": "{}",
    "batch_size": "batch size {}", "device": "{}", "optimizer": "{}",
}  # fmt: skip


def setting_note(plan: Layout) -> str:
    """Return the settings that all runs of the figure share, in a few words."""
    words = []
    for key, form in SETTINGS.items():
        if key in plan.runs and key not in plan.facet:
            values = plan.runs[key].map(show).unique()
            if len(values) == 1 and values[0] != "null" and (key != "optimizer" or plan.sequential):
                words.append(form.format(values[0]))
    return f"Setting: {', '.join(words)}" if words else ""

"""Curves of a logged column: a pure function from the tidy table to a figure.

The model is figure 2 of Kingma and Ba (2015): training loss against passes over the dataset, a line
per optimizer. A line is the median over the seeds of a series, and a band their spread. A diverged
run counts as infinitely bad from its divergence on.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.final_values import timing_note, untrained_limit
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import show
from optbench.figures import style
from optbench.figures.axes import (
    CROSS_LABEL,
    check_column,
    end_at_data,
    limit_words,
    log_ticks,
    set_log_y,
    set_percent,
    y_label,
)
from optbench.figures.looks import series_of
from optbench.figures.panels import (
    LegendEntry,
    add_legends,
    cross,
    label_panels,
    make_panels,
    spread_note,
)
from optbench.formats.run import COUNTED
from optbench.stats.estimates import median, median_along

MIN_ROWS_TO_SKIP = 5  # of each line: of fewer, little would be left to see
X_LABELS = {
    "epoch": "passes over the training set (epochs)",
    "step": "optimizer steps (mini-batches)",
    "seconds": "training time (s)",
    "gradients": "gradient evaluations (mini-batches)",
    "forwards": "forward passes (mini-batches)",
}
REFERENCE_NOTE = "dotted line: the least-squares solution, below which no run can come"
LEAST_REFERENCE = 1e-2  # share of the lowest drawn value; no reference is drawn below it
MAX_BANDS = 7  # of one panel; more cover each other


class Curve(NamedTuple):
    """One series: the median and extremes over the seeds, at the steps of its rows."""

    x: np.ndarray
    median: np.ndarray  # over all seeds; NaN if not finite
    low: np.ndarray  # over the seeds that did not diverge, or over all if all did
    high: np.ndarray
    final: float  # the last median; infinitely bad if half of the seeds diverged
    ends: list[tuple[float, float]]  # the last finite point of each diverged run
    seeds: int
    diverged: int


class Scale(NamedTuple):
    """What a reader must know about y axes with a common scale."""

    note: str = ""  # the note of `set_log_y`
    above: int = 0  # number of lines that go above the axis
    limit: str = ""  # where the axis ends in that case, in words


def curves(
    runs_of: Runs,
    y: str = "train_loss",
    x: str = "epoch",
    facet: Sequence[str] | None = None,
    lines: str | None = None,
    log: bool | None = None,
    rows: str = "epochs",
) -> Figure:
    """Draw `y` against `x`, a panel per problem.

    x: "epoch", "step", "seconds", "gradients" or "forwards". facet: config keys of the panels (two:
    a grid), by default those that tell problems apart. lines: the config key that makes the lines,
    by default the optimizer and its settings. log: whether y is logarithmic, by default
    `metric_of(y).log`. rows: "epochs" or "steps", a CSV file. Against seconds, runs whose times are
    not comparable are left out. A panel without a value of y is left out, and the caption says so.
    Raises UserError for unknown names and for panels that would mix problems.
    """
    made = comparison_of(runs_of)
    table = made.rows(rows)
    check_column(table, y)
    if x not in X_LABELS:
        raise UserError(f"cannot draw against {x!r}; allowed: {', '.join(X_LABELS)}")
    if x in COUNTED and (x not in table or table[x].isna().any()):
        raise UserError(
            f"cannot draw against {x}: some of these runs are of an earlier version, which "
            "did not count them; force=true repeats them"
        )
    plan = made.spread(facet, lines)
    log = metric_of(y).log if log is None else log
    at = table.groupby("run", observed=True).indices
    shown: list[Curve] = []
    scales: list[Scale] = []
    references: list[float] = []
    drawn = plan.runs[plan.runs["run"].isin(set(at))]
    if x == "seconds":
        drawn = drawn[~drawn["run"].isin(made.timing.untimed)]
    drawn, empty = with_values(table, drawn, y)
    share = can_share_y(table, drawn, y)
    with style.rc():
        figure, panels = make_panels(plan._replace(runs=drawn), share)
        legends, crowded = [], False
        for axes, runs in panels:
            series = []
            for text, members, look in series_of(runs, plan):
                own = table.iloc[np.concatenate([at[run] for run in members])]
                series.append((text, look, aggregate(own, y, x)))
            legends.append((axes, draw_panel(axes, series, metric_of(y).smaller)))
            least = reference_of_panel(table, runs, y)
            if least is not None:
                draw_reference(axes, least)
                references.append(least)
            crowded |= len(series) > MAX_BANDS
            inside = [curve for *_, curve in series]
            shown += inside
            if not share:
                scales.append(set_scale([axes], log, y, inside, [] if least is None else [least]))
        for axes, _ in panels:
            end_at_data(axes)
            if x == "epoch":
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=(1, 2, 5, 10)))
        if share:
            scales.append(set_scale([axes for axes, _ in panels], log, y, shown, references))
        log_ticks([axes for axes, _ in panels])
        add_legends(figure, plan, legends)
        text = seeds_note(shown, crowded) + ("" if share else "; each panel has its own y axis")
        text += f"; left out, without values: {', '.join(empty)}" if empty else ""
        text += scale_note(scales)
        if "stopped" in drawn and drawn["stopped"].notna().any():
            where = "its runs ended" if x == "seconds" else "the first of its runs ended early"
            text += f"; a line ends where {where}"
        if references:
            text += f"; {REFERENCE_NOTE}"
        if x == "seconds":
            notes = (made.timing.sentence, timing_note(made.costs))
            text += "".join(f"; {note}" for note in notes if note)
        label_panels(figure, plan, X_LABELS[x], y_label(table, y), text)
    return figure


def aggregate(rows: pd.DataFrame, y: str, x: str) -> Curve:
    """Return median, minimum and maximum over the runs in `rows`, aligned by step.

    Against seconds, runs whose steps differ in number have one point more: their last rows. So the
    line of an equal budget in seconds ends at the budget, with the final values.
    """
    runs = list(rows.groupby("run", observed=True, sort=False).indices.values())
    all_steps, all_x, all_y = (rows[name].to_numpy(dtype=float) for name in ("step", x, y))
    all_lost = (rows["status"] == "diverged").to_numpy()
    lost = np.array([all_lost[run[0]] for run in runs])
    logged = [all_steps[run] for run in runs]
    complete = [steps for steps, diverged in zip(logged, lost, strict=True) if not diverged]
    if x == "seconds" and len({steps[-1] for steps in complete}) > 1:
        complete = [np.append(steps[:-1], math.inf) for steps in complete]  # inf: the last row
        ended = iter(complete)
        logged = [own if gone else next(ended) for own, gone in zip(logged, lost, strict=True)]
    # A diverged run may end at a step that no other run logged: the grid leaves out that step.
    grid = complete[0] if complete else max(logged, key=len)
    for steps in complete[1:]:
        grid = np.intersect1d(grid, steps)
    values = np.full((len(runs), len(grid)), metric_of(y).worst)  # (runs, grid)
    places = np.full((len(runs), len(grid)), math.nan)
    ends = []
    for index, (run, steps) in enumerate(zip(runs, logged, strict=True)):
        xs, ys = all_x[run], all_y[run]
        at = np.searchsorted(steps, grid).clip(max=len(steps) - 1)
        found = steps[at] == grid
        values[index, found] = np.where(np.isnan(ys), metric_of(y).worst, ys)[at[found]]
        places[index, found] = xs[at[found]]
        finite = np.flatnonzero(np.isfinite(ys))
        if lost[index] and len(finite):
            ends.append((float(xs[finite[-1]]), float(ys[finite[-1]])))
    middle = median_along(values, axis=0)
    # A diverging run shoots up. Its cross shows that, and the band would hide the other runs.
    banded = values[~lost] if complete else values
    finite = np.isfinite(banded)
    low = np.where(finite, banded, math.inf).min(axis=0)
    high = np.where(finite, banded, -math.inf).max(axis=0)
    drawn = np.isfinite(middle)
    parts = [np.where(drawn & np.isfinite(part), part, math.nan) for part in (middle, low, high)]
    diverged = int(lost.sum())
    final = metric_of(y).worst if 2 * diverged >= len(runs) else float(middle[-1])
    # The grid consists of existing rows, so at least one run has each step.
    x_values = np.nanmedian(places, axis=0)
    return Curve(x_values, parts[0], parts[1], parts[2], final, sorted(ends), len(runs), diverged)


def reference_of_panel(table: pd.DataFrame, runs: pd.DataFrame, y: str) -> float | None:
    """Return the least training loss of a panel's only problem, or None.

    None also for a value far below all lines, as of data that a linear model fits exactly: its line
    would squeeze the others.
    """
    problems = set(map(str, runs["problem"]))
    found = table.attrs.get("references", {})
    if y != "train_loss" or table.attrs.get("rows", "epochs") != "epochs" or len(problems) != 1:
        return None
    least = found.get(problems.pop())
    values = table.loc[table["run"].isin(set(runs["run"])), y]
    values = values[np.isfinite(values)]
    far = least is None or values.empty or least < LEAST_REFERENCE * float(values.min())
    return None if far else least


def draw_reference(axes: Axes, least: float) -> None:
    """Draw and name the line below which no run of the panel's problem can come."""
    axes.axhline(least, color="0.35", linewidth=style.points(0.7), linestyle=(0, (1, 2)), zorder=1)
    axes.annotate(
        "least squares",
        (0.99, least),
        xycoords=("axes fraction", "data"),
        xytext=(0, -1),
        textcoords="offset points",
        ha="right",
        va="top",  # below the line, where no curve is
        fontsize=style.points(6),
        color="0.35",
        zorder=4,
    )


def draw_panel(
    axes: Axes, series: Sequence[tuple[str, style.LineStyle, Curve]], smaller: bool = True
) -> list[LegendEntry]:
    """Draw the lines of one panel; return their legend entries.

    Of more than `MAX_BANDS` lines, only the best at the end has a band. smaller: whether small
    values are good.
    """
    legend = []
    finals = [curve.final for *_, curve in series]
    best = (min if smaller else max)(finals, default=math.nan)
    for index, (text, look, curve) in enumerate(series):
        # Seven markers a line, at different places from line to line.
        every = max(1, int(np.isfinite(curve.median).sum()) // 7)
        (line,) = axes.plot(
            curve.x,
            curve.median,
            color=look.color,
            linestyle=look.dashes,
            marker=look.marker,
            markevery=(index * every // 5 % every, every),
            markeredgewidth=0.9,
            linewidth=style.points(1.3 if len(curve.x) < 100 else 0.7),
            label=text,
            zorder=3,
        )
        if curve.seeds > 1 and (len(series) <= MAX_BANDS or curve.final == best):
            axes.fill_between(
                curve.x, curve.low, curve.high, color=look.color, alpha=0.16, linewidth=0, zorder=2
            )
        if curve.ends:
            axes.plot(*zip(*curve.ends, strict=True), **cross(), color=look.color)
        end = math.inf if math.isnan(curve.final) else -curve.final
        legend.append(LegendEntry(end, text, line, curve.diverged, curve.seeds, look))
    return legend


def with_values(table: pd.DataFrame, runs: pd.DataFrame, y: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs of panels with a value of y, and the other panels in words."""
    known = set(table["run"][table[y].notna()])
    panels = runs["panel"].map(str)
    full = panels.isin(set(panels[runs["run"].isin(known)]))
    if full.all() or not full.any():
        return runs, []
    return runs[full], sorted({", ".join(map(show, panel)) for panel in runs["panel"][~full]})


def can_share_y(table: pd.DataFrame, runs: pd.DataFrame, y: str) -> bool:
    """Return whether the panels can share a y axis.
    The runs must start within a factor of ten; from 0 or below, within ten times their change.
    Values of different losses share none."""
    names = [key for key in ("loss.name", "loss") if key in runs]
    if y.endswith("_loss") and names and len(runs[names[0]].map(str).unique()) > 1:
        return False
    by_run = table.dropna(subset=[y]).groupby("run", observed=True)[y]
    starts = by_run.first().reindex(runs["run"]).groupby(list(map(str, runs["panel"]))).median()
    starts = starts[np.isfinite(starts)]
    if not len(starts):
        return True
    if starts.min() > 0:
        return bool(starts.max() <= 10 * starts.min())
    change = (by_run.first() - by_run.last()).abs()
    change = change.reindex(runs["run"]).groupby(list(map(str, runs["panel"]))).median()
    return bool(starts.max() - starts.min() <= 10 * change[np.isfinite(change)].min())


def set_scale(
    panels: Sequence[Axes], log: bool, y: str, shown: Sequence[Curve], references: Sequence[float]
) -> Scale:
    """Set the y axes: per cent for accuracies, and a limit for losses.
    The limit keeps a run that blew up, or starts far above the usual, from squeezing the others.
    references: further values that are drawn."""
    top = np.concatenate([[*curve.high, *(end for _, end in curve.ends)] for curve in shown])
    top = top[np.isfinite(top)]
    bottom = np.concatenate([[*curve.low, *(end for _, end in curve.ends)] for curve in shown])
    bottom = np.array([*bottom[np.isfinite(bottom)], *references])
    words = set_log_y(panels, [*bottom, *top]) if log else ""
    if metric_of(y).percent:
        for axes in panels:
            set_percent(axes)
        return Scale(words + skip_first_rise(panels, shown, bottom, top))
    starts = np.array([next(iter(c.high[np.isfinite(c.high)]), math.nan) for c in shown])
    starts = starts[np.isfinite(starts)]
    if not len(starts) or not len(bottom) or not panels:
        return Scale(words)
    linear = panels[0].get_yscale() == "linear"
    least = float(bottom.min())
    limit = untrained_limit(float(median(starts)), least, 2 if linear else 4)
    if not limit < top.max():
        return Scale(words)
    for axes in panels:
        # The lower margin was a share of the range that is cut off now.
        log_low = least / 1.3 if least > 0 else axes.get_ylim()[0]
        axes.set_ylim(least - 0.05 * (limit - least) if linear else log_low, limit)
        for line in axes.lines:
            if line.get_label() == CROSS_LABEL:
                line.set_ydata(np.minimum(np.asarray(line.get_ydata(), dtype=float), limit))
    above = sum(bool((curve.median > limit).any()) for curve in shown)
    return Scale(words, above, limit_words(least < 0, "twice" if linear else "four times"))


def skip_first_rise(
    panels: Sequence[Axes], shown: Sequence[Curve], bottom: np.ndarray, top: np.ndarray
) -> str:
    """Begin accuracy axes at the lowest value after the first quarter of the rows.

    Otherwise lines that rise from below would squeeze their differences. The bands at the end are
    whole. Returns a note.
    """
    ended = [curve for curve in shown if math.isfinite(curve.final)] or shown
    if min(len(curve.median) for curve in ended) < MIN_ROWS_TO_SKIP:
        return ""
    late = np.concatenate(
        [curve.median[math.ceil(len(curve.median) / 4) :] for curve in ended]
        + [curve.low[-1:] for curve in ended]  # the last band is what the tables tell
    )
    late = late[np.isfinite(late)]
    if not len(late) or late.min() < bottom.min() + (top.max() - bottom.min()) / 4:
        return ""
    if late.min() >= top.max():
        return ""  # one late value makes no range
    margin = 0.05 * float(top.max() - late.min())
    low = float(late.min()) - margin
    for axes in panels:
        axes.set_ylim(low, float(top.max()) + margin)
        for line in axes.lines:
            if line.get_label() == CROSS_LABEL:
                line.set_ydata(np.maximum(np.asarray(line.get_ydata(), dtype=float), low))
    cut = any(curve.low[len(curve.low) // 4 :].min() < low for curve in ended)
    return "; the axis leaves out the first rise of the lines" + " and some of the bands" * cut


def scale_note(scales: Sequence[Scale]) -> str:
    """Return the notes on the y axes, with a count of lines that go above them."""
    text = "".join(dict.fromkeys(scale.note for scale in scales))
    for limit in dict.fromkeys(scale.limit for scale in scales if scale.above):
        above = sum(scale.above for scale in scales if scale.limit == limit)
        text += f"; {above} line{' goes' if above == 1 else 's go'} above the axis, which ends "
        text += limit
    return text


def seeds_note(shown: Sequence[Curve], crowded: bool = False) -> str:
    """Return the number of seeds and the spread in words.

    crowded: whether bands are left out.
    """
    counts = [curve.seeds for curve in shown]
    diverged = any(curve.diverged for curve in shown)
    if max(counts) == 1:
        text = "one seed per line" if len(shown) > 1 else "one seed"
        return text + ("; ✖ diverged" if diverged else "")
    band = (
        f"band (in panels of more than {MAX_BANDS} lines only of the best)" if crowded else "band"
    )
    text = spread_note(counts, diverged, band)
    return text + ("; ✖ diverged, counted as infinitely bad from there" if diverged else "")

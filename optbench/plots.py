"""Pure functions from the tidy table to matplotlib figures, without pyplot's global state.

The model is figure 2 of Kingma and Ba (2015): the training cost against passes over the dataset,
one line per optimizer. A line is the median over the seeds of one series and its band their
spread; a diverged run counts as infinitely bad from its divergence on.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import ScaledTranslation

from optbench import style
from optbench.errors import UserError
from optbench.table import (
    Layout,
    final_values,
    layout,
    measured_columns,
    median,
    order,
    resolve,
    short,
    show,
    worst,
)

X_LABELS = {
    "epoch": "passes over the training set (epochs)",
    "step": "optimizer steps (mini-batches)",
    "seconds": "training time (s)",
}


class Curve(NamedTuple):
    """One series: the median and the extremes over its seeds, at the rows that they share."""

    x: np.ndarray
    median: np.ndarray  # over all seeds; NaN where it is not finite
    low: np.ndarray  # over the seeds that did not diverge (all, where all did)
    high: np.ndarray
    final: float  # the last median; infinitely bad where half of the seeds diverged
    ends: list[tuple[float, float]]  # the last finite point of each diverged run
    seeds: int
    diverged: int


def aggregate(rows: pd.DataFrame, y: str, x: str) -> Curve:
    """Median, minimum and maximum over the runs in `rows`, aligned by step."""
    runs = []
    for _, run in rows.groupby("run", observed=True, sort=False):
        steps, xs, ys = (run[name].to_numpy(dtype=float) for name in ("step", x, y))
        runs.append((steps, xs, ys, run["status"].iloc[0] == "diverged"))
    complete = [steps for steps, _, _, diverged in runs if not diverged]
    # a diverged run may end at a step at which no other logged: it does not add to the grid
    grid = complete[0] if complete else max((steps for steps, *_ in runs), key=len)
    for steps in complete[1:]:
        grid = np.intersect1d(grid, steps)
    values = np.full((len(runs), len(grid)), worst(y))  # (runs, grid)
    places = np.full((len(runs), len(grid)), math.nan)
    ends = []
    for index, (steps, xs, ys, diverged) in enumerate(runs):
        at = np.searchsorted(steps, grid).clip(max=len(steps) - 1)
        found = steps[at] == grid
        values[index, found] = np.where(np.isnan(ys), worst(y), ys)[at[found]]
        places[index, found] = xs[at[found]]
        finite = np.flatnonzero(np.isfinite(ys))
        if diverged and len(finite):
            ends.append((float(xs[finite[-1]]), float(ys[finite[-1]])))
    middle = median(values, axis=0)
    # a run that is about to diverge shoots up: its cross tells that, the band would hide the rest
    banded = values[[not run[3] for run in runs]] if complete else values
    finite = np.isfinite(banded)
    low = np.where(finite, banded, math.inf).min(axis=0)
    high = np.where(finite, banded, -math.inf).max(axis=0)
    drawn = np.isfinite(middle)
    parts = [np.where(drawn & np.isfinite(part), part, math.nan) for part in (middle, low, high)]
    lost = len(runs) - len(complete)
    final = worst(y) if 2 * lost >= len(runs) else float(middle[-1])
    # the grid is made of rows that exist, so at least one run has each
    x_values = np.nanmedian(places, axis=0)
    return Curve(x_values, parts[0], parts[1], parts[2], final, sorted(ends), len(runs), lost)


def check_column(table: pd.DataFrame, y: str) -> None:
    """Raise UserError unless column `y` was logged and holds a number."""
    columns = [name for name in measured_columns(table) if name not in ("step", "epoch")]
    if y not in columns:
        raise UserError(f"no logged column {y!r}; there are: {', '.join(columns)}")
    if not np.isfinite(table[y]).any():
        raise UserError(f"column {y!r} holds no finite number in these runs (no such split?)")


def curves(
    table: pd.DataFrame,
    y: str = "train_loss",
    x: str = "epoch",
    facet: Sequence[str] | None = None,
    lines: str | None = None,
    log: bool | None = None,
) -> Figure:
    """`y` against `x` ("epoch", "step" or "seconds"), a line per series, a panel per problem.

    facet: config keys that make the panels (two: a grid); by default those in which the problems
    differ. lines: the config key that makes the lines; by default the optimizer and its settings.
    log: logarithmic y; by default for everything but accuracies and seconds.
    Raises UserError for unknown names and for panels that would mix problems.
    """
    check_column(table, y)
    if x not in X_LABELS:
        raise UserError(f"cannot draw against {x!r}; allowed: {', '.join(X_LABELS)}")
    plan = layout(table, facet, lines)
    log = default_log(y) if log is None else log
    at = table.groupby("run", observed=True).indices
    with rc_context(style.RC):
        figure, panels = make_panels(plan)
        shown = [
            draw_panel(
                axes, runs, {run: table.iloc[at[run]] for run in runs["run"]}, y, x, log, plan
            )
            for axes, runs in panels
        ]
        set_scale([axes for axes, _ in panels], log, y, shown)
        finish(figure, plan, X_LABELS[x], y_label(table, y), note(shown))
    return figure


def default_log(y: str) -> bool:
    return "accuracy" not in y and "seconds" not in y


def draw_panel(
    axes: Axes,
    runs: pd.DataFrame,
    rows: dict[str, pd.DataFrame],
    y: str,
    x: str,
    log: bool,
    plan: Layout,
) -> list[Curve]:
    """The lines of one panel and their legend, in the order in which the lines end."""
    legend = []
    drawn = []
    for index, (text, members, looks) in enumerate(series_of(runs, plan)):
        curve = aggregate(pd.concat([rows[run] for run in members]), y, x)
        line_y, low, high = (
            np.where(part > 0, part, math.nan) if log else part
            for part in (curve.median, curve.low, curve.high)
        )
        filled = np.flatnonzero(np.isfinite(line_y))
        every = max(1, len(filled) // 7)
        (line,) = axes.plot(
            curve.x,
            line_y,
            color=looks.color,
            linestyle=looks.dashes,
            marker=looks.marker,
            markevery=(index * every // 5 % every if every > 1 else 0, every),
            markerfacecolor="white" if index % 2 else looks.color,
            markeredgewidth=0.9,
            linewidth=1.3 if len(curve.x) < 100 else 0.7,
            label=text,
            zorder=3,
        )
        if curve.seeds > 1:
            axes.fill_between(
                curve.x, low, high, color=looks.color, alpha=0.16, linewidth=0, zorder=2
            )
        ends = [(a, b) for a, b in curve.ends if b > 0 or not log]
        if ends:
            axes.plot(*zip(*ends, strict=True), **MARK, color=looks.color)
        if curve.diverged:
            line.set_label(f"{text}\n({curve.diverged} of {curve.seeds} diverged)")
        legend.append((math.inf if math.isnan(curve.final) else -curve.final, text, line))
        drawn.append(curve)
    add_legend(axes, legend)
    return drawn


def add_legend(axes: Axes, lines: list[tuple[float, str, Line2D]]) -> None:
    """Beside the panel, by the first element: from the highest end to the lowest, as drawn."""
    handles = [line for *_, line in sorted(lines, key=lambda item: item[:2])]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))


# a cross that says "diverged here", above the lines and not cut at the edge
MARK: dict[str, Any] = {
    "linestyle": "none",
    "marker": "X",
    "markersize": 6,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "zorder": 5,
    "clip_on": False,
    "label": "_diverged",
}


def series_of(runs: pd.DataFrame, plan: Layout) -> list[tuple[str, list[str], style.Look]]:
    """(label, runs, look) of each series of a panel, by name and setting."""
    found: dict[tuple[str, str], list[str]] = {}
    keys: dict[tuple[str, str], tuple[Any, ...]] = {}
    for run, name, text, setting in zip(
        runs["run"], runs["optimizer"], runs["series"], runs["setting"], strict=True
    ):
        found.setdefault((name, text), []).append(run)
        keys[name, text] = tuple(map(order, setting))
    every = plan.runs.drop_duplicates(["optimizer", "series"])
    result = []
    for name, text in sorted(found, key=lambda key: (key[0], keys[key], key[1])):
        # rank among all panels, so that a setting looks the same in each
        group = every if plan.sequential else every[every["optimizer"] == name]
        ranks = sorted({tuple(map(order, setting)) for setting in group["setting"]})
        numbers = any(rank[0][0] == 0 for rank in ranks if rank)  # see `order`
        look = (style.ramp if numbers else style.choice) if plan.sequential else None
        place = ranks.index(keys[name, text])
        looks = (
            look(place, len(ranks)) if look else style.shade(style.look(name), place, len(ranks))
        )
        result.append((text, sorted(found[name, text]), looks))
    return result


def make_panels(plan: Layout) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with titled, empty panels: a grid for two keys, otherwise wrapped rows."""
    groups: dict[tuple[Any, ...], tuple[tuple[Any, ...], pd.DataFrame]] = {}
    for panel in plan.runs["panel"].drop_duplicates():
        groups[tuple(map(order, panel))] = (
            panel,
            plan.runs[plan.runs["panel"].map(lambda other, own=panel: same_panel(other, own))],
        )
    ordered = [groups[key] for key in sorted(groups)]
    if len(plan.facet) == 2:
        down, across = (sorted({order(panel[axis]) for panel, _ in ordered}) for axis in (0, 1))
        rows, columns = len(down), len(across)
        spots = [
            down.index(order(panel[0])) * columns + across.index(order(panel[1]))
            for panel, _ in ordered
        ]
    else:
        columns = min(len(ordered), 3 if len(ordered) != 4 else 2)
        rows, spots = -(-len(ordered) // columns), list(range(len(ordered)))
    one = len(ordered) == 1
    size = (5.6, 3.4) if one else (1.0 + 3.1 * columns, 0.7 + 2.2 * rows)
    figure = Figure(figsize=size, layout="constrained")
    wide = max(len(", ".join(titles(plan, panel))) for panel, _ in ordered) > 36
    panels: list[tuple[Axes, pd.DataFrame]] = []
    for spot, (panel, runs) in zip(spots, ordered, strict=True):
        share = panels[0][0] if panels else None
        axes = figure.add_subplot(rows, columns, spot + 1, sharey=share)
        axes.set_title(("\n" if wide else ", ").join(titles(plan, panel)), loc="left")
        panels.append((axes, runs))
    return figure, panels


def titles(plan: Layout, panel: tuple[Any, ...]) -> list[str]:
    return [
        show(value) if key == "optimizer" else f"{short(key)} = {show(value)}"
        for key, value in zip(plan.facet, panel, strict=True)
    ]


def same_panel(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return tuple(map(order, one)) == tuple(map(order, other))


def set_scale(panels: Sequence[Axes], log: bool, y: str, shown: Sequence[Sequence[Curve]]) -> None:
    """The y axis: per cent for accuracies; a run that blew up does not squeeze the others."""
    all_curves = [curve for panel in shown for curve in panel]
    tops = [np.concatenate([c.high, [end for _, end in c.ends]]) for c in all_curves]
    top = np.concatenate(tops)
    top = top[np.isfinite(top) & ((top > 0) | (not log))]
    starts = [c.high[0] for c in all_curves if len(c.high) and np.isfinite(c.high[0])]
    limit = (4 if log else 2) * max(starts, default=math.inf)
    for axes in panels:
        if log and len(top):
            axes.set_yscale("log", nonpositive="mask")
        if "accuracy" in y:
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        elif len(top) and 0 < limit < top.max():
            axes.set_ylim(top=limit)
            for line in axes.lines:
                if line.get_label() == "_diverged":
                    line.set_ydata(np.minimum(np.asarray(line.get_ydata(), dtype=float), limit))


def finish(figure: Figure, plan: Layout, x: str, y: str, note: str) -> None:
    """Axis labels at the outer panels, and the note that says what lines and bands are."""
    panels = figure.axes
    for axes in panels:
        spec = axes.get_subplotspec()
        if spec is None:
            continue
        grid = spec.get_gridspec()
        below = spec.rowspan.stop == grid.nrows or len(panels) <= spec.num1 + grid.ncols
        if below or len(plan.facet) == 2:
            axes.set_xlabel(x)
        if spec.colspan.start == 0:
            axes.set_ylabel(y)
    figure.supxlabel(f"{context(plan)}\n{note}", fontsize=6.5, color="#555555")


def note(shown: Sequence[Sequence[Curve]]) -> str:
    """n and the spread, in words."""
    every = [curve for panel in shown for curve in panel]
    low, high = min(curve.seeds for curve in every), max(curve.seeds for curve in every)
    if high == 1:
        text = "one seed per line" if len(every) > 1 else "one seed"
        return text + ("; ✖ diverged" if every and any(curve.diverged for curve in every) else "")
    text = f"median of {low if low == high else f'{low} to {high}'} seeds, band: min to max"
    if any(curve.diverged for curve in every):
        text += " of those that did not diverge; ✖ diverged, counted as infinitely bad from there"
    return text


def context(plan: Layout) -> str:
    """What all runs of the figure share, in a few words."""
    words = []
    for key, text in (
        ("dataset.name", "{}"),
        ("model.name", "{}"),
        ("batch_size", "batch size {}"),
        ("device", "{}"),
        ("optimizer", "{}"),
    ):
        if key in plan.runs and key not in plan.facet:
            values = plan.runs[key].map(show).unique()
            if len(values) == 1 and (key != "optimizer" or plan.sequential):
                words.append(text.format(values[0]))
    return ", ".join(words)


def y_label(table: pd.DataFrame, y: str) -> str:
    """The name of a logged column with its unit."""
    if "accuracy" in y:
        split = {"train": "training", "val": "validation"}
        return " ".join(split.get(word, word) for word in y.split("_")) + " (%)"
    batch = table.attrs.get("rows") == "steps"
    names = {
        "train_loss": "mini-batch training loss" if batch else "training cost",
        "running_loss": "running training loss",
        "val_loss": "validation loss",
        "test_loss": "test loss",
        "lr": "learning rate",
        "seconds": "training time (s)",
        "total_seconds": "total time (s)",
    }
    text = names.get(y, y)
    named = "loss.name" in table and "loss" in y
    losses = list(table["loss.name"].unique()) if named else []
    if len(losses) == 1:
        loss = show(losses[0]).replace("_", " ")
        text += f" ({loss}, nats)" if loss == "cross entropy" else f" ({loss})"
    return text


# ---------------------------------------------------------------------------- sensitivity


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
    with rc_context(style.RC):
        figure, panels = make_panels(plan)
        for axes, part in panels:
            draw_sensitivity(figure, axes, part, plan, y)
        for axes, _ in panels:
            if default_log(y):
                axes.set_yscale("log", nonpositive="mask")
            if "accuracy" in y:
                axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
            if (runs["x"] > 0).all():
                axes.set_xscale("log")
        counts = runs.groupby(["panel", "optimizer", "variant", "x"]).size()
        low, high = counts.min(), counts.max()
        text = "one seed per point"
        if high > 1:
            text = f"median of {low if low == high else f'{low} to {high}'} seeds, bars: min to max"
        if (runs["status"] == "diverged").any():
            text += " of those that did not diverge" if high > 1 else ""
            text += "; ✖ diverged"
        name = "learning rate" if short(x) == "lr" else short(x)
        finish(figure, plan, name, f"final {y_label(table, y)}", text)
    return figure


def draw_sensitivity(figure: Figure, axes: Axes, runs: pd.DataFrame, plan: Layout, y: str) -> None:
    """One panel: medians with bars, and crosses at the edge for what diverged."""
    bad, log = worst(y), default_log(y)
    legend: list[tuple[float, str, Line2D]] = []
    crosses: dict[float, int] = {}
    for text, members, looks in series_of(runs, plan):
        part = runs[runs["run"].isin(members)]
        xs = np.unique(part["x"].to_numpy(dtype=float))
        stack = [part["y"].to_numpy(dtype=float)[part["x"].to_numpy() == at] for at in xs]
        raw = np.array([median(values) for values in stack])
        drawn = np.isfinite(raw) & ((raw > 0) | (not log))
        line_y = np.where(drawn, raw, math.nan)
        low = np.array([np.min(v, initial=math.inf, where=np.isfinite(v)) for v in stack])
        high = np.array([np.max(v, initial=-math.inf, where=np.isfinite(v)) for v in stack])
        lost = int((part["status"] == "diverged").sum())
        (line,) = axes.plot(
            xs,
            line_y,
            color=looks.color,
            marker=looks.marker,
            linestyle=looks.dashes,
            label=f"{text}\n({lost} of {len(part)} diverged)" if lost else text,
            zorder=3,
        )
        if len(part) > len(xs):
            # the median may stand outside, where a diverged seed counts in it and not in the bar
            bars = np.zeros((2, len(xs)))
            bars[:, drawn] = np.maximum([raw[drawn] - low[drawn], high[drawn] - raw[drawn]], 0)
            axes.errorbar(
                xs, line_y, yerr=bars, fmt="none", ecolor=looks.color, elinewidth=0.8, capsize=2
            )
        for at in xs[~np.isfinite(raw)]:
            # side by side, or one would cover another
            shift = 7 * crosses.get(at, 0)
            crosses[at] = crosses.get(at, 0) + 1
            move = ScaledTranslation(-shift / 72, 0, figure.dpi_scale_trans)
            edge = 0.0 if bad == -math.inf else 1.0
            place = axes.get_xaxis_transform() + move
            axes.plot([at], [edge], **MARK, color=looks.color, transform=place)
        end = (np.nanmax if bad == -math.inf else np.nanmin)(line_y) if drawn.any() else bad
        legend.append((-float(end), text, line))
    add_legend(axes, legend)

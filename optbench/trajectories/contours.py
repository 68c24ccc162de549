"""Trajectories over a function's contours: a still, an animation, and CSV files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from optbench.common.csv_export import to_csv
from optbench.common.errors import UserError
from optbench.figures import style
from optbench.figures.looks import shade
from optbench.figures.save import save, writable
from optbench.trajectories.descent import Trajectory
from optbench.trajectories.functions import Function, Point

GRID_POINTS = 301  # points of the contours along each axis
FRAMES, END_FRAMES = 60, 15  # most frames of the paths, and frames that show their end
TABLE_FILE = "trajectories.csv"
FRAMES_PER_SECOND = 12
LEAST_LOSS = 1e-12  # above the minimum; a smaller difference is rounding
EDGE: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5}  # of markers


def write_files(
    out: Path,
    function: Function,
    paths: Sequence[Trajectory],
    table: pd.DataFrame,
    formats: Sequence[str],
) -> list[Path]:
    """Write trajectories.{png,pdf,gif}, a caption and both tables; return the files."""
    out = writable(out)
    files = []
    stills = [suffix for suffix in formats if suffix != "gif"]
    if stills:
        files += save(still(function, paths), out, "trajectories", stills)
    try:
        if "gif" in formats:
            files.append(out / "trajectories.gif")
            animate(files[-1], function, paths)
        files += [out / TABLE_FILE, out / "paths.csv"]
        to_csv(table, files[-2])
        rows = [
            pd.DataFrame({"optimizer": p.label, "x": p.points[:, 0], "y": p.points[:, 1]}).assign(
                step=np.arange(len(p.points)), loss=p.losses
            )
            for p in paths
        ]
        to_csv(pd.concat(rows), files[-1], float_format="%.15g")
    except OSError as error:
        raise UserError(f"cannot write {files[-1]}: {error.strerror}; choose another out") from None
    return files


def still(function: Function, paths: Sequence[Trajectory]) -> Figure:
    """Draw the paths over the contours, and beside them the loss against the step."""
    with style.rc():
        figure, (plane, curve) = draw_axes(function, paths)
        floor = lowest_shown(function, paths)
        for path, look in zip(paths, path_styles(paths), strict=True):
            draw_path(plane, seen_part(path.points, plane), look)
            x = np.arange(len(path.losses))
            losses = np.maximum(above_minimum(function, path), floor)
            curve.plot(x, losses, color=look.color, linestyle=look.dashes)
        draw_legend(figure, paths)
        outside = [p.label for p in paths if len(seen_part(p.points, plane)) < len(p.points)]
        # the legend needs the space below, so this text goes into the caption
        figure.set_label(
            f"{function.title}: paths from one start over the function's "
            "contours; dots: the first 15 steps, marker: the last"
            + (f"; normal noise of {function.noise:g} in gradients" if function.noise else "")
            + (f"; left the picture for good: {', '.join(outside)}" if outside else "")
        )
    return figure


def animate(file: Path, function: Function, paths: Sequence[Trajectory]) -> None:
    """Draw the growing paths as a repeating GIF of at most `FRAMES` frames."""
    with style.rc():
        figure, (plane, curve) = draw_axes(function, paths)
        floor = lowest_shown(function, paths)
        lines, heads, losses = [], [], []
        for look in path_styles(paths):
            lines += plane.plot([], [], color=look.color, linestyle=look.dashes, zorder=3)
            heads += plane.plot(
                [], [], color=look.color, marker=look.marker, markersize=6, zorder=5, **EDGE
            )
            losses += curve.plot([], [], color=look.color, linestyle=look.dashes)
        steps = max(len(path.points) for path in paths) - 1
        text = curve.set_title("", loc="right")
        draw_legend(figure, paths)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out already, so frames stay still and draw faster
        writer = PillowWriter(fps=FRAMES_PER_SECOND)
        with writer.saving(figure, str(file), dpi=110):
            marks = np.unique(np.linspace(0, steps, min(FRAMES, steps + 1)).round().astype(int))
            for k in [*marks, *[steps] * END_FRAMES]:
                for path, line, head, loss in zip(paths, lines, heads, losses, strict=True):
                    part = path.points[: k + 1]
                    seen = seen_part(part, plane)
                    line.set_data(seen[:, 0], seen[:, 1])
                    head.set_data(part[-1:, 0], part[-1:, 1])
                    drawn = np.maximum(above_minimum(function, path), floor)
                    loss.set_data(np.arange(len(part)), drawn[: k + 1])
                text.set_text(f"step {k}")
                writer.grab_frame()


def draw_axes(function: Function, paths: Sequence[Trajectory]) -> tuple[Figure, tuple[Axes, Axes]]:
    """Draw the contours, the start and the minima; return the figure and both axes."""
    if style.columns() == 1:  # one below the other
        figure = style.blank(3.25, 4.6)
        plane, curve = figure.subplots(2, 1, height_ratios=(1.25, 1))
    else:
        figure = style.blank(7.0, 3.3)
        plane, curve = figure.subplots(1, 2, width_ratios=(1.25, 1))
    points = np.concatenate([path.points for path in paths])
    x_range, y_range = (
        widen_limits(points[:, axis], limits)
        for axis, limits in enumerate((function.x_range, function.y_range))
    )
    x, y = (
        torch.linspace(*limits, GRID_POINTS, dtype=torch.float64) for limits in (x_range, y_range)
    )
    z = function.value(*torch.meshgrid(x, y, indexing="xy")).numpy() - function.least
    levels = np.geomspace(max(z.max() * 1e-4, np.quantile(z, 0.003)), z.max(), 15)
    plane.contourf(
        x.numpy(), y.numpy(), np.maximum(z, levels[0]), levels, cmap="Greys_r", alpha=0.33,
        norm="log",
    )  # fmt: skip
    plane.contour(x.numpy(), y.numpy(), z, levels, colors="#8A8A8A", linewidths=0.35)
    plane.plot(*zip(*function.minima, strict=True), "*", color="black", ms=11, zorder=2, **EDGE)
    start = paths[0].points[0]
    plane.plot(*start, "o", color="white", markeredgecolor="black", ms=5.5, zorder=6)
    plane.set(xlim=x_range, ylim=y_range, xlabel="x", ylabel="y")
    plane.grid(visible=False)
    plane.set_title("○ start   ★ minimum", loc="right", fontsize=style.points(7))
    noise = f", gradients with noise {function.noise:g}" if function.noise else ""
    plane.set_title(function.title + noise, loc="left")
    steps = max(len(path.points) for path in paths) - 1
    shown = np.concatenate([above_minimum(function, path) for path in paths])
    floor = lowest_shown(function, paths)
    top = above_minimum(function, paths[0])[0]
    highest = min(shown[np.isfinite(shown)].max(initial=top), 15 * top)
    # A first step straight to the minimum would lie on the axis.
    curve.set(xlim=(-0.02 * steps, steps), ylim=(floor / 2, 2 * max(highest, floor)), yscale="log")
    cut = f"\n(cut off at {floor:.0e})" if (shown < floor).any() else ""
    curve.set(xlabel="step", ylabel=f"loss above the minimum{cut}")
    return figure, (plane, curve)


def lowest_shown(function: Function, paths: Sequence[Trajectory]) -> float:
    """Return the least loss above the minimum that the axis has room for.

    That is a tenth of the least loss of all paths that do not end at the minimum. Paths that end
    there, but for rounding, would squeeze the others.
    """
    losses = [above_minimum(function, path) for path in paths]
    counting = [part for part in losses if part[-1] > LEAST_LOSS]
    return max(LEAST_LOSS, min((part[part > 0].min() for part in counting), default=0.0) / 10)


def widen_limits(values: np.ndarray, limits: Point) -> Point:
    """Return the limits, widened to the paths by at most their own width on each side."""
    low, high = limits
    width = high - low
    margin = 0.04 * width
    least, most = float(values.min()), float(values.max())
    return (
        max(least - margin, low - width) if least < low else low,
        min(most + margin, high + width) if most > high else high,
    )


def above_minimum(function: Function, path: Trajectory) -> np.ndarray:
    """Return the losses minus the least one; rounding below it counts as 0."""
    return np.maximum(path.losses - function.least, 0.0)


def seen_part(points: np.ndarray, axes: Axes) -> np.ndarray:
    """Return the points of a path until it leaves the axes for good.

    A diverging path would cross the whole picture with each of its further steps.
    """
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    x, y = points.T
    inside = np.flatnonzero((left <= x) & (x <= right) & (low <= y) & (y <= high))
    return points[: inside[-1] + 2]


def draw_path(axes: Axes, points: np.ndarray, look: style.LineStyle) -> None:
    """Draw a path: a line, a dot for each of the first steps, and a marker at its end."""
    axes.plot(*points.T, color=look.color, linestyle=look.dashes, zorder=3)
    first = points[1:16]
    axes.plot(*first.T, linestyle="none", marker=".", ms=4, color=look.color, zorder=3)
    axes.plot(*points[-1], color=look.color, marker=look.marker, markersize=6, zorder=5, **EDGE)


def path_styles(paths: Sequence[Trajectory]) -> list[style.LineStyle]:
    """Return the style of each path, with shades for several settings of an optimizer."""
    total = Counter(path.name for path in paths)
    base = style.looks(total)
    seen: Counter[str] = Counter()
    found = []
    for path in paths:
        found.append(shade(base[path.name], seen[path.name], total[path.name]))
        seen[path.name] += 1
    return found


def draw_legend(figure: Figure, paths: Sequence[Trajectory]) -> None:
    handles: list[Any] = [
        Line2D([], [], color=look.color, linestyle=look.dashes, marker=look.marker, label=p.label)  # type: ignore[arg-type]
        for p, look in zip(paths, path_styles(paths), strict=True)
    ]
    for columns in range(min(len(handles), 4), 0, -1):
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width < figure.bbox.width:
            return
        legend.remove()

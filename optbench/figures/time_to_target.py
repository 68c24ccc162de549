"""Times to target: a point per optimizer, in steps and in seconds."""

import math
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from optbench.analysis.final_values import seeds_text
from optbench.analysis.time_to_target import TimeToTarget
from optbench.common.metrics import metric_of, target_text
from optbench.figures import style
from optbench.figures.axes import label_axes, row_names
from optbench.figures.looks import looks_of_runs
from optbench.figures.panels import MAX_PANELS, TooManyPanels, caption, cross

FULL_ROWS = 10  # of a panel; more of them leave out those that never reached the target


def time_to_target_figure(found: TimeToTarget) -> Figure:
    """Draw a row per problem (and phase), steps on the left and seconds on the right.
    A point is a median over the seeds, a bar min to max, a cross at the edge a missed target. A
    panel of more than `FULL_ROWS` rows has only those that reached the target with some seed."""
    keys = [key for key in ("phase", "problem") if key in found.frame]
    frame = shown_rows(found)
    groups = list(frame.groupby(keys, sort=False))
    never = len(found.frame) - len(frame)
    if len(groups) > MAX_PANELS // 2:
        raise TooManyPanels(f"{len(groups)} problems do not fit one figure of times to target")
    names_of = row_names(frame["optimizer"])
    heights = [style.points(0.45) + names_of.height * len(part) for _, part in groups]
    lost = bool((found.frame["reached"] < found.frame["seeds"]).any())
    looks = looks_of_runs(found.plan)
    with style.rc():
        figure = style.blank(max(5.6, 4.0 + names_of.inches), 0.5 + sum(heights))
        grid = figure.add_gridspec(len(groups), 2, height_ratios=heights)
        for row, (place, part) in enumerate(groups):
            part = part[::-1]  # the first row at the top
            other = [key for key in keys if key != "phase"]  # phases share their axes
            same = found.frame[(found.frame[other] == part[other].iloc[0]).all(axis=1)]
            for column, clock in enumerate(("steps", "seconds")):
                axes = figure.add_subplot(grid[row, column])
                ends = same[[clock, f"{clock}_min", f"{clock}_max"]].to_numpy()
                ends = ends[np.isfinite(ends)]
                top = 1.05 * float(ends.max(initial=0.0)) or 1.0
                axes.set_xlim(0, top)
                axes.set_ylim(-0.6, len(part) - 0.4)
                axes.grid(visible=False, axis="y")
                for y, line in enumerate(part.to_dict("records")):
                    look = looks[found.members[int(part.index[y])]]
                    drawn: list[Artist] = []
                    low, high = line[f"{clock}_min"], min(line[f"{clock}_max"], top)
                    if math.isfinite(low):
                        drawn += axes.plot(
                            [low, high], [y, y], color=look.color, linewidth=style.points(0.9)
                        )
                    if math.isfinite(line[clock]):
                        drawn += axes.plot([line[clock]], [y], marker=look.marker, color=look.color)
                    # Seconds of an engine other than the majority's are missing.
                    if line["reached"] < line["seeds"] and not math.isnan(line[clock]):
                        drawn += axes.plot([top], [y], **cross(), color=look.color)
                    style.mark(drawn, str(line["optimizer"]), f"{row}-{column}")
                names = [str(name) for name in part["optimizer"]] if column == 0 else []
                labels = [names_of.texts[name] for name in names]
                axes.set_yticks(range(len(labels)), labels)
                for name, label in zip(names, axes.get_yticklabels(), strict=True):
                    style.mark([label], name, f"{row}-label")
                axes.xaxis.set_major_locator(
                    MaxNLocator(3 if style.columns() == 1 else 5, integer=clock == "steps")
                )
                if not len(ends):  # no seed reached the target, so there is no scale
                    axes.set_xticks([])
                if row == len(groups) - 1:
                    name = "optimizer steps" if clock == "steps" else "training time (s)"
                    label_axes(figure, axes, name, "")
            title = ", ".join(str(name) for name in place if name)
            goal = f"{metric_of(found.column).label} {found.sign} "
            goal += target_text(float(part["target"].iloc[0]), found.column)
            title = f"{title}: {goal}" if title else goal
            width = (figure.get_figwidth() - names_of.inches) / style.points(0.06)
            figure.axes[-2].set_label(title)  # whole, for the caption
            figure.axes[-2].set_title(fill(title, max(8, int(width - 4))), loc="left")
        text = f"first evaluation at the target ({found.rule}); median of "
        text += f"{seeds_text(found.frame['seeds'])}, bar: min to max"
        text += "; ✖ not reached by all seeds" if lost else ""
        text += f"; {never} left out, which never reached it" if never else ""
        text += f"; {found.note}" if found.note else ""
        caption(figure, text)
    return figure


def shown_rows(found: TimeToTarget) -> pd.DataFrame:
    """Return the rows that are drawn."""
    keys = [key for key in ("phase", "problem") if key in found.frame]
    reached = found.frame["reached"] > 0
    groups = found.frame.groupby(keys, sort=False)["reached"]
    full = (groups.transform("size") > FULL_ROWS) & (groups.transform("max") > 0)
    return found.frame[reached | ~full]

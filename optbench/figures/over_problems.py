"""Figures over several problems: mean ranks and performance profiles.

Mean ranks lie on a line, in the critical-difference diagram of Demsar (2006, figure 1). A bar joins
each group of optimizers that the test cannot tell apart. Performance profiles are AlgoPerf's, with
benchmark scores.
"""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from optbench.analysis.comparison import Runs
from optbench.analysis.over_problems import Profile, Ranking, ranking, scores
from optbench.common.metrics import metric_of
from optbench.figures import style
from optbench.figures.axes import label_axes, row_names
from optbench.figures.panels import add_legend, caption
from optbench.stats.algoperf import R_MAX, profile
from optbench.stats.ranks import critical_difference

UNIT_INCHES = 0.364  # the length of 1 on the axis that points down


def ranks_figure(runs: Runs, column: str, facet: Sequence[str] | None = None) -> Figure:
    """Draw the critical-difference diagram of the final `column`, as `ranking` ranks."""
    return draw_ranks(ranking(runs, column, facet), column)


def draw_ranks(found: Ranking, column: str) -> Figure:
    """Draw the critical-difference diagram of a ranking by the final `column`."""
    blocks = f"{found.blocks}, by final {metric_of(column).label}"
    return cd_diagram(found.ranks, found.groups, found.n, blocks=blocks)


def cd_diagram(
    ranks: "pd.Series[float]",
    groups: Sequence[Sequence[str]],
    problems: int,
    alpha: float = 0.05,
    blocks: str = "problems",
) -> Figure:
    """Draw mean ranks on a line, with a bar over each group without a difference.
    ranks: `ranks.mean_ranks`. groups: `ranks.cliques`. problems: N. blocks: where ranks were taken.
    """
    ranks = ranks.sort_values(kind="stable")
    count = len(ranks)
    half = (count + 1) // 2
    looks = style.looks(map(str, ranks.index))
    rows = max(half, count - half)
    top = 0.32 * (len(groups) + 1)  # room for the bars between the axis and the first label
    with style.rc():
        labels = row_names(f"{name} ({at:.2f})" for name, at in ranks.items())
        line = labels.height / UNIT_INCHES
        width = max(5.6, 3 + 2 * labels.inches)
        figure = style.blank(width, 1.25 + labels.height * rows + 0.13 * len(groups))
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_xlim(0.85, count + 0.15)
        axes.set_ylim(top + line * rows + 0.2, -1.9)  # the axis points down
        axes.plot([1, count], [0, 0], color="black", linewidth=0.9)
        room = figure.get_figwidth() - 2 * labels.inches - 0.4
        step = math.ceil(count * style.points(0.2) / room)
        for place in range(1, count + 1):
            axes.plot([place, place], [0, -0.22], color="black", linewidth=0.9)
            number = str(place) if (place - 1) % step == 0 else ""
            axes.text(place, -0.3, number, ha="center", va="bottom", fontsize=style.points(7))
        for index, (name, at) in enumerate(ranks.items()):
            left = index < half
            row = index if left else count - 1 - index
            y = top + line * (row + 0.3)
            end = 0.85 if left else count + 0.15
            look = looks[str(name)]
            drawn: list[Artist] = [
                *axes.plot([at, at, end], [0, y, y], color=look.color, linewidth=style.points(1)),
                *axes.plot(
                    [at], [0], marker=look.marker, color=look.color, clip_on=False, zorder=4
                ),
            ]
            label = axes.annotate(
                labels.texts[f"{name} ({at:.2f})"], (end, y), (-2 if left else 2, 0),
                textcoords="offset points", ha="right" if left else "left", va="center",
                fontsize=style.points(7),
            )  # fmt: skip
            style.mark([*drawn, label], str(name))
        for index, group in enumerate(groups):
            y = 0.32 * (index + 0.75)
            ends = [ranks[group[0]] - 0.04, ranks[group[-1]] + 0.04]
            axes.plot(ends, [y, y], color="black", linewidth=2.6, solid_capstyle="butt", zorder=3)
        text = f"mean rank over n = {problems} {blocks} (1 is the best); bars join what "
        text += f"Nemenyi's test of the ranks alone does not tell apart at {alpha:g}; "
        text += "the verdict's test of the values may"
        cd = critical_difference(count, problems, alpha)
        ends = [1, min(1 + cd, count + 0.5)]
        axes.plot(ends, [-1.2, -1.2], color="black", linewidth=1.6)
        for at in ends:
            axes.plot([at, at], [-1.32, -1.08], color="black", linewidth=0.9)
        axes.text(1, -1.42, f"CD = {cd:.2f}", ha="left", va="bottom", fontsize=style.points(7))
        caption(figure, text)
    return figure


def profile_figure(times: pd.DataFrame | Profile, clock: str = "steps", note: str = "") -> Figure:
    """Draw the share of problems that an optimizer solved in tau times the fastest.

    times: `time_matrix`, or a profile made from one."""
    found = times if isinstance(times, Profile) else Profile(scores(times), profile(times))
    ranked, shares = found
    looks = style.looks(map(str, ranked["optimizer"]))
    problems = int(ranked["n"].iloc[0])
    with style.rc():
        figure = style.blank(5.6, 3.4)
        axes = figure.add_subplot()
        for place, line in enumerate(ranked.to_dict("records")):
            look = looks[str(line["optimizer"])]
            axes.plot(
                shares.columns,
                shares.loc[line["optimizer"]],
                drawstyle="steps-post",
                color=look.color,
                linestyle=look.dashes,
                marker=look.marker,
                markevery=(3 + 4 * place, 25),
                label=f"{line['optimizer']} ({line['score']:.2f})",
                clip_on=False,
            )
        axes.set_xlim(1, R_MAX)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        labels = [str(line.get_label()) for line in axes.lines]
        add_legend(figure, axes.lines, labels, title="(benchmark score)")
        multiple = f"{clock} to the target, as a multiple of the fastest optimizer's"
        label_axes(figure, axes, multiple, "problems within it (%)")
        text = f"Over n = {problems} problems, medians over seeds; {note}".strip("; ")
        caption(figure, text)
    return figure

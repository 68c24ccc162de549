"""AlgoPerf's performance profiles over several problems, with benchmark scores."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from optbench.analysis.over_problems import Profile, scores
from optbench.figures import style
from optbench.figures.axes import label_axes
from optbench.figures.panels import add_legend, caption
from optbench.stats.algoperf import R_MAX, profile


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

"""AlgoPerf's performance profiles over several problems, as a figure with the benchmark scores."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from optbench.common.errors import UserError
from optbench.figures import style
from optbench.figures.panels import caption, legend_above
from optbench.stats.algoperf import R_MAX, closed_form, profile


def scores(times: pd.DataFrame) -> pd.DataFrame:
    """A line per optimizer, best first: score (`score.closed_form`), reached (of n problems), n.

    times: `targets.time_matrix`. Raises UserError below two problems, as it is a score over them.
    """
    if times.shape[1] < 2:
        raise UserError("a performance profile is over problems, and there is one")
    found = pd.DataFrame({"score": closed_form(times), "reached": (times < math.inf).sum(axis=1)})
    found = found.assign(n=times.shape[1]).sort_values("score", ascending=False, kind="stable")
    return found.rename_axis("optimizer").reset_index()


def profile_figure(times: pd.DataFrame, clock: str = "steps", note: str = "") -> Figure:
    """The share of problems on which an optimizer was within tau times the fastest, against tau."""
    ranked = scores(times)
    shares = profile(times)
    looks = style.looks(str(name).split(" ")[0] for name in ranked["optimizer"])
    with style.rc():
        figure = style.blank(5.6, 3.4)
        axes = figure.add_subplot()
        for place, line in enumerate(ranked.to_dict("records")):
            look = looks[str(line["optimizer"]).split(" ")[0]]
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
        axes.set_xlabel(f"{clock} to the target, as a multiple of the fastest optimizer's")
        axes.set_ylabel("problems within it (%)")
        if style.columns() is None:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="(benchmark score)")
        else:
            legend_above(figure, axes.lines, [str(line.get_label()) for line in axes.lines])
            note = f"in brackets: AlgoPerf's benchmark score; {note}"
        text = f"Over n = {times.shape[1]} problems, medians over seeds; {note}".strip("; ")
        caption(figure, text)
    return figure

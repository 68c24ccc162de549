"""The figure of a study: published curves in grey, ours over them in colour."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from optbench.figures import style

OPTIMIZERS = {  # names of the papers
    "SGD": "sgd",
    "SGDNesterov": "nesterov",
    "AdaGrad": "adagrad",
    "RMSProp": "rmsprop",
    "AdaDelta": "adadelta",
    "Adam": "adam",
}
GREY = "#9a9a9a"
MARKED_POINTS = 15  # curves of more points have no markers


def draw(asked: Mapping[str, Any], ours: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Return the figure; `asked` is the YAML's `draw`: x, y (labels), log_x, log_y, y_range.

    ours: series, x, value, low, high; published: series, x, value. The band is from the least to
    the largest of the seeds.
    """
    names = list(dict.fromkeys([*published["series"], *ours["series"]]))
    looks = style.looks([OPTIMIZERS.get(name, name) for name in names])
    with style.rc():
        figure = style.blank(5.2, 3.6)
        axes = figure.subplots()
        for name in names:
            look = looks[OPTIMIZERS.get(name, name)]
            theirs, own = (frame[frame["series"] == name] for frame in (published, ours))
            reached = theirs["x"] <= 1.05 * own["x"].max() if len(own) else theirs["x"] >= 0
            theirs = theirs[reached] if reached.sum() > 1 else theirs
            marker = look.marker if len(own) <= MARKED_POINTS else ""
            grey: dict[str, Any] = {
                "color": GREY,
                "linestyle": look.dashes,
                "marker": marker,
                "linewidth": 1.6,
            }
            axes.plot(theirs["x"], theirs["value"], **grey, zorder=1)
            line: dict[str, Any] = {"color": look.color, "linestyle": look.dashes, "marker": marker}
            axes.plot(own["x"], own["value"], **line, label=name, zorder=3)
            if (own["high"] > own["low"]).any():
                axes.fill_between(own["x"], own["low"], own["high"], color=look.color, alpha=0.2)
        if len(published):
            axes.plot([], [], color=GREY, label="published (grey)")
        if asked.get("log_x"):
            axes.set_xscale("log")
        if asked.get("log_y", True):
            axes.set_yscale("log")
        if "y_range" in asked:
            axes.set_ylim(*(float(end) for end in asked["y_range"]))
        axes.set_xlabel(asked["x"])
        axes.set_ylabel(asked["y"])
        axes.legend(fontsize="small")
    return figure


def draw_drift(found: pd.DataFrame) -> Figure:
    """Return the figure of `frames.drift`: a panel per series, with its three percentiles."""
    names = list(dict.fromkeys(found["series"]))
    with style.rc():
        figure = style.blank(5.2, 2.4)
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            rows = found[found["series"] == name].sort_values("x")
            for column, dashes in (("p85", "--"), ("p50", "-"), ("p15", ":")):
                axes.plot(rows["x"], rows[column], dashes, color="black", label=column)
            axes.set_title(name, fontsize="small")
            axes.set_xlabel("step")
        panels[0].set_ylabel("input of the last hidden layer")
        panels[0].legend(fontsize="small", loc="center right", bbox_to_anchor=(1, 0.64))
    return figure

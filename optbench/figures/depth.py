"""Activations, gradients and updates of a network's weight layers by their depth."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from optbench.analysis.claims.values import column_values
from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.final_values import seeds_text
from optbench.common.errors import UserError
from optbench.figures import style
from optbench.figures.axes import label_axes, log_ticks, set_log_y, set_title
from optbench.figures.looks import handle_of, series_of
from optbench.figures.panels import (
    TooManyPanels,
    add_legend,
    caption,
    setting_note,
    titles,
)

MAX_ROWS = 6  # problems or settings in a figure, each with a row of panels for two steps
WEIGHTED = ("linear", "conv2d")
DEPTHS = {  # columns of `layers.csv` for the weight layers, by their depth
    "activation_std": "outputs (std)",
    "output_grad_std": "output gradients (std)",
    "update_ratio": "update / weights",
}


def layers_by_depth(layers_of: Runs, lines: str | None = None) -> Figure:
    """Draw activations, gradients and update-to-weight ratios against depth.

    Panels show the first and the last logged step of each problem, for weight layers. A line is a
    series' median over the seeds, a band minimum to maximum. lines: the config key that makes the
    lines. Raises UserError where no weight layer was logged, and TooManyPanels.
    """
    made = comparison_of(layers_of)
    layers = made.rows("layers")
    rows = layers[layers["kind"].isin(WEIGHTED)]
    if rows.empty:
        raise UserError("layers.csv has no row of a linear or convolution layer")
    plan = made.spread(None, lines)
    if len(plan.panels) > MAX_ROWS:
        plan = made.series(None, lines)
    plan = plan._replace(runs=plan.runs[plan.runs["run"].isin(set(rows["run"]))])
    steps = rows.groupby("run", observed=True)["step"]
    ends = {"first step": steps.transform("min"), "last step": steps.transform("max")}
    # Each problem or setting has a row of the figure.
    groups = [(part, when) for part in plan.panels for when in ends]
    if len(plan.panels) > MAX_ROWS:
        raise TooManyPanels(
            f"layers of {len(plan.panels)} problems or settings (by {', '.join(plan.facet)}) do "
            "not fit one figure: make it the lines (--lines KEY), or choose some of the runs "
            "(--where KEY=VALUE)"
        )
    with style.rc():
        across = style.across(len(DEPTHS))
        down = len(DEPTHS) * len(groups) // across
        figure = style.blank(0.2 + 2.4 * across, 0.6 + (2.0 if across > 1 else 1.4) * down)
        grid = figure.subplots(down, across, sharex=True)
        # One row per step if all quantities fit side by side, else one per quantity.
        spots = iter((grid if across == len(DEPTHS) else grid.reshape(-1, len(groups)).T).flat)
        first: dict[str, Axes] = {}
        drawn: dict[str, list[float]] = {value: [] for value in DEPTHS}
        entries: dict[str, tuple[Line2D, list[style.LineStyle]]] = {}
        for runs, when in groups:
            here = titles(plan, runs["panel"].iloc[0])
            for (value, name), axes in zip(DEPTHS.items(), spots, strict=False):
                axes.sharey(first.setdefault(value, axes))
                for text, members, look in series_of(runs, plan):
                    part = rows[(rows["step"] == ends[when]) & rows["run"].isin(members)]
                    values = column_values(part, value)
                    drawn[value] += list(values)
                    line = band(axes, part["depth"].astype(float), values, look, text)
                    entries.setdefault(text, (line, []))[1].append(look)
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                set_title(figure, axes, [name, when, *here], 0.35)
        notes = [  # axes that are shared have one scale
            set_log_y([axes], drawn[value]).replace("axis", f"axis of the {DEPTHS[value]}", 1)
            for value, axes in first.items()
        ]
        add_legend(figure, [handle_of(*entry) for entry in entries.values()], list(entries))
        for axes in figure.axes[-across:]:
            label_axes(figure, axes, "depth (weight layer)", "")
        log_ticks(figure.axes)
        seeds = plan.runs.groupby(["panel", "variant"])["run"].nunique()
        text = f"median of {seeds_text(seeds)}, band: min to max"
        text = text if seeds.max() > 1 else "one seed per line"
        text += "; at the first and the last step logged" + "".join(notes)
        caption(figure, setting_note(plan), text)
    return figure


def band(
    axes: Axes, x: "pd.Series[float]", y: "pd.Series[float]", look: style.LineStyle, label: str
) -> Line2D:
    """Draw a line through the medians at each x, and a band from minimum to maximum."""
    part = pd.Series(y.to_numpy(), x.to_numpy()).groupby(level=0)
    middle = part.median()
    (line,) = axes.plot(
        middle.index, middle, color=look.color, linestyle=look.dashes, marker=look.marker,
        label=label,
    )  # fmt: skip
    axes.fill_between(
        middle.index, part.min(), part.max(), color=look.color, alpha=0.16, linewidth=0
    )
    return line

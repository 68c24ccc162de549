"""What happens in a network by depth: activations, gradients and updates of its weight layers."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from optbench.analysis.claims.values import column_values
from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.final_values import seeds_text
from optbench.common.errors import UserError
from optbench.figures import style
from optbench.figures.axes import log_ticks, set_log_y
from optbench.figures.panels import (
    caption,
    label_axes,
    legend_above,
    series_of,
    set_title,
    setting_note,
)

WEIGHTED = ("linear", "conv2d")
DEPTHS = {  # by depth, of weight layers
    "activation_std": "outputs (std)",
    "output_grad_std": "output gradients (std)",
    "update_ratio": "update / weights",
}


def layers_by_depth(layers_of: Runs, lines: str | None = None) -> Figure:
    """Activations, gradients and the update-to-weight ratio of the weight layers against their
    depth, at the first logged step and at the last one; a line per series.

    Lines are medians over the seeds and bands their minimum to maximum. Raises UserError where the
    runs are of several problems: `lines` may be what they differ in.
    """
    made = comparison_of(layers_of)
    layers = made.rows("layers")
    rows = layers[layers["kind"].isin(WEIGHTED)]
    if rows.empty:
        raise UserError("layers.csv has no row of a linear or convolution layer")
    plan = made.series(None, lines)
    plan = plan._replace(runs=plan.runs[plan.runs["run"].isin(set(rows["run"]))])
    if plan.facet:
        raise UserError(
            f"layers are drawn of one problem, and these runs differ in {', '.join(plan.facet)}: "
            "make it the lines (--lines KEY), or choose some of the runs (--where KEY=VALUE)"
        )
    steps = rows.groupby("run", observed=True)["step"]
    ends = {"first step": steps.transform("min"), "last step": steps.transform("max")}
    with style.rc():
        across = style.across(len(DEPTHS))
        down = len(DEPTHS) * len(ends) // across
        figure = style.blank(0.2 + 2.4 * across, 0.6 + (2.0 if across > 1 else 1.4) * down)
        grid = figure.subplots(down, across, sharex=True)
        # a row per step where all quantities fit beside each other, else one per quantity
        spots = iter((grid if across == len(DEPTHS) else grid.reshape(-1, len(ends)).T).flat)
        first: dict[str, Axes] = {}
        drawn: dict[str, list[float]] = {value: [] for value in DEPTHS}
        for when, step in ends.items():
            for (value, name), axes in zip(DEPTHS.items(), spots, strict=False):
                axes.sharey(first.setdefault(value, axes))
                for text, members, look in series_of(plan.runs, plan):
                    part = rows[(rows["step"] == step) & rows["run"].isin(members)]
                    values = column_values(part, value)
                    drawn[value] += list(values)
                    band(axes, part["depth"].astype(float), values, look, text)
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                set_title(figure, axes, [name, when], 0.35)
        notes = [  # axes that are shared have one scale
            set_log_y([axes], drawn[value]).replace("axis", f"axis of the {DEPTHS[value]}", 1)
            for value, axes in first.items()
        ]
        entries = list(figure.axes[0].lines)
        legend_above(figure, entries, [str(line.get_label()) for line in entries])
        for axes in figure.axes[-across:]:
            label_axes(figure, axes, "depth (weight layer)", "")
        log_ticks(figure.axes)
        seeds = plan.runs.groupby("series")["run"].nunique()
        text = f"median of {seeds_text(seeds)}, band: min to max"
        text = text if seeds.max() > 1 else "one seed per line"
        text += "; at the first and the last step logged" + "".join(notes)
        caption(figure, setting_note(plan), text)
    return figure


def band(
    axes: Axes, x: "pd.Series[float]", y: "pd.Series[float]", look: style.LineStyle, label: str
) -> None:
    """A line through the medians at each x, and a band from minimum to maximum."""
    part = pd.Series(y.to_numpy(), x.to_numpy()).groupby(level=0)
    middle = part.median()
    axes.plot(
        middle.index, middle, color=look.color, linestyle=look.dashes, marker=look.marker,
        label=label,
    )  # fmt: skip
    axes.fill_between(
        middle.index, part.min(), part.max(), color=look.color, alpha=0.16, linewidth=0
    )

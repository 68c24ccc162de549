"""An optimizer's cost: milliseconds of a step against memory of the state."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.final_values import seeds_text, timing_note
from optbench.analysis.series import one_line_per_run, variant_keys
from optbench.common.errors import UserError
from optbench.figures import style
from optbench.figures.axes import log_ticks
from optbench.figures.looks import series_of
from optbench.figures.panels import LegendEntry, add_legends, label_panels, make_panels


def cost(runs_of: Runs, facet: Sequence[str] | None = None) -> Figure:
    """Draw milliseconds of an optimizer's step against bytes of state per parameter.

    A point is an optimizer's median over the runs, its bar min to max. `step_cost` timed both
    before each run on a separate model. Runs by another engine than most of their problem are left
    out (`timing_of`). Raises UserError if no run was timed.
    """
    made = comparison_of(runs_of)
    table = made.table
    plan = made.series(facet, None, variant_keys(one_line_per_run(table)))
    timed = table.drop_duplicates("run").set_index("run")  # any row of a run
    timed.index = timed.index.astype(object)
    costs = timed.reindex(plan.runs["run"])[["state_bytes_per_parameter", "step_ms"]].astype(float)
    runs = plan.runs.assign(
        x=costs["state_bytes_per_parameter"].to_numpy(), y=costs["step_ms"].to_numpy()
    )
    runs = runs[~runs["run"].isin(made.timing.untimed)]  # as in every table
    spread = timing_note(made.costs.assign(ms_spread=np.nan))
    runs = runs[np.isfinite(runs["x"]) & np.isfinite(runs["y"])]
    if runs.empty:
        raise UserError("no run of these holds the cost of its optimizer's steps in run.json")
    plan = plan._replace(runs=runs, sequential=False)
    with style.rc():
        figure, panels = make_panels(plan)
        legends = []
        for axes, part in panels:
            entries = []
            for text, members, look in series_of(part, plan):
                own = part[part["run"].isin(members)]
                # An optimizer's settings may differ in state, as with and without momentum.
                for x in sorted(map(float, own["x"].unique())):
                    group = own["y"][own["x"] == x].astype(float)
                    middle, low, high = group.median(), group.min(), group.max()
                    axes.plot([x, x], [low, high], color=look.color, linewidth=style.points(0.9))
                    (line,) = axes.plot(
                        [x], [middle], linestyle="none", marker=look.marker, color=look.color,
                        markersize=style.points(6), markeredgecolor="white", label=text,
                    )  # fmt: skip
                entries.append(
                    LegendEntry(-float(own["y"].median()), text, line, 0, len(own), look)
                )
            legends.append((axes, entries))
            axes.set_yscale("log")
            axes.set_xlim(-0.6, max(float(runs["x"].max()), 8) + 0.6)
            axes.xaxis.set_major_locator(MultipleLocator(4))
        log_ticks([axes for axes, _ in panels])
        add_legends(figure, plan, legends)
        counts = runs.groupby(["panel", "optimizer"]).size()
        text = f"median of {seeds_text(counts).replace('seed', 'run')}, bar: min to max; the "
        text += "optimizer's part of a step, timed by itself"
        text += f"; {spread}" if spread else ""
        text += f"; {made.timing.sentence}" if made.timing.sentence else ""
        label_panels(figure, plan, "state (bytes per parameter)", "optimizer's step (ms)", text)
    return figure

"""The trials of a tuned study as figures: against the learning rate, and against their number."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from optbench.analysis.series import Layout, layout, one_line_per_run, variant_keys
from optbench.analysis.trials import trial_scores
from optbench.common.errors import UserError
from optbench.common.metrics import smaller_is_better, worst
from optbench.figures import style
from optbench.figures.axes import blown_up, cap, dress, log_ticks, show_all, y_label
from optbench.figures.panels import Entry, add_legends, cross, finish, make_panels, series_of
from optbench.stats.tuning_curves import check_exchangeable, expected_best


def trial_layout(
    trials: pd.DataFrame, metric: str, pick: str, facet: Sequence[str] | None
) -> Layout:
    """A panel per problem and a series per optimizer, whatever its trials' settings; adds the
    columns x (learning rate) and y (score)."""
    plan = layout(trials, facet, None, within=variant_keys(one_line_per_run(trials)))
    scores = trial_scores(trials, metric, pick).reindex(plan.runs["run"])
    both = {"x": scores["lr"].to_numpy(), "y": scores["score"].to_numpy()}
    return plan._replace(runs=plan.runs.assign(**both), sequential=False)


def rate_scatter(
    trials: pd.DataFrame,
    metric: str = "val_loss",
    pick: str = "final",
    facet: Sequence[str] | None = None,
) -> Figure:
    """A point per trial at its learning rate, and a line through the best trial of each half
    decade: the envelope over the other settings, which vary from trial to trial. A cross at the
    edge is a trial that diverged. Raises UserError where no trial has a learning rate.
    """
    plan = trial_layout(trials, metric, pick, facet)
    runs = plan.runs.dropna(subset=["x"])
    runs = runs[runs["x"] > 0]
    if runs.empty or runs["x"].nunique() < 2:
        raise UserError("these trials have no two learning rates")
    plan = plan._replace(runs=runs)
    bad = worst(metric)
    with style.rc():
        figure, panels = make_panels(plan)
        legends = []
        for axes, part in panels:
            legend = []
            for text, members, look in series_of(part, plan):
                own = part[part["run"].isin(members)].sort_values("x")
                x, y = own["x"].to_numpy(dtype=float), own["y"].to_numpy(dtype=float)
                best = envelope(x, y, smaller_is_better(metric))
                lost = ~np.isfinite(y)
                axes.plot(
                    x[~lost], y[~lost], linestyle="none", marker=look.marker, color=look.color,
                    markersize=style.points(3), alpha=0.45, markeredgewidth=0,
                )  # fmt: skip
                (line,) = axes.plot(
                    x[best], y[best], color=look.color, linestyle=look.dashes, marker=look.marker,
                    label=text,
                )  # fmt: skip
                edge = 0.0 if bad == -math.inf else 1.0
                for at in x[lost]:
                    place = axes.get_xaxis_transform()
                    axes.plot([at], [edge], **cross(), color=look.color, transform=place)
                end = y[best].max() if bad == -math.inf else y[best].min() if len(best) else bad
                legend.append(Entry(-float(end), text, line, int(lost.sum()), len(own)))
            legends.append((axes, legend))
            show_all(axes, runs["x"])
        scale = dress([axes for axes, _ in panels], metric, plan.runs["y"])
        above = cap([axes for axes, _ in panels], trials, metric, plan.runs["y"])
        log_ticks([axes for axes, _ in panels])
        add_legends(figure, plan, legends)
        text = "a point per trial; line: the best trial of each half decade, whatever its other "
        text += "settings" + scale + above
        text += "; ✖ diverged" if (runs["status"] == "diverged").any() else ""
        finish(figure, plan, "learning rate", scored(trials, metric, pick), text)
    return figure


def envelope(x: np.ndarray, y: np.ndarray, smaller: bool) -> np.ndarray:
    """Indices of the best finite y in each half decade of x, in the order of x (ascending)."""
    bins = np.floor(2 * np.log10(x) + 1e-9)
    chosen = []
    for value in np.unique(bins):
        here = np.flatnonzero((bins == value) & np.isfinite(y))
        if len(here):
            chosen.append(here[np.argmin(y[here] if smaller else -y[here])])
    return np.array(chosen, dtype=int)


def tuning_budget(
    trials: pd.DataFrame,
    metric: str = "val_loss",
    pick: str = "final",
    facet: Sequence[str] | None = None,
) -> Figure:
    """The best validation result of 1, 2, ... random trials, a line per optimizer.

    The expectation with its bootstrap interval (Dodge et al. 2019), or, where a trial of any
    optimizer diverged or blew up, which no mean survives, the median of the best of n instead.
    Raises UserError where trials are no random ones.
    """
    check_exchangeable(trials)
    plan = trial_layout(trials, metric, pick, facet)
    smaller = smaller_is_better(metric)
    values = plan.runs["y"].to_numpy(dtype=float)
    lost = bool((np.isinf(values) | (values > blown_up(trials, metric))).any())
    names = ("median", "median_low", "median_high") if lost else ("expected", "low", "high")
    with style.rc():
        figure, panels = make_panels(plan)
        counts, legends, drawn = [], [], []
        for axes, part in panels:
            legend = []
            for text, members, look in series_of(part, plan):
                values = part.loc[part["run"].isin(members), "y"].to_numpy(dtype=float)
                curve = expected_best(values, smaller)
                centre, low, high = (
                    curve[name].where(np.isfinite(curve[name])).to_numpy() for name in names
                )
                drawn += [*centre, *low, *high]
                every = max(1, len(curve) // 7)
                (line,) = axes.plot(
                    curve["trials"], centre, color=look.color, linestyle=look.dashes,
                    marker=look.marker, markevery=every,
                    label=text,
                )  # fmt: skip
                axes.fill_between(
                    curve["trials"], low, high, color=look.color, alpha=0.13, linewidth=0
                )
                end = float(curve[names[0]].iloc[-1])
                gone = int(np.isinf(values).sum())
                legend.append(Entry(-end, text, line, gone, len(values)))
                counts.append(len(values))
            legends.append((axes, legend))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        scale = dress([axes for axes, _ in panels], metric, drawn)
        above = cap([axes for axes, _ in panels], trials, metric, plan.runs["y"])
        log_ticks([axes for axes, _ in panels])
        add_legends(figure, plan, legends)
        what = "median of the best of n (trials diverged or blew up: no mean survives that)"
        text = what if lost else "expected best of n"
        text += f", bootstrapped from {min(counts)}"
        text += f" to {max(counts)}" if min(counts) < max(counts) else ""
        text += " trials each; band: 95 % interval" + scale + above
        label = f"best {y_label(trials, metric)}"
        finish(figure, plan, "trials", label, text)
    return figure


def scored(trials: pd.DataFrame, metric: str, pick: str) -> str:
    """The name of what a trial was judged by."""
    return f"{'final' if pick == 'final' else 'best-epoch'} {y_label(trials, metric)}"

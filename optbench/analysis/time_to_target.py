"""Time to target of whole studies: a target by rule, a table of who reached it when, its figure.

The target is one of the validation results, never of the test set. A run is looked at when it is
evaluated, so that times are whole multiples of `log.eval_epochs` (seconds: the clock then).
"""

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from optbench.analysis.pairing import pair_up, run_keys
from optbench.analysis.series import layout
from optbench.analysis.summary import (
    STEP_COSTS,
    cost_of_runs,
    final_values,
    seeds_text,
    unlike_clocks,
)
from optbench.analysis.targets import (
    CLOCKS,
    baseline_targets,
    best_final,
    quantile_targets,
    run_times,
)
from optbench.common.errors import UserError
from optbench.common.metrics import smaller_is_better
from optbench.figures import style
from optbench.figures.panels import MAX_PANELS, TooManyPanels, caption, cross, label_axes
from optbench.stats.estimates import middle

RULES = "a number, worst, baseline:NAME or quantile:SHARE"
UNITS = {"step": "steps", "epoch": "epochs", "seconds": "seconds"}


class Reach(NamedTuple):
    """When each optimizer reached the target of its problem."""

    frame: pd.DataFrame  # see `reach`
    times: pd.DataFrame  # steps by problem and seed, a column per optimizer: of the tuned runs
    column: str
    rule: str  # in words
    clocks: str = ""  # `summary.unlike_clocks`


def reach(
    table: pd.DataFrame,
    column: str,
    rule: str | float | None = None,
    facet: Sequence[str] | None = None,
) -> Reach:
    """Time to target of the tidy table's runs.

    rule: a number; "worst" (the default: the final result of the worst tuned optimizer that came
    to an end, each at its best setting), "baseline:NAME" (that of a named optimizer) or
    "quantile:SHARE" (what the best share of all runs reached); finals are medians over seeds. In a
    tuned study the tuned runs set the target, for the default ones as well.
    Columns: phase (of a tuned study), problem, optimizer, target, seeds, reached (n), then median,
    min and max of steps, epochs and seconds (inf: never, as for every run that diverged), and
    STEP_COSTS: what a step costs belongs beside every count of steps.
    Raises UserError for an unknown rule, and as `by_seed` does.
    """
    plan = layout(table, facet)
    keys = [key for key in plan.facet if key not in ("optimizer", "phase")] or None
    tuned = phases(table)
    smaller = smaller_is_better(column)
    targets: dict[str, float] = {}
    lines: list[dict[str, Any]] = []
    steps: list[pd.DataFrame] = []
    for phase, part in (tuned or {"": table}).items():
        runs = run_keys(part, keys)
        if not targets:
            targets, words = by_rule(pair_up(runs, final_values(part, column)), rule, smaller)
        if lacking := sorted(set(runs["problem"]) - set(targets)):
            raise UserError("no tuned run sets a target" + f" on {lacking[0]}".removesuffix(" on "))
        each = pd.Series([targets[name] for name in runs["problem"]], runs["run"], dtype=float)
        clocks = {clock: pair_up(runs, run_times(part, column, each, clock)) for clock in CLOCKS}
        steps.append(clocks["step"])
        costs = cost_of_runs(part)
        names = list(zip(runs["problem"].map(str), runs["variant"].map(str), strict=True))
        for problem, name in dict.fromkeys(names):
            line: dict[str, Any] = {"phase": phase} if tuned else {}
            line |= {"problem": problem, "optimizer": name, "target": targets[problem]}
            for clock, frame in clocks.items():
                values = frame.xs(problem, level="problem")[name].dropna().to_numpy(dtype=float)
                line |= {"seeds": len(values), "reached": int(np.isfinite(values).sum())}
                ends = (middle(values), values.min(), values.max())
                for word, value in zip(("", "_min", "_max"), ends, strict=True):
                    line[UNITS[clock] + word] = float(value)
            own = costs.loc[runs["run"][[pair == (problem, name) for pair in names]]]
            line |= {cost: float(own[cost].median()) for cost in STEP_COSTS}
            if line["step_ms"] > line["ms_per_step"]:  # of runs that lack one of the two
                line["step_ms"] = line["ms_per_step"]
            lines.append(line)
    frame = pd.DataFrame(lines).sort_values(["steps", "seconds"], kind="stable")
    panel = [key for key in ("phase", "problem") if key in frame]
    frame = frame.sort_values(panel, ascending=[key == "problem" for key in panel], kind="stable")
    frame = frame.reset_index(drop=True)  # tuned before default, problems by name
    return Reach(frame, steps[0], column, words, unlike_clocks(table))


def phases(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of a tuned study by phase, the tuned ones first; empty where there are none."""
    if "phase" not in table:
        return {}
    names = table["phase"].astype(str)
    found = {name: table[names == name] for name in ("tuned", "default")}
    return {name: part for name, part in found.items() if len(part)} if len(found["tuned"]) else {}


def by_rule(
    frame: pd.DataFrame, rule: str | float | None, smaller: bool
) -> tuple[dict[str, float], str]:
    """The target of each problem, and the rule in words. frame: `by_seed` of its column."""
    kind, _, value = str(rule or "worst").strip().partition(":")
    problems = [str(name) for name in frame.index.get_level_values("problem").unique()]
    if kind == "worst" and not value:
        targets = {
            str(problem): worst_of(part, smaller)
            for problem, part in frame.groupby(level="problem", sort=False)
        }
        words = "the final result of the worst optimizer at its best setting"
    elif kind == "baseline" and value:
        targets = baseline_targets(frame, value, smaller)
        words = f"the final result of {value} at its best setting"
    else:
        try:
            number = float(value if kind == "quantile" else str(rule))
        except ValueError:
            raise UserError(f"no target rule {rule!r}; allowed: {RULES}") from None
        if not math.isfinite(number):
            raise UserError(f"a target must be a finite number, not {rule!r}; or one of: {RULES}")
        if kind == "quantile":
            targets = quantile_targets(frame, number, smaller)
            words = f"what the best {100 * number:g} % of the runs ended with"
        else:
            targets, words = dict.fromkeys(problems, number), "as given"
    lost = [name for name, target in targets.items() if not math.isfinite(target)]
    if lost:
        raise UserError(
            f"the rule {rule or 'worst'} gives no target{f' on {lost[0]}' if lost[0] else ''}: its "
            "runs diverged. Give a number, or another baseline"
        )
    return targets, words


def worst_of(part: pd.DataFrame, smaller: bool) -> float:
    """The worst optimizer's best result, those that diverged left out; inf where all did."""
    names = dict.fromkeys(str(name).split(" ")[0] for name in part.columns[part.notna().any()])
    finals = [best_final(part, name, smaller) for name in names]
    finals = [value for value in finals if math.isfinite(value)]
    return (max if smaller else min)(finals, default=math.inf)


def sign(column: str) -> str:
    return "≤" if smaller_is_better(column) else "≥"


def reach_figure(found: Reach) -> Figure:
    """A row per problem (and phase), steps on the left and seconds on the right; a point per
    optimizer is the median over its seeds, its bar min to max, a cross at the edge: not reached."""
    keys = [key for key in ("phase", "problem") if key in found.frame]
    groups = list(found.frame.groupby(keys, sort=False))
    if len(groups) > MAX_PANELS // 2:
        raise TooManyPanels(f"{len(groups)} problems do not fit one figure of times to target")
    heights = [0.55 + 0.17 * len(part) for _, part in groups]
    lost = bool((found.frame["reached"] < found.frame["seeds"]).any())
    looks = style.looks(str(name).split(" ")[0] for name in found.frame["optimizer"])
    with style.rc():
        figure = style.blank(5.6, 0.5 + sum(heights))
        grid = figure.add_gridspec(len(groups), 2, height_ratios=heights)
        for row, (names, part) in enumerate(groups):
            part = part[::-1]  # the first at the top
            for column, clock in enumerate(("steps", "seconds")):
                axes = figure.add_subplot(grid[row, column])
                ends = part[[clock, f"{clock}_min", f"{clock}_max"]].to_numpy()
                ends = ends[np.isfinite(ends)]
                top = 1.05 * float(ends.max(initial=0.0)) or 1.0
                axes.set_xlim(0, top)
                axes.set_ylim(-0.6, len(part) - 0.4)
                axes.grid(visible=False, axis="y")
                for y, line in enumerate(part.to_dict("records")):
                    look = looks[str(line["optimizer"]).split(" ")[0]]
                    drawn: list[Artist] = []
                    low, high = line[f"{clock}_min"], min(line[f"{clock}_max"], top)
                    if math.isfinite(low):
                        drawn += axes.plot(
                            [low, high], [y, y], color=look.color, linewidth=style.points(0.9)
                        )
                    if math.isfinite(line[clock]):
                        drawn += axes.plot([line[clock]], [y], marker=look.marker, color=look.color)
                    if line["reached"] < line["seeds"]:
                        drawn += axes.plot([top], [y], **cross(), color=look.color)
                    style.mark(drawn, str(line["optimizer"]), f"{row}-{column}")
                labels = [str(name) for name in part["optimizer"]] if column == 0 else []
                axes.set_yticks(range(len(part)) if column == 0 else [], labels)
                for name, label in zip(labels, axes.get_yticklabels(), strict=True):
                    style.mark([label], name, f"{row}-label")
                axes.xaxis.set_major_locator(
                    MaxNLocator(3 if style.columns() == 1 else 5, integer=clock == "steps")
                )
                if not len(ends):  # nobody reached it: there is no scale
                    axes.set_xticks([])
                if row == len(groups) - 1:
                    name = "optimizer steps" if clock == "steps" else "training time (s)"
                    label_axes(figure, axes, name, "")
            title = ", ".join(str(name) for name in names if name)
            goal = f"{found.column} {sign(found.column)} {part['target'].iloc[0]:.4g}"
            title = f"{title}: {goal}" if title else goal
            width = figure.get_figwidth() / style.points(0.06) - part["optimizer"].map(len).max()
            figure.axes[-2].set_title(fill(title, max(8, int(width - 4))), loc="left")
        text = f"first evaluation at the target ({found.rule}); median of "
        text += f"{seeds_text(found.frame['seeds'])}, bar: min to max"
        text += "; ✖ not reached by all seeds" if lost else ""
        text += f"; {found.clocks}" if found.clocks else ""
        caption(figure, text)
    return figure

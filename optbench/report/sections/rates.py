"""Learning rates and tuning budgets of a report, as plain data."""

from collections.abc import Sequence
from typing import Any

from optbench.analysis.comparison import Comparison
from optbench.analysis.trials import Line, Lines, budget_lines, rate_lines, trial_lines
from optbench.figures.axes import y_label
from optbench.figures.looks import series_of
from optbench.figures.panels import titles
from optbench.figures.style import LineStyle
from optbench.figures.trials import scored
from optbench.report.sections.curves import Names, drawn
from optbench.report.tables import Panel, chart


def rates(made: Comparison, names: Names) -> list[Panel]:
    """Return results by learning rate. Raise UserError if no optimizer has two rates."""
    if not made.tuned:
        label = f"final {y_label(made.table, made.final)}"
        found = rate_lines(made, made.final, facet=made.options.facet, lines=made.options.lines)
        return charts(found, "learning rate", label, made.final, names)
    metric, pick = made.protocol
    label = scored(made.of_trials.table, metric, pick)
    return charts(trial_lines(made.of_trials, metric, pick), "learning rate", label, metric, names)


def budget(made: Comparison, names: Names) -> list[Panel]:
    """Return the best of 1, 2, ... trials. Raise UserError if trials are not random."""
    metric, pick = made.protocol
    found = budget_lines(made.of_trials, metric, pick)
    what = "median" if found.by_median else "expected"
    label = f"{what} best {scored(made.of_trials.table, metric, pick)}"
    panels = charts(found, "trials", label, metric, names)
    return [panel | {"logx": False} for panel in panels]


def charts(found: Lines, x: str, y: str, metric: str, names: Names) -> list[Panel]:
    """Return a chart for each panel of lines."""
    return [
        chart(
            ", ".join(titles(found.plan, part["panel"].iloc[0])), x, y, metric,
            lines_of(own, [look for *_, look in series_of(part, found.plan)], names),
        )
        for part, own in zip(found.plan.panels, found.panels, strict=True)
    ]  # fmt: skip


def lines_of(
    lines: Sequence[Line], looks: Sequence[LineStyle], names: Names
) -> list[dict[str, Any]]:
    """Return the lines of one chart as plain data."""
    result = []
    for each, look in zip(lines, looks, strict=True):
        toggle = names.toggle(each.name, each.optimizer)
        own: dict[str, Any] = {"name": each.name, "label": each.text, "toggle": toggle}
        own |= {**drawn(look), "x": each.x, "mid": each.mid}
        if each.low is not None:
            own |= {"low": each.low, "high": each.high}
        own["n"] = each.runs if each.dots is not None else min(each.counts)
        if each.lost is not None:
            own["lost"] = each.lost
        if each.dots is not None:
            own["dots"] = each.dots
        result.append(own)
    return result

"""The statistics of a report as plain data: each function makes one section from the tables.

A chart is a list of panels `{title, x, y, logx, logy, percent, lines}`, a line `{name, toggle, x,
mid, low, high, n, dots, lost}`; a table is `{columns, rows}` whose cells are `{t: text, v: number
to sort by}`. No number is formatted twice: what a reader sees, the statistics of the package say.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from optbench.analysis.columns import logged_columns
from optbench.analysis.series import layout
from optbench.analysis.summary import (
    AT_ONCE,
    COSTS,
    STEP_COSTS,
    cell,
    cost_cell,
    final_values,
    summary,
)
from optbench.common.errors import UserError
from optbench.common.metrics import smaller_is_better
from optbench.common.text import number, order, show
from optbench.figures.panels import default_log, titles, y_label
from optbench.figures.trials import envelope, scored, trial_layout
from optbench.report.sections.curves import Names, thinned
from optbench.stats.estimates import median
from optbench.stats.tuning_curves import check_exchangeable, expected_best

Panel = dict[str, Any]
Cell = dict[str, Any]


def cell_of(value: float, text: str | None = None) -> Cell:
    """A number as it is shown and sorted; what does not exist sorts last."""
    return {"t": number(value) if text is None else text, "v": value}


def ranking(
    table: pd.DataFrame, column: str, facet: Sequence[str] | None, lines: str | None, names: Names
) -> dict[str, Any]:
    """The ranked table: final values, phases of a tuned study side by side, divergence and cost."""
    frame = summary(table, column, facet, lines)
    stems = [str(c).removesuffix("_median") for c in frame if str(c).endswith("_median")]
    stems = [stem for stem in stems if frame[f"{stem}_median"].notna().any()]
    facets = list(map(str, frame.columns[: list(frame).index("optimizer")]))
    phased = "phase" in facets and {"tuned", "default"} & set(frame["phase"].map(show))
    problem = [key for key in facets if not (phased and key == "phase")]
    groups: dict[tuple[str, ...], dict[str, pd.Series]] = {}
    for _, row in frame.iterrows():
        who = str(row["optimizer"] if phased else row["variant"])
        key = (", ".join(show(row[name]) for name in problem), who)
        groups.setdefault(key, {})[show(row["phase"]) if phased else ""] = row
    phases = ["tuned", "default"] if phased else [""]
    if phased:
        groups = best_tuned_first(groups, column)
    columns = [*(["problem"] if problem else []), "optimizer"]
    columns += [
        f"{phase}: final {stem}".removeprefix(": ").replace("_", " ")
        + (" (%)" if "accuracy" in stem else "")
        for stem in stems
        for phase in phases
    ]
    costs = [name for name in STEP_COSTS if frame[name].notna().any()]
    columns += ["seeds", "diverged", *(COSTS[name] for name in costs)]
    rows = []
    for (where, who), found in groups.items():
        first = found.get(phases[0], next(iter(found.values())))
        cells: list[Cell] = [{"t": where, "v": where}] if problem else []
        cells.append({"t": str(first["variant"]), "v": str(first["variant"]), "head": True})
        for stem in stems:
            for phase in phases:
                own = found.get(phase)
                value = math.nan if own is None else float(own[f"{stem}_median"])
                cells.append(cell_of(value, "" if own is None else cell(own, stem)))
        count = sum(int(row["diverged"]) for row in found.values())
        cells += [cell_of(int(first["seeds"]), str(first["seeds"])), cell_of(count, str(count))]
        cells += [
            cell_of(float(first[name]), cost_cell(name, first[name], first["ms_per_step"]))
            for name in costs
        ]
        rows.append({"toggle": names.toggle_of.get(who, str(first["optimizer"])), "cells": cells})
    note = "Median [minimum, maximum] over the seeds of the last value of each run"
    note += "; a diverged run counts as the worst value, it is never left out."
    if "runs_at_once" in costs:
        note += f" {AT_ONCE}"
    if phased:
        note += " The columns of cost are those of the tuned setting."
    return {"columns": columns, "rows": rows, "note": note}


def best_tuned_first(
    groups: dict[tuple[str, ...], dict[str, pd.Series]], column: str
) -> dict[tuple[str, ...], dict[str, pd.Series]]:
    """The rows of a tuned study: by problem, then by the tuned result; who has none is last."""
    sign = 1 if smaller_is_better(column) else -1
    problems = list(dict.fromkeys(where for where, _ in groups))

    def place(item: tuple[tuple[str, ...], dict[str, pd.Series]]) -> tuple[int, float]:
        (where, _), found = item
        value = float(found["tuned"][f"{column}_median"]) if "tuned" in found else math.nan
        return problems.index(where), math.inf if math.isnan(value) else sign * value

    return dict(sorted(groups.items(), key=place))


def line(name: str, names: Names, **data: Any) -> dict[str, Any]:
    return {"name": name, "toggle": names.toggle_of.get(name, name), **data}


def tuned_rates(trials: pd.DataFrame, metric: str, pick: str, names: Names) -> list[Panel]:
    """Every trial at its learning rate; the line joins the best of each half decade."""
    plan = trial_layout(trials, metric, pick, None)
    runs = plan.runs.dropna(subset=["x"])
    runs = runs[runs["x"] > 0]
    panels = []
    for panel, part in by_panel(runs):
        drawn = []
        for name, own in part.groupby("optimizer", sort=True):
            own = own.sort_values("x")
            x, y = own["x"].to_numpy(dtype=float), own["y"].to_numpy(dtype=float)
            best, finite = envelope(x, y, smaller_is_better(metric)), np.isfinite(y)
            drawn.append(
                line(
                    str(name), names, x=x[best], mid=y[best], n=len(x), lost=x[~finite],
                    dots=np.column_stack([x[finite], y[finite]]),
                )
            )  # fmt: skip
        text = ", ".join(titles(plan, panel))
        panels.append(chart(text, "learning rate", scored(trials, metric, pick), metric, drawn))
    return panels


def swept_rates(
    table: pd.DataFrame, column: str, facet: Sequence[str] | None, names: Names
) -> list[Panel]:
    """Final values against the learning rate: the median over seeds, and their extremes."""
    plan = layout(table, facet, None, within=["optimizer.lr"])
    finals = final_values(table, column).reindex(plan.runs["run"])
    x = pd.to_numeric(plan.runs["optimizer.lr"], errors="coerce")
    runs = plan.runs.assign(x=x, y=finals.to_numpy()).astype({"x": float, "y": float})
    runs = runs.dropna(subset=["x", "y"])
    runs = runs[runs.groupby(["panel", "variant"])["x"].transform("nunique") > 1]
    panels = []
    for panel, part in by_panel(runs):
        drawn = []
        for name, own in part.groupby("variant", sort=True):
            values = [(at, group["y"].to_numpy(dtype=float)) for at, group in own.groupby("x")]
            good = [v[np.isfinite(v)] for _, v in values]
            drawn.append(
                line(
                    str(name), names,
                    x=np.array([at for at, _ in values]),
                    mid=np.array([float(median(v)) for _, v in values]),
                    low=np.array([v.min() if len(v) else math.nan for v in good]),
                    high=np.array([v.max() if len(v) else math.nan for v in good]),
                    n=min(len(v) for _, v in values),
                    lost=np.array([at for at, v in values if not np.isfinite(v).all()]),
                )
            )  # fmt: skip
            drawn[-1]["toggle"] = names.toggle_of.get(str(own["optimizer"].iloc[0]), str(name))
        text = ", ".join(titles(plan, panel))
        label = f"final {y_label(table, column)}"
        panels.append(chart(text, "learning rate", label, column, drawn))
    return panels


def budget(trials: pd.DataFrame, metric: str, pick: str, names: Names) -> list[Panel]:
    """The best of 1, 2, ... trials: expected, or the median where a trial diverged.

    Raises UserError where trials are no random ones.
    """
    check_exchangeable(trials)
    plan = trial_layout(trials, metric, pick, None)
    lost = bool(np.isinf(plan.runs["y"].to_numpy(dtype=float)).any())
    words = ("median", "median_low", "median_high") if lost else ("expected", "low", "high")
    panels = []
    for panel, part in by_panel(plan.runs):
        drawn = []
        for name, own in part.groupby("optimizer", sort=True):
            curve = expected_best(own["y"].to_numpy(dtype=float), smaller_is_better(metric))
            mid, low, high = (curve[word].to_numpy(dtype=float) for word in words)
            x = curve["trials"].to_numpy(dtype=float)
            drawn.append(line(str(name), names, x=x, mid=mid, low=low, high=high, n=len(own)))
        label = f"{'median' if lost else 'expected'} best {scored(trials, metric, pick)}"
        text = ", ".join(titles(plan, panel))
        panels.append(chart(text, "trials", label, metric, drawn) | {"logx": False})
    return panels


def layers(table: pd.DataFrame, names: Names, most: int = 60) -> dict[str, Any]:
    """Statistics of the layers by step: medians over the seeds, a panel per problem and layer."""
    skip = {"epoch", "step", "layer", "kind", "depth"}
    metrics = [name for name in logged_columns(table) if name not in skip]
    plan = layout(table)
    variant = dict(zip(plan.runs["run"], plan.runs["variant"], strict=True))
    text = {
        run: ", ".join(titles(plan, panel))
        for run, panel in zip(plan.runs["run"], plan.runs["panel"], strict=True)
    }
    runs = table["run"].astype(object)
    layer = table["layer"].astype(str)
    kind = table["kind"].astype(str)
    titled = ("layer " + layer + ", " + kind).where(layer != "all", "the whole model")
    rows = (
        table[["step", *metrics]]
        .assign(layer=titled)
        .assign(variant=runs.map(variant), panel=runs.map(text), run=runs)
    )
    grid = np.sort(rows["step"].unique())
    rows = rows[rows["step"].isin(grid[thinned(len(grid), most)])]
    keys = ["panel", "layer", "variant"]
    entries = []
    for (panel, which, name), part in rows.groupby(keys, sort=False):
        own = part.groupby("step", sort=True)[metrics].median()
        values = {
            metric: own[metric].to_numpy(dtype=float)
            for metric in metrics
            if np.isfinite(own[metric].to_numpy(dtype=float)).any()
        }
        entries.append(
            {
                "panel": f"{panel}: {which}".removeprefix(": "),
                **line(str(name), names, x=own.index.to_numpy(dtype=float)),
                "n": int(part["run"].nunique()),
                "values": values,
            }
        )
    present = [name for name in metrics if any(name in entry["values"] for entry in entries)]
    return {"metrics": present, "lines": entries}


def by_panel(runs: pd.DataFrame) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The runs of each panel, in the order of its values."""
    keys = [tuple(map(order, panel)) for panel in runs["panel"]]
    parts = [runs[[key == place for key in keys]] for place in sorted(set(keys))]
    return [(part["panel"].iloc[0], part) for part in parts]


def chart(title: str, x: str, y: str, metric: str, lines: list[dict[str, Any]]) -> Panel:
    """One panel; a logarithmic x axis, and y as the metric has it."""
    if not lines:
        raise UserError(f"nothing to draw against {x}")
    return {
        "title": title, "x": x, "y": y, "logx": True, "logy": default_log(metric),
        "percent": "accuracy" in metric, "lines": lines,
    }  # fmt: skip

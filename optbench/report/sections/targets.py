"""Times to target and performance profiles of a report, as plain data."""

from typing import Any

import numpy as np

from optbench.analysis.comparison import Comparison
from optbench.analysis.final_values import COSTS, STEP_COSTS, TOGETHER_NOTE, cost_cell
from optbench.analysis.over_problems import profile_of
from optbench.analysis.time_to_target import UNITS, TimeToTarget, time_text
from optbench.common.metrics import metric_of, target_text
from optbench.common.text import aside
from optbench.figures.kinds import times_fit
from optbench.figures.time_to_target import time_to_target_figure
from optbench.report.sections.curves import Names
from optbench.report.tables import Cell, chart, head_cell, picture, sortable_cell


def performance(made: Comparison, names: Names) -> dict[str, Any]:
    """Return the performance profile over problems, with the benchmark scores.
    Raises UserError below two problems."""
    ranked, shares = profile_of(made)
    count = int(ranked["n"].iloc[0])
    x = np.array(shares.columns, dtype=float)
    drawn = [
        {"name": name, "toggle": names.toggle(name, name), "x": x, "mid": mid, "n": count}
        for name, mid in zip(map(str, shares.index), shares.to_numpy(float), strict=True)
    ]
    panel = chart("", "steps to the target / the fastest optimizer's", "share of problems (%)",
                  "accuracy", drawn)  # fmt: skip
    rows = [
        {
            "toggle": names.toggle(str(entry["optimizer"]), str(entry["optimizer"])),
            "cells": [
                head_cell(str(entry["optimizer"])),
                sortable_cell(entry["score"], f"{entry['score']:.3f}"),
                sortable_cell(entry["reached"], f"{entry['reached']} of {entry['n']}"),
            ],
        }
        for entry in ranked.to_dict("records")
    ]
    table = {"columns": ["optimizer", "benchmark score", "targets reached"], "rows": rows}
    shown = {"logx": False, "yRange": [-0.02, 1.02]}  # all shares, also where all are at 100 %
    return {"panels": [panel | shown], "table": table}


def figure_of(made: Comparison, found: TimeToTarget, names: Names) -> dict[str, Any] | None:
    """Return the figure of times to target, or None if a sweep would not draw it."""
    if not times_fit(made):
        return None
    return picture(lambda: time_to_target_figure(found), names, made.few_searches)


def reached(found: TimeToTarget, names: Names, settings: str = "") -> dict[str, Any]:
    """Return the table of times to target, with the cost of a step beside the steps.

    settings: `comparison.settings_phrase`.
    """
    keys = [key for key in ("phase", "problem") if key in found.frame]
    keys = [key for key in keys if len(found.frame[key].unique()) > 1]
    clocks = ("epoch", "step", "seconds")
    columns = [*keys, "optimizer", "target", "reached", *(UNITS[clock] for clock in clocks)]
    costs = [name for name in STEP_COSTS if found.frame[name].notna().any()]
    columns += [COSTS[name] for name in costs]
    rows = []
    for entry in found.frame.to_dict("records"):
        name = str(entry["optimizer"])
        cells: list[Cell] = [{"t": str(entry[key]), "v": str(entry[key])} for key in keys]
        cells.append(head_cell(name))
        goal = f"{metric_of(found.column).label} {found.sign} "
        goal += target_text(entry["target"], found.column)
        cells.append(sortable_cell(entry["target"], goal))
        cells.append(sortable_cell(entry["reached"], f"{entry['reached']} of {entry['seeds']}"))
        for clock in clocks:
            values = [entry[UNITS[clock] + end] for end in ("", "_min", "_max")]
            texts = [time_text(value) for value in values]
            same = len(set(texts)) == 1
            text = texts[0] if same else f"{texts[0]} [{texts[1]}, {texts[2]}]"
            cells.append(sortable_cell(values[0], text))
        cells += [
            sortable_cell(entry[name], cost_cell(name, entry[name], entry["ms_per_step"]))
            for name in costs
        ]
        rows.append({"toggle": names.toggle(name, found.owners[name]), "cells": cells})
    note = f"The first evaluation at the target, which is {found.rule}. Median [minimum, maximum]"
    note += f" over seeds{aside(settings)}; never: not reached, as for every run that diverged."
    if "runs_at_once" in costs:
        note += f" {TOGETHER_NOTE}"
    if found.note:
        note += f" {found.note[0].upper()}{found.note[1:]}."
    return {"columns": columns, "rows": rows, "note": note}

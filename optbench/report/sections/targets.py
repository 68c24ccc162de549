"""Times to target and performance profiles of a report, as plain data (see `report_data`)."""

import math
from typing import Any

import numpy as np

from optbench.analysis.comparison import times_by_problem
from optbench.analysis.summary import AT_ONCE, COSTS, STEP_COSTS, cost_cell
from optbench.analysis.time_to_target import UNITS, Reach, sign
from optbench.figures.profile import scores
from optbench.report.sections.curves import Names
from optbench.report.tables import Cell, cell_of, chart, line
from optbench.stats.algoperf import profile


def performance(found: Reach, names: Names) -> dict[str, Any] | None:
    """The performance profile over problems with the benchmark scores; None below two problems."""
    matrix = times_by_problem(found)
    if matrix is None:
        return None
    shares = profile(matrix)
    x = np.array(shares.columns, dtype=float)
    drawn = [
        line(str(name), names, x=x, mid=row.to_numpy(dtype=float), n=matrix.shape[1])
        for name, row in shares.iterrows()
    ]
    panel = chart("", "steps to the target / the fastest optimizer's", "share of problems (%)",
                  "accuracy", drawn)  # fmt: skip
    rows = [
        {
            "toggle": names.toggle_of.get(str(entry["optimizer"]), str(entry["optimizer"])),
            "cells": [
                {"t": str(entry["optimizer"]), "v": str(entry["optimizer"]), "head": True},
                cell_of(entry["score"], f"{entry['score']:.3f}"),
                cell_of(entry["reached"], f"{entry['reached']} of {entry['n']}"),
            ],
        }
        for entry in scores(matrix).to_dict("records")
    ]
    table = {"columns": ["optimizer", "benchmark score", "targets reached"], "rows": rows}
    return {"panels": [panel | {"logx": False}], "table": table}


def reached(found: Reach, names: Names) -> dict[str, Any]:
    """The table of times to target, with what a step costs beside every count of steps."""
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
        cells.append({"t": name, "v": name, "head": True})
        goal = f"{found.column} {sign(found.column)} {entry['target']:.4g}".replace("_", " ")
        cells.append(cell_of(entry["target"], goal))
        cells.append(cell_of(entry["reached"], f"{entry['reached']} of {entry['seeds']}"))
        for clock in clocks:
            values = [entry[UNITS[clock] + end] for end in ("", "_min", "_max")]
            texts = [f"{value:.4g}" if math.isfinite(value) else "never" for value in values]
            same = len(set(texts)) == 1
            text = texts[0] if same else f"{texts[0]} [{texts[1]}, {texts[2]}]"
            cells.append(cell_of(values[0], text))
        cells += [
            cell_of(entry[name], cost_cell(name, entry[name], entry["ms_per_step"]))
            for name in costs
        ]
        rows.append({"toggle": names.toggle_of.get(name, name.split(" ")[0]), "cells": cells})
    note = f"The first evaluation at the target, which is {found.rule}. Median [minimum, maximum]"
    note += " over seeds; never: not reached, as for every run that diverged."
    if "runs_at_once" in costs:
        note += f" {AT_ONCE}"
    if found.clocks:
        note += f" {found.clocks[0].upper()}{found.clocks[1:]}."
    return {"columns": columns, "rows": rows, "note": note}

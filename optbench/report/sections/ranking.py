"""The ranked table of a report, as plain data."""

import math
from typing import Any

import pandas as pd

from optbench.analysis.columns import problem_text
from optbench.analysis.comparison import PHASES, Comparison
from optbench.analysis.final_values import COSTS, STEP_COSTS, TOGETHER_NOTE, cost_cell
from optbench.analysis.leader import place
from optbench.analysis.summary import format_final, summary
from optbench.common.metrics import metric_of
from optbench.common.text import aside, show
from optbench.formats.groups import config_folder
from optbench.report.repeat_command import engines_note
from optbench.report.sections.curves import Names
from optbench.report.tables import Cell, head_cell, sortable_cell


def ranking(made: Comparison, column: str, names: Names) -> dict[str, Any]:
    """Return the ranked table: final values, phases side by side, divergence and cost."""
    frame = summary(made, column, made.options.facet, made.options.lines)
    stems = [str(c).removesuffix("_median") for c in frame if str(c).endswith("_median")]
    stems = [stem for stem in stems if frame[f"{stem}_median"].notna().any()]
    facets = list(map(str, frame.columns[: list(frame).index("optimizer")]))
    phased = "phase" in facets and {*PHASES} & set(frame["phase"].map(show))
    problem = [key for key in facets if not (phased and key == "phase")]
    groups: dict[tuple[str, ...], dict[str, pd.Series]] = {}
    for _, row in frame.iterrows():
        who, phase = str(row["variant"]), show(row["phase"]) if phased else ""
        if phased and phase not in PHASES:  # runs that stand beside the study
            who, phase = f"{who} (not tuned)", PHASES[0]
        key = (problem_text(problem, row[problem].to_numpy()), who)
        groups.setdefault(key, {})[phase] = row
    phases = list(PHASES) if phased else [""]
    if phased:
        groups = best_tuned_first(groups, column)
    columns = [*(["problem"] if problem else []), "optimizer"]
    columns += [
        f"{phase}: final {metric_of(stem).title}".removeprefix(": ")
        for stem in stems
        for phase in phases
    ]
    costs = [name for name in STEP_COSTS if frame[name].notna().any()]
    columns += ["seeds", "diverged", *(COSTS[name] for name in costs)]
    rows = []
    for (where, who), found in groups.items():
        first = found.get(phases[0], next(iter(found.values())))
        cells: list[Cell] = [{"t": where, "v": where}] if problem else []
        cells.append(head_cell(who))
        for stem in stems:
            for phase in phases:
                own = found.get(phase)
                value = math.nan if own is None else float(own[f"{stem}_median"])
                cells.append(sortable_cell(value, "" if own is None else format_final(own, stem)))
        count = sum(int(row["diverged"]) for row in found.values())
        cells += [
            sortable_cell(int(first["seeds"]), str(first["seeds"])),
            sortable_cell(count, str(count)),
        ]
        cells += [
            sortable_cell(float(first[name]), cost_cell(name, first[name], first["ms_per_step"]))
            for name in costs
        ]
        toggle = names.toggle_of.get(str(first["variant"]), str(first["optimizer"]))
        rows.append({"toggle": toggle, "cells": cells})
    note = "Median [minimum, maximum] over the "
    note += "searches, each the mean of its seeds," if frame.attrs["searches"] else "seeds"
    note += f"{aside(made.few_searches)} of the last value of each run"
    note += "; a diverged run counts as the worst value, it is never left out."
    if "runs_at_once" in costs:
        note += f" {TOGETHER_NOTE}"
    if engines := engines_note(made, config_folder()):
        note += f" {engines[0].upper()}{engines[1:]}."
    if phased:
        note += " The columns of cost are those of the tuned setting."
    return {"columns": columns, "rows": rows, "note": note}


def best_tuned_first(
    groups: dict[tuple[str, ...], dict[str, pd.Series]], column: str
) -> dict[tuple[str, ...], dict[str, pd.Series]]:
    """Return a tuned study's rows by problem and tuned result, missing results last."""
    problems = list(dict.fromkeys(where for where, _ in groups))

    def rank(item: tuple[tuple[str, ...], dict[str, pd.Series]]) -> tuple[int, float, float]:
        (where, _), found = item
        row = found.get("tuned")
        value = math.nan if row is None else float(row[f"{column}_median"])
        lost = 0.0 if row is None else row["diverged"] / row["seeds"]
        return problems.index(where), *place(value, metric_of(column).smaller, lost)[:2]

    return dict(sorted(groups.items(), key=rank))

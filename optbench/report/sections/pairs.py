"""What a report compares on each problem, paired by seed, and the matrix of all pairs."""

from typing import Any

import pandas as pd

from optbench.analysis.leader import best_settings
from optbench.analysis.pairing import by_seed, run_keys
from optbench.analysis.series import layout
from optbench.analysis.time_to_target import phases
from optbench.common.metrics import smaller_is_better
from optbench.common.text import show
from optbench.figures.panels import titles
from optbench.report.sections.curves import Names
from optbench.stats.pairwise import compare

MOST_PAIRED = 12  # series of one matrix: 66 pairs


def finals(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """`by_seed` of the tuned settings, or of all settings of an ordinary sweep."""
    return by_seed(phases(table).get("tuned", table), column)


def owner_of(table: pd.DataFrame) -> dict[str, str]:
    """The optimizer of each column of `by_seed`."""
    runs = run_keys(table)
    optimizer = table.drop_duplicates("run").set_index("run")["optimizer"].astype(str)
    return {str(v): optimizer.loc[r] for r, v in zip(runs["run"], runs["variant"], strict=True)}


def labels_of(table: pd.DataFrame) -> dict[str, str]:
    """What each problem of `by_seed` is called, with its keys, as in "batch_norm = true"."""
    plan = layout(table)
    keys = [key for key in plan.facet if key != "optimizer"]
    told = plan._replace(facet=keys)
    found = {}
    for values in plan.runs[keys].drop_duplicates().to_numpy():
        found[", ".join(map(show, values))] = ", ".join(titles(told, tuple(values)))
    return found or {"": ""}


def matrices(table: pd.DataFrame, column: str, names: Names) -> list[dict[str, Any]]:
    """All pairs of each problem, row minus column, each optimizer at the best of its settings. p is
    that of the max-type test over all pairs of settings."""
    frame = finals(table, column)
    main = phases(table).get("tuned", table)
    owners, labels = owner_of(main), labels_of(main)
    smaller = smaller_is_better(column)
    found = []
    for problem, rows in frame.groupby(level="problem", sort=False):
        rows = rows.dropna(axis=1, how="all")
        best = best_settings(rows, owners, smaller)
        ranked = best[:MOST_PAIRED]
        if len(ranked) < 2:
            continue
        pairs = compare(rows, None, smaller, among=ranked, owners=owners)
        cells: dict[str, dict[str, Any]] = {}
        for pair in pairs.to_dict("records"):
            word = pair["verdict"].split(" (")[0]
            turned = {"better": "worse", "worse": "better"}.get(word, word)
            ends = {key: pair[key] for key in ("difference", "low", "high")}
            back = {"difference": -ends["difference"], "low": -ends["high"], "high": -ends["low"]}
            shared = {"n": pair["n"], "p": pair["p_corrected"]}
            cells.setdefault(pair["a"], {})[pair["b"]] = {**ends, **shared, "word": word}
            cells.setdefault(pair["b"], {})[pair["a"]] = {**back, **shared, "word": turned}
        found.append(
            {
                "problem": labels[str(problem)],
                "names": ranked,
                "toggles": [names.toggle_of.get(name, owners[name]) for name in ranked],
                "cells": cells,
                "left_out": len(best) - len(ranked),
            }
        )
    return found

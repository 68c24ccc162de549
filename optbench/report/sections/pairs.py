"""A report's comparisons of all pairs on each problem, paired by seed."""

from collections.abc import Collection
from typing import Any

from optbench.analysis.columns import problem_text
from optbench.analysis.comparison import Comparison
from optbench.analysis.leader import best_settings
from optbench.analysis.pairing import by_seed, owners_of
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import capital
from optbench.figures.panels import titles
from optbench.report.sections.curves import Names
from optbench.stats.corrections import UNPAIRED
from optbench.stats.pairwise import compare

MAX_PAIRED = 12  # series of one matrix, which are 66 pairs


def labels_of(made: Comparison) -> dict[str, str]:
    """Return the label of each problem of `by_seed`, as in "batch_norm = true"."""
    plan = made.compared()
    hidden = {"optimizer"} if made.main is None else {"optimizer", "phase"}
    keys = [key for key in plan.facet if key not in hidden]
    told = plan._replace(facet=keys)
    found = {}
    for values in plan.runs[keys].drop_duplicates().to_numpy():
        found[problem_text(keys, values)] = ", ".join(titles(told, tuple(values)))
    return found or {"": ""}


def lead(column: str, corrections: Collection[str], settings: str = "") -> str:
    """Return how to read the pairs, and how their test relates to the verdict's.

    corrections: of the verdict's p-values. settings: `comparison.settings_phrase`."""
    marks = f"{capital(settings)}. " if settings else ""
    marks += (
        f"Row minus column in final {metric_of(column).label}; ▲ the row is better, ▼ "
        "worse, no mark: cannot tell. "
    )
    if UNPAIRED in corrections:
        return (
            f"{marks}The runs are not paired: p is of the rank-sum test, with Holm's correction "
            "over all pairs of a problem."
        )
    return (
        f"{marks}p is of the sign-flip test of the largest |t| over all pairs of a problem "
        "(max-type), as in the leader's verdict."
    )


def matrices(made: Comparison, column: str, names: Names) -> list[dict[str, Any]]:
    """Return all pairs of each problem, row minus column, each at its best setting.
    p is of the max-type test over all pairs of settings."""
    frame = by_seed(made, column, only=made.main)
    owners, labels = owners_of(frame), labels_of(made)
    smaller = metric_of(column).smaller
    found = []
    for problem, rows in frame.groupby(level="problem", sort=False):
        rows = rows.dropna(axis=1, how="all")
        best = best_settings(rows, owners, smaller)
        ranked = best[:MAX_PAIRED]
        if len(ranked) < 2:
            continue
        try:
            pairs = compare(rows, None, smaller, among=ranked, owners=owners)
        except UserError:
            continue  # no two of them share a seed
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
                "toggles": [names.toggle(name, owners[name]) for name in ranked],
                "cells": cells,
                "left_out": len(best) - len(ranked),
            }
        )
    return found

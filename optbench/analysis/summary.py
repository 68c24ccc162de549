"""The table of final values, best optimizer first."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from optbench.analysis.columns import measured_columns, panel_key, problem_text
from optbench.analysis.comparison import Runs, check_logged, comparison_of
from optbench.analysis.final_values import COSTS, TOGETHER_NOTE, cost_cell, seeds_text, timing_note
from optbench.analysis.leader import place
from optbench.analysis.pairing import units
from optbench.common.metrics import TASK_METRICS, final_text, metric_of
from optbench.common.text import aside, limit, show
from optbench.formats.run import GAP
from optbench.stats import estimates
from optbench.stats.estimates import median
from optbench.stats.paired_tests import enough_seeds

BOLD_TESTS = {
    True: "max-type sign-flip test of all pairs on common seeds",
    False: "rank-sum test with Holm's correction over all pairs, as runs are not paired",
}


def bold_note(paired: bool = True, settings: str = "") -> str:
    """Return what a bold value means, with the test.

    paired: whether runs share seeds. settings: `comparison.settings_phrase`.
    """
    others = "every other of these settings" if settings else "every other one"
    return f"bold: better than {others} there (two-sided {BOLD_TESTS[paired]}, p at most 0.05)"


def summary(
    runs: Runs, y: str = "train_loss", facet: Sequence[str] | None = None, lines: str | None = None
) -> pd.DataFrame:
    """Return the final values per panel and series, best first by the median of `y`.

    Columns: the facet keys, optimizer, variant (name and settings), seeds (n), diverged (n);
    median, min and max of each final value; mean, sd, iqm, iqm_low and iqm_high of `y` (see
    `spread`); the medians of seconds_per_epoch, ms_per_step (of training with all passes), step_ms
    (the optimizer's part: see `cost_of_runs`), state_bytes_per_parameter, peak_mb (of memory), and
    runs_at_once (trained together, each with an equal share of the time). Costs are NaN if no run
    measured them, and if another engine than the majority's made all runs. Accuracies are
    fractions. A diverged run counts as inf in a loss and -inf in an accuracy; NaN: never logged.
    Where searches are the `pairing.units`, a final value is the mean over a search's seeds.
    Raises UserError as `assign_series` does, and for a column that was not logged.
    """
    made = comparison_of(runs)
    check_logged(made.table, y, measured_columns(made.table))
    plan = made.series(facet, lines)
    named = (f"{part}_{name}" for part in ("val", "test") for name in TASK_METRICS)
    measured = [name for name in named if name in made.table]
    if any(not name.endswith("accuracy") and made.has(name) for name in measured):
        measured = [name for name in measured if made.has(name)]  # of values, not of classes
    gap = [GAP] if made.has(GAP) else []
    columns = dict.fromkeys([y, "train_loss", *measured, *gap])
    finals = {name: made.finals(name) for name in columns if name in made.table}
    costs = made.costs
    # panels by optimizer are for figures only: the table ranks all variants together
    facets = [key for key in plan.facet if key != "optimizer"]
    unit = units(plan.runs)
    search_of = unit.set_index("run")["seed"] if unit["search"].all() else None
    shown = plan.runs[facets].map(show)
    keys = [*(shown[key] for key in facets), plan.runs["variant"]]
    ordered = []
    for _, part in plan.runs.groupby(keys, sort=False):
        first, members = part.iloc[0], list(part["run"])
        line: dict[str, Any] = {key: first[key] for key in (*facets, "optimizer", "variant")}
        line["seeds"] = len(members)
        line["diverged"] = int((part["status"] == "diverged").sum())
        told: dict[str, float] = {}
        for column, values in finals.items():
            each = values.loc[members].astype(float)
            if search_of is not None:
                each = each.groupby(search_of.loc[members].to_numpy()).mean()
            ends = each.to_numpy()
            for word, function in (("median", median), ("min", np.min), ("max", np.max)):
                line[f"{column}_{word}"] = float(function(ends))
            told |= spread(y, ends) if column == y else {}
        line |= told
        line |= {name: float(costs.loc[members, name].median()) for name in COSTS}
        if line["step_ms"] > line["ms_per_step"]:  # possible if runs lack one of the two
            line["step_ms"] = line["ms_per_step"]
        share = line["diverged"] / line["seeds"]
        rank = place(line[f"{y}_median"], metric_of(y).smaller, share, line["variant"])
        ordered.append(([panel_key(value) for value in first[facets]], rank, line))
    frame = pd.DataFrame([line for *_, line in sorted(ordered, key=lambda item: item[:2])])
    frame.attrs["engines"] = made.timing.sentence
    frame.attrs["timing"] = timing_note(costs)
    frame.attrs["selection"] = made.selection
    frame.attrs["paired"] = made.paired
    frame.attrs["settings"] = made.few_searches
    frame.attrs["searches"] = 0 if search_of is None else int(search_of.nunique())
    return frame


def spread(column: str, values: np.ndarray) -> dict[str, float]:
    """Return mean, sd, IQM and its bootstrap 95 % interval; NaN if never logged."""
    estimate = estimates.Estimate(math.nan, math.nan, math.nan, 0)
    if not np.isnan(values).any():
        estimate = estimates.bootstrap(values, "iqm")
    numbers = (estimates.mean(values), estimates.sd(values), *estimate[:3])
    words = ("mean", "sd", "iqm", "iqm_low", "iqm_high")
    return {f"{column}_{word}": value for word, value in zip(words, numbers, strict=True)}


def to_markdown(frame: pd.DataFrame, best: Collection[tuple[str, str, str]] = ()) -> str:
    """Return a `summary` as Markdown; the medians in `best` (`latex.bold`) are bold."""
    names = list(map(str, frame))
    keys = names[: names.index("optimizer")]
    problems = [problem_text(keys, row) for row in frame[keys].to_numpy()]
    stems = [name.removesuffix("_median") for name in names if name.endswith("_median")]
    # the variant names the optimizer, and the median's cell has the extremes
    hidden = {"optimizer", *(f"{stem}_{end}" for stem in stems for end in ("min", "max"))}
    hidden |= {name for name in names if name.endswith(("_mean", "_sd", "_iqm", "_iqm_high"))}
    columns: dict[str, list[str]] = {}
    for name in names:
        stem = name.removesuffix("_median")
        if name in hidden:
            continue
        if stem in stems:
            columns[f"final {metric_of(stem).title}"] = [
                format_final(row, stem, (stem, problem, str(row["variant"])) in best)
                for problem, (_, row) in zip(problems, frame.iterrows(), strict=True)
            ]
        elif name.endswith("_iqm_low"):
            stem = name.removesuffix("_iqm_low")
            ends = zip(frame[name], frame[f"{stem}_iqm_high"], strict=True)
            # the bootstrap interval of fewer seeds covers less, even between their extremes
            shown = [
                "" if math.isnan(low) or n < enough_seeds() else f"[{limit(low)}, {limit(high)}]"
                for (low, high), n in zip(ends, frame["seeds"], strict=True)
            ]
            if any(shown):
                columns[f"{metric_of(stem).label}: 95 % interval of the IQM"] = shown
        elif name in COSTS:
            if frame[name].notna().any():
                columns[COSTS[name]] = [
                    cost_cell(name, value, whole)
                    for value, whole in zip(frame[name], frame["ms_per_step"], strict=True)
                ]
        else:
            texts = [show(value).replace("|", "\\|") for value in frame[name]]
            columns["optimizer" if name == "variant" else name] = texts
    titles = [title.replace("_", " ") for title in columns]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    lines += ["| " + " | ".join(cells) + " |" for cells in zip(*columns.values(), strict=True)]
    settings = frame.attrs.get("settings", "")
    searches = frame.attrs.get("searches")
    over = f"{searches} searches, each the mean of its seeds" if searches else ""
    over = over or f"{seeds_text(frame['seeds'])}{aside(settings)}"
    only = frame.attrs.get("selection")
    only = f" of the runs with {only} alone" if only else ""
    note = f"Final values{only}: median [minimum, maximum] over n = {over}."
    if frame["diverged"].any():
        note += " A diverged run counts as the worst value, it is never left out."
    if frame["runs_at_once"].notna().any():
        note += f" {TOGETHER_NOTE}"
    bold = bold_note(frame.attrs.get("paired", True), settings) if best else ""
    told = (frame.attrs.get("timing"), frame.attrs.get("engines"), bold)
    note += "".join(f" {text[0].upper()}{text[1:]}." for text in told if text)
    return "\n".join([*lines, "", note, ""])


def format_final(row: pd.Series, stem: str, best: bool = False) -> str:
    """Return one cell, as in "median [min, max]"; an infinite end is "diverged"."""
    values = [row[f"{stem}_{word}"] for word in ("median", "min", "max")]
    if math.isnan(values[0]):
        return "n/a"  # no such split
    texts = [final_text(value, stem) for value in values]
    first = f"**{texts[0]}**" if best else texts[0]
    if row["seeds"] == 1 or len(set(texts)) == 1:
        return first
    return f"{first} [{texts[1]}, {texts[2]}]"

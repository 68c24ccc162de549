"""The value that each run ended with, and a table of them: which optimizer did best."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from optbench.analysis.columns import measured_columns, problem_text
from optbench.analysis.series import layout
from optbench.common.errors import UserError
from optbench.common.metrics import worst
from optbench.common.text import count, limit, number, order, show
from optbench.formats.run import COST_COLUMNS
from optbench.stats.estimates import median

COSTS = {
    "seconds_per_epoch": "seconds per epoch",
    "ms_per_step": "ms per training step",
    "step_ms": "ms of it the optimizer's",
    "state_bytes_per_parameter": "optimizer state (bytes per parameter)",
    "runs_at_once": "runs at once",
}
AT_ONCE = "Of runs trained at once the times are equal shares of what they took together."
BOLD = (
    "bold: better than every other one there (two-sided max-type sign-flip test of all pairs on "
    "common seeds, p at most 0.05)"
)
MOST_SPREAD = 2.0  # of timings: beyond it their fastest is named with a word of warning
STEP_COSTS = tuple(name for name in COSTS if name != "seconds_per_epoch")


def final_values(table: pd.DataFrame, column: str) -> pd.Series:
    """The last logged value of each run (index: run); the worst value for a diverged run or a
    NaN at the end; NaN where the column was never logged (there is no such split)."""
    by_run = table.groupby("run", observed=True, sort=False)
    last = table[~table["run"].duplicated(keep="last")].set_index("run")
    last.index = last.index.astype(object)
    logged = by_run[column].count().reindex(last.index) > 0
    diverged = last["status"] == "diverged"
    # a run that diverged at once logged no number: other runs tell whether there is such a split
    split = table.loc[table[column].notna(), "problem"].unique()
    logged |= diverged & (last["problem"].isin(split) | (column == "train_loss"))
    return last[column].where(~(diverged | last[column].isna()), worst(column)).where(logged)


def summary(
    table: pd.DataFrame,
    y: str = "train_loss",
    facet: Sequence[str] | None = None,
    lines: str | None = None,
) -> pd.DataFrame:
    """Final values per panel and series, best first by the median of `y`, diverged ones last.

    Columns: the facet keys, optimizer, variant (name and settings), seeds (n), diverged (n),
    then median, min and max over all the seeds of each final value, mean, sd, iqm, iqm_low and
    iqm_high (see `spread`) of that of `y`, and the medians of
    seconds_per_epoch, ms_per_step (of training, passes and all), step_ms (the optimizer's part
    of that: see `cost_of_runs`), state_bytes_per_parameter, and runs_at_once (how many were trained
    together: the time of each is an equal share of theirs), NaN where no run measured them.
    Accuracies are fractions.
    A diverged run counts as inf in a loss and -inf in an accuracy; NaN: never logged.
    Raises UserError as `layout` does, and for a column that was not logged.
    """
    measured = measured_columns(table)
    if y not in measured:
        raise UserError(f"no logged column {y!r}; there are: {', '.join(measured)}")
    plan = layout(table, facet, lines)
    runs = plan.runs.set_index("run")
    columns = dict.fromkeys([y, "train_loss", "val_accuracy", "test_accuracy"])
    finals = {name: final_values(table, name) for name in columns if name in table}
    costs = cost_of_runs(table)
    # panels by optimizer are for the eye: here its variants are ranked against the others
    facets = [key for key in plan.facet if key != "optimizer"]
    groups: dict[tuple[str, ...], list[str]] = {}
    for run, row in runs.iterrows():
        key = (*map(show, row[facets]), row["optimizer"], row["variant"])
        groups.setdefault(key, []).append(str(run))
    ranked = []
    for members in groups.values():
        first = runs.loc[members[0]]
        line: dict[str, Any] = {key: first[key] for key in (*facets, "optimizer", "variant")}
        line["seeds"] = len(members)
        line["diverged"] = int((runs.loc[members, "status"] == "diverged").sum())
        for column, values in finals.items():
            part = values.loc[members].to_numpy(dtype=float)
            for word, function in (("median", median), ("min", np.min), ("max", np.max)):
                line[f"{column}_{word}"] = float(function(part))
        line |= spread(y, finals[y].loc[members].to_numpy(dtype=float))
        line |= {name: float(costs.loc[members, name].median()) for name in COSTS}
        if line["step_ms"] > line["ms_per_step"]:  # of runs that lack one of the two
            line["step_ms"] = line["ms_per_step"]
        best = line[f"{y}_median"]
        best = math.inf if math.isnan(best) else -best if "accuracy" in y else best
        panel = [order(value) for value in first[facets]]
        ranked.append(((panel, best, line["diverged"] / line["seeds"], line["variant"]), line))
    frame = pd.DataFrame([line for _, line in sorted(ranked, key=lambda item: item[0])])
    frame.attrs["clocks"] = unlike_clocks(table)
    frame.attrs["timing"] = timing_note(costs)
    return frame


def spread(column: str, values: np.ndarray) -> dict[str, float]:
    """Mean, sample standard deviation and IQM of the final values, and the IQM's bootstrap 95 %
    interval; all NaN where the column was never logged."""
    from optbench.stats import estimates  # which needs this module

    estimate = estimates.Estimate(math.nan, math.nan, math.nan, 0)
    if not np.isnan(values).any():
        estimate = estimates.bootstrap(values, "iqm")
    numbers = (estimates.mean(values), estimates.sd(values), *estimate[:3])
    words = ("mean", "sd", "iqm", "iqm_low", "iqm_high")
    return {f"{column}_{word}": value for word, value in zip(words, numbers, strict=True)}


def cost_of_runs(table: pd.DataFrame) -> pd.DataFrame:
    """What each run (index) cost: the columns of COSTS, and the spread of its timings.

    ms_per_step is that of the run's fastest stretch between two rows: what else a machine does
    only adds. step_ms is the optimizer's part of it, the fastest of its calls, and never more than
    ms_per_step; NaN where the steps are compiled or runs were trained at once, for then the
    optimizer's step, which was timed by itself, is no part of them. ms_spread and step_spread: the
    0.9 quantile of such timings divided by the fastest.
    """
    columns = ["seconds", "epoch", "step", *COST_COLUMNS]
    by_run = table.groupby("run", observed=True, sort=False)
    ends = by_run[columns].last().astype(float)
    ends.index = ends.index.astype(object)
    between = by_run[["seconds", "step"]].diff().astype(float)
    between = between.fillna(table[["seconds", "step"]].astype(float))  # a run's first row
    ms = (1000 * between["seconds"] / between["step"].where(between["step"] > 0)).where(
        between["seconds"] > 0
    )
    grouped = ms.groupby(table["run"].astype(object), sort=False)
    fastest = grouped.min().reindex(ends.index)
    high = grouped.quantile(0.9, interpolation="higher").reindex(ends.index)
    part = ends["step_ms"].where((ends["compiled_steps"] != 1) & ~(ends["runs_at_once"] > 1))
    costs = {
        "seconds_per_epoch": ends["seconds"] / ends["epoch"].where(ends["epoch"] > 0),
        "ms_per_step": fastest,
        "ms_spread": high / fastest,
    }
    frame = pd.DataFrame(costs).assign(**{name: ends[name] for name in COST_COLUMNS})
    return frame.assign(step_ms=part.where(~(part > fastest), fastest))


def timing_note(costs: pd.DataFrame) -> str:
    """What to say of timings of which one in ten is more than twice the fastest, or ""."""
    spreads = costs.reindex(columns=["ms_spread", "step_spread"]).to_numpy(float)
    worst_spread = float(np.nanmax(spreads, initial=0))
    if not worst_spread > MOST_SPREAD:
        return ""
    return f"timing varied by a factor of {worst_spread:.2g} between steps"


def unlike_clocks(table: pd.DataFrame) -> str:
    """What to say of the seconds where only some optimizers' steps are compiled, or ""."""
    runs = table[["run", "optimizer", "compiled_steps"]].drop_duplicates("run")
    compiled, by_torch = (
        sorted({str(name) for name in runs.loc[runs["compiled_steps"] == value, "optimizer"]})
        for value in (1, 0)
    )
    if not compiled or not by_torch:
        return ""
    return (
        f"seconds are not to be compared: the steps of {', '.join(compiled)} are compiled, those "
        f"of {', '.join(by_torch)} torch's (engine=plain: all are torch's)"
    )


def to_markdown(frame: pd.DataFrame, best: Collection[tuple[str, str, str]] = ()) -> str:
    """A `summary` as a Markdown table: "median [min, max]", accuracies in per cent.

    best: `paper_table.bold`, the medians that are bold.
    """
    names = list(map(str, frame))
    keys = names[: names.index("optimizer")]
    problems = [problem_text(keys, row) for row in frame[keys].to_numpy()]
    stems = [name.removesuffix("_median") for name in names if name.endswith("_median")]
    # the variant names the optimizer, and the cell of the median holds the extremes
    hidden = {"optimizer", *(f"{stem}_{end}" for stem in stems for end in ("min", "max"))}
    hidden |= {name for name in names if name.endswith(("_mean", "_sd", "_iqm", "_iqm_high"))}
    columns: dict[str, list[str]] = {}
    for name in names:
        stem = name.removesuffix("_median")
        if name in hidden:
            continue
        if stem in stems:
            unit = " (%)" if "accuracy" in stem else ""
            columns[f"final {stem}{unit}"] = [
                cell(row, stem, (stem, problem, str(row["variant"])) in best)
                for problem, (_, row) in zip(problems, frame.iterrows(), strict=True)
            ]
        elif name.endswith("_iqm_low"):
            stem = name.removesuffix("_iqm_low")
            ends = zip(frame[name], frame[f"{stem}_iqm_high"], strict=True)
            columns[f"{stem}: 95 % interval of the IQM"] = [
                "" if math.isnan(low) else f"[{limit(low)}, {limit(high)}]" for low, high in ends
            ]
        elif name in COSTS:
            if name != "runs_at_once" or frame[name].notna().any():
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
    note = f"Final values: median [minimum, maximum] over n = {seeds_text(frame['seeds'])}."
    if frame["diverged"].any():
        note += " A diverged run counts as the worst value, it is never left out."
    if frame["runs_at_once"].notna().any():
        note += f" {AT_ONCE}"
    if timing := frame.attrs.get("timing"):
        note += f" {timing[0].upper()}{timing[1:]}."
    if clocks := frame.attrs.get("clocks"):
        note += f" {clocks[0].upper()}{clocks[1:]}."
    if best:
        note += f" {BOLD[0].upper()}{BOLD[1:]}."
    return "\n".join([*lines, "", note, ""])


def cell(row: pd.Series, stem: str, best: bool = False) -> str:
    """One cell, as in "median [min, max]"; a diverged end of the spread is called so."""
    values = [row[f"{stem}_{word}"] for word in ("median", "min", "max")]
    if math.isnan(values[0]):
        return "n/a"  # no such split
    percent = "accuracy" in stem
    texts = [
        "diverged" if not math.isfinite(v) else f"{100 * v:.2f}" if percent else number(v)
        for v in values
    ]
    first = f"**{texts[0]}**" if best else texts[0]
    if row["seeds"] == 1 or len(set(texts)) == 1:
        return first
    return f"{first} [{texts[1]}, {texts[2]}]"


def cost_cell(name: str, value: float, whole: float = math.nan) -> str:
    """A value of the column `name` of COSTS; empty where there is none.

    whole: the milliseconds of a training step, of which the optimizer's may be about all.
    """
    if math.isnan(value):
        return ""
    if name == "step_ms" and value >= whole:
        return "about all"
    return f"{value:g}" if name == "runs_at_once" else number(value)


def seeds_text(counts: Iterable[int]) -> str:
    """How many seeds there are, as in "3 seeds" or "3 to 4 seeds"."""
    counts = list(counts)
    low, high = min(counts), max(counts)
    return count(high, "seed") if low == high else f"{low} to {high} seeds"

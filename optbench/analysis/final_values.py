"""The final values of runs, and their cost: the time of their steps.

The times of a problem's runs are compared for one engine only. If several engines trained the runs,
the times of the engine with the most runs are shown. Among equals that is `plain`, which serves
every optimizer, else the first by name. A run that two engines trained, one after the other, shows
no times. Runs that do not name their engine (their version did not write it) count as those of
another engine, unless no run of the problem names one.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.common.metrics import metric_of
from optbench.common.text import count, number
from optbench.formats.record import setting_of
from optbench.formats.run import COST_COLUMNS

PLAIN, UNKNOWN = "plain", "unknown"
TIME_COLUMNS = [
    "seconds_per_epoch", "ms_per_step", "ms_spread", "step_ms", "step_spread", "runs_at_once",
]  # fmt: skip
COSTS = {
    "seconds_per_epoch": "seconds per epoch",
    "ms_per_step": "ms per training step",
    "step_ms": "ms of it the optimizer's",
    "state_bytes_per_parameter": "optimizer state (bytes per parameter)",
    "peak_mb": "peak memory (MB)",
    "runs_at_once": "runs together",
}
TOGETHER_NOTE = "The times of runs trained together are equal shares of their common time."
MOST_TIMING_SPREAD = 2.0  # slow timings over the fastest; above it, a note warns of the timing
STEP_COSTS = tuple(name for name in COSTS if name != "seconds_per_epoch")


def final_values(table: pd.DataFrame, column: str) -> pd.Series:
    """Return the last logged value of each run (index: run).

    A diverged run or a NaN at the end has the worst value. NaN means that the column was never
    logged, as its split does not exist.
    """
    by_run = table.groupby("run", observed=True, sort=False)
    last = table[~table["run"].duplicated(keep="last")].set_index("run")
    last.index = last.index.astype(object)
    logged = by_run[column].count().reindex(last.index) > 0
    diverged = last["status"] == "diverged"
    # a run that diverged in its first step logged no number: other runs show if the split exists
    split = table.loc[table[column].notna(), "problem"].unique()
    logged |= diverged & (last["problem"].isin(split) | (column == "train_loss"))
    ended = last[column].mask(diverged | last[column].isna(), metric_of(column).worst)
    return ended.where(logged)


def divergence_limit(table: pd.DataFrame, y: str) -> float:
    """Return the loss above which a run has learned nothing; inf for an accuracy.

    The limit is four times the untrained value. A loss that can be negative has no meaningful
    multiples: its limit is as far above the untrained value as the lowest value lies below it.
    """
    values = table[y].to_numpy(dtype=float)
    first = table[~table["run"].duplicated()][y].to_numpy(dtype=float)
    first = first[np.isfinite(first)]
    if not metric_of(y).log or not len(first):
        return math.inf
    return untrained_limit(float(np.median(first)), float(values[np.isfinite(values)].min()), 4)


def untrained_limit(start: float, least: float, factor: float) -> float:
    """Return the loss at which axes end: `factor` times the untrained loss `start`.

    With a negative lowest loss `least` it is 2 start - least; inf if neither lies above `start`.
    """
    limit = factor * start if least >= 0 else 2 * start - least
    return limit if limit > start else math.inf


def seeds_text(counts: Iterable[int]) -> str:
    """Return the number of seeds, as in "3 seeds" or "3 to 4 seeds"."""
    counts = list(counts)
    low, high = min(counts), max(counts)
    return count(high, "seed") if low == high else f"{low} to {high} seeds"


class Timing(NamedTuple):
    """The runs of a comparison whose times may be compared."""

    # runs of another engine, or another number of threads, than most of their problem's
    untimed: frozenset[str] = frozenset()
    sentence: str = ""  # for the reader, about these runs
    again: Mapping[str, str] = {}  # runs to repeat so that all times compare, and the engine


def timing_of(table: pd.DataFrame) -> Timing:
    """Return which runs' times do not count, and a sentence for the reader."""
    if not {"engine", "problem"} <= set(table):
        return Timing()
    phased = ["phase"] if "phase" in table else []
    columns = ["run", "problem", "optimizer", "engine", *phased]
    runs = table[columns].drop_duplicates("run").astype(object)
    problems = [part for _, part in runs.groupby("problem", sort=False, dropna=False)]
    mixed = [part.fillna({"engine": UNKNOWN}) for part in problems if part["engine"].nunique()]
    mixed = [
        part for part in mixed if len(set(part["engine"])) > 1 or changed(part["engine"]).any()
    ]
    if not mixed:
        return Timing()
    timed, untimed, again = [], [], []
    for part in mixed:
        counts = part["engine"][~changed(part["engine"])].value_counts()
        chosen = min(
            counts.index,
            key=lambda name: (-counts[name], name != PLAIN, name == UNKNOWN, name),
            default=None,
        )
        timed.append(part[part["engine"] == chosen])
        untimed.append(part[part["engine"] != chosen])
        wanted = engine_of_all(part, chosen)
        again.append(part[part["engine"] != wanted].assign(wanted=wanted))
    others, repeated = pd.concat(untimed), pd.concat(again)
    where = "" if len(mixed) == len(problems) else f"in {len(mixed)} of {len(problems)} problems "
    kept = " and ".join(
        f"{count(len(part), 'run')} {by(name)}" for name, part in pd.concat(timed).groupby("engine")
    )
    shown = f"those of the {kept} alone" if kept else "not shown"
    told = " and ".join(
        f"{runs_text(part)} {'was' if len(part) == 1 else 'were'} made {by(name)}"
        for name, part in others.groupby("engine")
    )
    if phased and (runs["phase"].notna() & (runs["phase"].astype(str) != "null")).any():
        advice = " and ".join(
            f"the study's command with {setting_of(str(name))} force=true makes all its runs again"
            for name in sorted(set(repeated["wanted"]))
        )
    else:
        advice = "make " + " and ".join(
            f"the {runs_text(part)} (now {by(name)}) again with "
            f"{setting_of(str(wanted))} force=true"
            for (wanted, name), part in repeated.groupby(["wanted", "engine"])
        )
    return Timing(
        frozenset(map(str, others["run"])),
        f"{where}seconds and costs are {shown}; {told}: to compare all, {advice}",
        dict(zip(map(str, repeated["run"]), repeated["wanted"], strict=True)),
    )


def timing_of_threads(
    table: pd.DataFrame, threads: Mapping[str, int], commands: Callable[[int], str] = lambda n: ""
) -> Timing:
    """Return which runs' times do not count, since they had other numbers of CPU threads.

    threads: of each run. A run alone takes all cores, where those of a sweep share them. The number
    that most runs of a problem had counts. commands: returns the command that makes all runs again
    with so many threads; "" if none does.
    """
    runs = table[["run", "problem", "optimizer"]].drop_duplicates("run").astype(object)
    runs = runs.assign(threads=runs["run"].map(lambda run: threads.get(str(run)))).dropna(
        subset=["threads"]
    )
    timed, untimed = [], []
    for _, part in runs.groupby("problem", sort=False, dropna=False):
        most = part["threads"].mode().iloc[0]
        timed.append(part[part["threads"] == most])
        untimed.append(part[part["threads"] != most])
    others = pd.concat(untimed) if untimed else runs
    if others.empty:
        return Timing()
    numbers = sorted(set(pd.concat(timed)["threads"]))
    usual = " or ".join(count(int(number), "thread") for number in numbers)
    told = " and ".join(
        f"{runs_text(part)} had {count(int(str(number)), 'thread')}"
        for number, part in others.groupby("threads")
    )
    command = commands(int(numbers[0])) if len(numbers) == 1 else ""
    again = f"; this makes all runs again: {command}" if command else ""
    return Timing(
        frozenset(map(str, others["run"])),
        f"seconds and costs are those of the runs with {usual} alone; {told}{again}",
    )


def changed(engines: "pd.Series[str]") -> "pd.Series[bool]":
    """Return which runs two engines trained ("a+b"): their times are mixed."""
    return engines.str.contains("+", regex=False)


def engine_of_all(part: pd.DataFrame, chosen: str | None) -> str:
    """Return an engine that serves all runs of a problem: if possible the chosen one.

    part: run, optimizer and engine of the problem's runs.
    """
    served = set(part["optimizer"][part["engine"] == chosen])
    if chosen in (None, UNKNOWN) or PLAIN in set(part["engine"]):
        return PLAIN
    return chosen if set(part["optimizer"]) <= served else PLAIN


def runs_text(part: pd.DataFrame) -> str:
    """Return the runs and their optimizers, as in "2 runs of adam, sgd"."""
    return f"{count(len(part), 'run')} of {', '.join(sorted(set(map(str, part['optimizer']))))}"


def by(engine: object) -> str:
    """Return the words for the engine that trained a run."""
    return "by an engine not named in run.json" if engine == UNKNOWN else f"by the engine {engine}"


def cost_of_runs(table: pd.DataFrame, timing: Timing | None = None) -> pd.DataFrame:
    """Return the cost of each run: the columns of COSTS, and its timings' spread.

    timing: of the whole comparison, by default of the table. Of its untimed runs only the memory is
    returned.
    ms_per_step is that of the run's fastest stretch between two rows: other work of the machine
    only adds. step_ms is the optimizer's part of it, the fastest of its calls, and never more than
    ms_per_step. The part was timed by itself, so it is NaN if another engine than `plain` took the
    steps or runs were trained together. ms_spread and step_spread: the 0.9 quantile of such timings
    divided by the fastest.
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
    engine = table.drop_duplicates("run").set_index("run")["engine"].astype(object)
    by_itself = (engine.isna() | (engine == PLAIN)).reindex(ends.index).to_numpy(dtype=bool)
    part = ends["step_ms"].where(by_itself & ~(ends["runs_at_once"] > 1))
    costs = {
        "seconds_per_epoch": ends["seconds"] / ends["epoch"].where(ends["epoch"] > 0),
        "ms_per_step": fastest,
        "ms_spread": high / fastest,
    }
    frame = pd.DataFrame(costs).assign(**{name: ends[name] for name in COST_COLUMNS})
    frame = frame.assign(step_ms=part.where(~(part > fastest), fastest))
    timing = timing_of(table) if timing is None else timing
    frame.loc[frame.index.isin(timing.untimed), TIME_COLUMNS] = math.nan
    return frame


def timing_note(costs: pd.DataFrame) -> str:
    """Return a note if one timing in ten is over twice the fastest; else ""."""
    spreads = costs.reindex(columns=["ms_spread", "step_spread"]).to_numpy(float)
    worst_spread = float(np.nanmax(spreads, initial=0))
    if not worst_spread > MOST_TIMING_SPREAD:
        return ""
    of_one = " of one run" if len(costs) > 1 else ""
    return f"timing varied by a factor of {float(f'{worst_spread:.2g}'):g} between steps{of_one}"


def cost_cell(name: str, value: float, whole: float = math.nan) -> str:
    """Return a value of the column `name` of COSTS as text; "" for NaN.

    whole: the milliseconds of a training step; the optimizer's part may be "about all" of them.
    """
    if math.isnan(value):
        return ""
    if name == "step_ms" and value >= whole:
        return "about all"
    return f"{value:g}" if name == "runs_at_once" else number(value)

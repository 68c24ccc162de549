"""The comparison behind a folder's figures, tables and report, computed once.

`compare` builds a `Comparison` from folders, `comparison_of` from a tidy table. Its series, final
values and costs are computed at first use, and kept.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis import series
from optbench.analysis.columns import filter_runs, logged_columns, resolve, rows_of
from optbench.analysis.final_values import (
    Timing,
    cost_of_runs,
    final_values,
    timing_of,
    timing_of_threads,
)
from optbench.analysis.table import RunFiles
from optbench.common.errors import UserError
from optbench.common.metrics import main_metric, metric_of
from optbench.common.names import did_you_mean
from optbench.common.text import count
from optbench.formats import job_list
from optbench.formats.job_list import JOBS_FILE, Job, read_or_say
from optbench.formats.study import (
    Protocol,
    entries_in,
    figure_of,
    manifests_of,
    protocol_of,
)
from optbench.stats.corrections import MAX_TYPE, least_seeds

NEEDED_COLUMNS = ("run", "problem", "optimizer", "seed", "status")  # columns of any table of runs
LISTS = ("facet", "baseline")  # options that are lists
REGULARIZERS = ("model.dropout", "model.input_dropout", "weight_penalty", "augment.")  # keys
PHASES = ("tuned", "default")  # of a tuned study, in the order of figures


class Options(NamedTuple):
    """The choices of figures. None: the sweep's `figure.json`, else the default."""

    y: str | None = None  # a logged column; default train_loss
    x: str | None = None  # epoch, step, seconds or gradients; default `Comparison.x`
    facet: Sequence[str] | None = None  # panel keys; default those that tell problems apart
    lines: str | None = None  # key of the lines; default the optimizer, its settings
    log: bool | None = None  # logarithmic y; default True for losses
    rows: str = "epochs"  # epochs or steps: which CSV file the main figure reads
    where: Sequence[str] = ()  # KEY=VALUE filters
    formats: Sequence[str] = ("png", "pdf")
    target: str | None = None  # the rule of `resolve_target`; default the worst
    kinds: Sequence[str] = ()  # of `kinds.KINDS`, or all; none: a sweep's figures and tables
    style: str | None = None  # of `style.STYLES`; default paper
    columns: int | None = None  # width in columns of a page, 1 or 2; default as needed
    candidate: str | None = None  # an optimizer, named beforehand, to judge
    baseline: Sequence[str] | None = None  # those it is judged against; default all others


@dataclass(eq=False)
class Comparison:
    """Runs that are compared, and the results computed from them, each once."""

    table: pd.DataFrame  # rows of epochs.csv, or of another CSV file
    trials: pd.DataFrame | None = None  # of a tuned study
    options: Options = field(default_factory=Options)
    manifests: Sequence[dict[str, Any]] = ()  # of the tuned studies among the runs
    protocol: Protocol = field(default_factory=Protocol)  # how their trials were judged
    files: RunFiles | None = None
    problems: list[str] = field(default_factory=list)  # a line for each file that was left out
    older: list[str] = field(default_factory=list)  # sentences on runs of older code or data
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return the result of `make`, computed the first time and kept under the key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @property
    def tuned(self) -> bool:
        """Return whether the trials of a tuned study stand beside the runs."""
        return self.trials is not None

    @cached_property
    def of_trials(self) -> "Comparison":
        """Return the comparison of a tuned study's trials; without them this one."""
        return self if self.trials is None else Comparison(self.trials, manifests=self.manifests)

    @cached_property
    def job_lists(self) -> dict[Path, tuple[Job, list[Job]]]:
        """Return the plan and outcomes of each sweep in or below the folders."""
        folders = () if self.files is None else self.files.folders
        paths = sorted({path.parent for folder in folders for path in folder.rglob(JOBS_FILE)})
        return {path: found for path in paths if (found := read_or_say(path)) is not None}

    @cached_property
    def paired(self) -> bool:
        """Return whether the runs are paired: two runs of one problem share a seed.

        Without such runs the tests are those of unpaired runs. Runs also count as paired if no
        problem has two optimizers.
        """
        runs = self.table.drop_duplicates("run")
        runs = runs if self.main is None else runs[runs["run"].isin(self.main)]
        runs = runs[["problem", "optimizer", "seed"]].astype(str)
        several = runs.groupby("problem")["optimizer"].nunique().max() > 1
        return bool(runs.duplicated(["problem", "seed"]).any()) or not several

    @property
    def names(self) -> list[str]:
        """Return all optimizers in the folders, even if only some runs are compared."""
        table = self.table if self.files is None else self.files.table()
        return list(map(str, table["optimizer"].unique()))

    @property
    def imported(self) -> bool:
        """Return whether some runs were trained by other programs than optbench."""
        used = set(map(str, self.table["run"].unique()))
        records = () if self.files is None else self.files.records
        return any("imported" in record and str(folder) in used for folder, record in records)

    @property
    def y(self) -> str:
        """Return the logged column that curves show, by default the training loss.

        Lines with different losses are compared by the task's metric, and those that differ in what
        keeps a network from fitting the training set by the validation loss. For runs without a
        training loss that is another loss or metric.
        """
        if self.options.y is not None:
            return self.options.y
        key = self.compared_key or ""
        wanted = main_metric(self.table, "val") if key.partition(".")[0] == "loss" else "val_loss"
        if key.startswith(("loss", *REGULARIZERS)) and self.has(wanted):
            return wanted
        known = [name for name in ("train_loss", *metrics_in(self.table)) if self.has(name)]
        return [*known, "train_loss"][0]

    @property
    def x(self) -> str:
        """Return the clock that curves are drawn against: of equal seconds these, else epochs."""
        if self.options.x is not None:
            return self.options.x
        budgets = self.table.get("budget_seconds")
        equal = budgets is not None and bool(pd.to_numeric(budgets, errors="coerce").notna().all())
        return "seconds" if equal and not self.timing.untimed else "epoch"

    def has(self, column: str) -> bool:
        """Return whether some run logged a finite value of a column."""
        if column not in self.table or not pd.api.types.is_numeric_dtype(self.table[column]):
            return False
        return bool(np.isfinite(self.table[column]).any())

    @property
    def final(self) -> str:
        """Return the column by which runs are ranked."""
        return self.y if self.has(self.y) else "train_loss"

    @property
    def judged(self) -> str:
        """Return the column of the final results.

        In a tuned study that is the trials' metric on the test set, if measured.
        """
        tested = self.protocol.metric.replace("val_", "test_")
        return tested if self.of_study and self.has(tested) else self.final

    @property
    def of_study(self) -> bool:
        """Return whether the runs are of a tuned study, whose trials `where` may leave out."""
        return self.tuned or bool(self.manifests)

    @property
    def plan(self) -> series.Layout:
        """Return the panel and the series of each run, by the options."""
        return self.series(self.options.facet, self.options.lines)

    @cached_property
    def compared_key(self) -> str | None:
        """Return the problem's key whose values are compared: the figure's lines, or None.

        With several optimizers these are compared, on each problem.
        """
        lines = self.options.lines
        if lines is None or len(self.table["optimizer"].unique()) > 1:
            return None
        key = resolve(self.table, lines)
        runs = series.one_line_per_run(self.table)
        return key if key in series.problem_keys_of(self.table, runs) else None

    def compared(self, facet: Sequence[str] | None = None) -> series.Layout:
        """Return `series` with the compared series: optimizers, or values of `compared_key`."""
        return self.series(facet, self.compared_key)

    def spread(
        self, facet: Sequence[str] | str | None = None, lines: str | None = None
    ) -> series.Layout:
        """Return `series`, with settings as further panels if a panel has too many lines.

        Settings become keys of the panels one after the other, those with the fewest values first.
        Panels that were asked for stay as they are.
        """
        plan = self.series(facet, lines)
        while not facet:
            full = max(plan.panels, key=lambda part: part["variant"].nunique())
            # only keys that vary within an optimizer: others just tell optimizers apart
            swept = {k for _, own in full.groupby("optimizer") for k in series.variant_keys(own)}
            keys = [key for key in series.variant_keys(full) if key in swept - {lines}]
            if full["variant"].nunique() <= series.MAX_LINES or len(keys) < (1 if lines else 2):
                break
            key = min(keys, key=lambda key: full[key].map(str).nunique())
            plan = self.series([*plan.facet, key], lines)
        return plan

    def series(
        self,
        facet: Sequence[str] | str | None = None,
        lines: str | None = None,
        ignore: Sequence[str] = (),
    ) -> series.Layout:
        """Return `series.assign_series` of the runs, with its errors."""
        facet = (facet,) if isinstance(facet, str) else tuple(facet or ()) or None
        ignore = (*ignore, *self.searched)
        key = ("series", facet, lines, ignore)
        return self.once(key, lambda: series.assign_series(self.table, facet, lines, ignore))

    @cached_property
    def searched(self) -> list[str]:
        """Return the keys that repeated searches chose, each search its own value.

        Their runs make one series: what is compared is the optimizer as it is tuned.
        """
        entries = [entry for manifest in self.manifests for entry in entries_in(manifest)]
        repeated = {str(e["optimizer"]) for e in entries if e.get("repeat")}
        names = [
            name
            for entry in entries
            if entry["optimizer"] in repeated
            for name in entry.get("space") or ()
        ]
        keys = [name if name.startswith("schedule.") else f"optimizer.{name}" for name in names]
        return [key for key in dict.fromkeys(keys) if key in self.table]

    @property
    def searched_in_trials(self) -> set[str]:
        """Return the hyperparameters that some optimizer's trials searched."""
        entries = [entry for manifest in self.manifests for entry in entries_in(manifest)]
        return {name for entry in entries for name in entry.get("space") or ()}

    @cached_property
    def searches(self) -> int:
        """Return the fewest searches behind an optimizer's tuned runs; 0 if not tuned."""
        if "repeat" not in self.table or self.main is None:
            return 0 if self.main is None else 1
        runs = self.table[self.table["run"].isin(self.main)]
        found = runs.groupby(["problem", "optimizer"], observed=True)["repeat"].nunique()
        return max(1, int(found.min()))

    @property
    def unit(self) -> str:
        """Return what the tests pair: "search" in a study with enough searches, else "seed"."""
        return "search" if self.searches >= least_seeds(1, MAX_TYPE) else "seed"

    @property
    def few_searches(self) -> str:
        """Return `settings_phrase` of this study: "" where a verdict is on the optimizers."""
        return settings_phrase(self.searches)

    def finals(self, column: str) -> "pd.Series[float]":
        """Return the final value of each run: `final_values`."""
        return self.once(("finals", column), lambda: final_values(self.table, column))

    @property
    def selection(self) -> str:
        """Return which runs `where` picked, as in "optimizer=adam or sgd, seed=0"; "" if all."""
        values: dict[str, list[str]] = {}
        for text in self.options.where:
            key, _, value = text.partition("=")
            values.setdefault(key, []).append(value)
        return ", ".join(f"{key}={' or '.join(given)}" for key, given in values.items())

    @cached_property
    def timing(self) -> Timing:
        """Return which runs' times may be compared: those of one engine and one thread count."""
        engines = timing_of(self.table)
        timed = self.table[~self.table["run"].astype(str).isin(engines.untimed)]
        threads = timing_of_threads(timed, self.threads, self._repeated_with)
        said = "; ".join(text for text in (threads.sentence, engines.sentence) if text)
        return Timing(engines.untimed | threads.untimed, said, engines.again)

    def _repeated_with(self, threads: int) -> str:
        """Return the command that makes the only sweep's runs again with so many threads, or ""."""
        planned, own = self.only_sweep
        if planned is None or any(Path(str(run)).name not in own for run in self.table["run"]):
            return ""  # runs of earlier commands
        command = job_list.with_value(planned, "num_threads", str(threads))
        return f"{command} force=true" if command else ""

    @cached_property
    def only_sweep(self) -> tuple[Job | None, set[str]]:
        """Return the plan of the only sweep, and the names of its last command's runs.

        The plan is None where there are several sweeps or none, and for a tuned study.
        """
        lists = list(self.job_lists.values())
        if len(lists) != 1 or self.tuned:
            return None, set()
        planned, outcomes = lists[0]
        return planned, {str(job.get("run")) for job in outcomes}

    @property
    def threads(self) -> dict[str, int]:
        """Return the number of CPU threads of each run, as far as it is known."""
        records = () if self.files is None else self.files.records
        return {
            str(folder): record["num_threads"]
            for folder, record in records
            if isinstance(record.get("num_threads"), int) and record.get("device") == "cpu"
        }

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Return the cost of each run: `cost_of_runs`."""
        return cost_of_runs(self.table, self.timing)

    def rows(self, name: str) -> pd.DataFrame:
        """Return the runs' `steps.csv`, `layers.csv` or `epochs.csv` as a tidy table.

        Raises UserError if no run has one.
        """
        if name == "epochs" or self.files is None:
            return self.table
        files = self.files
        return self.once(("rows", name), lambda: rows_of(files.table(name), self.table))

    @property
    def has_layers(self) -> bool:
        """Return whether some run logged its layers."""
        runs = map(Path, map(str, self.table["run"].unique()))
        return self.files is not None and any((run / "layers.csv").exists() for run in runs)

    @cached_property
    def phases(self) -> dict[str, list[str]]:
        """Return the runs of a tuned study by phase, tuned first; else nothing."""
        if "phase" not in self.table:
            return {}
        runs = self.table[["run", "phase"]].drop_duplicates("run").astype(str)
        found = {name: list(runs["run"][runs["phase"] == name]) for name in PHASES}
        return {name: part for name, part in found.items() if part} if found["tuned"] else {}

    @property
    def main(self) -> list[str] | None:
        """Return the runs of the tuned settings; None (all) in an ordinary sweep."""
        return self.phases.get("tuned")

    @property
    def has_rates(self) -> bool:
        """Return whether some optimizer has two learning rates."""
        if "optimizer.lr" not in self.table:
            return False
        pairs = self.table[["optimizer", "optimizer.lr"]].drop_duplicates().dropna()
        return bool(pairs["optimizer"].duplicated().any())


def settings_phrase(searches: int) -> str:
    """Return what a verdict on few searches is about: "these settings, of 2 searches each".

    With enough searches a verdict is on the optimizers, and the phrase is "". searches: of each
    optimizer; 0 outside of a tuned study.
    """
    if not 0 < searches < least_seeds(1, MAX_TYPE):
        return ""
    return f"these settings, of {count(searches, 'search', 'searches')} each"


def metrics_in(table: pd.DataFrame) -> list[str]:
    """Return the logged columns of a table that are losses, accuracies or scores."""
    return [name for name in logged_columns(table) if not math.isnan(metric_of(name).worst)]


Runs = pd.DataFrame | Comparison  # a tidy table, or its comparison


def compare(
    folders: Sequence[str | Path], options: Options | None = None, files: RunFiles | None = None
) -> Comparison:
    """Return the comparison of all finished runs below the folders.

    files: the folders' files, if already read. Raises UserError without a run, and for several
    folders with different problems unless panels were asked for.
    """
    options = options or Options()
    files = RunFiles(folders) if files is None else files
    loaded = filter_runs(files.table(), options.where)
    trials, table = split_trials(loaded)
    options = from_config(options, figure_of(files.folders))
    manifests = manifests_of(files.folders, loaded, files.read_manifest)
    made = Comparison(
        table,
        None if trials is table else trials,
        options,
        manifests,
        protocol_of(manifests),
        files,
        list(files.table().attrs["problems"]),
        list(files.older),
    )
    _ = made.plan  # raises for folders of different problems, unless panels were asked for
    for frame in (table, trials):
        frame.attrs["mixed"] = False  # so that no later layout raises that error again
    return made


def comparison_of(runs: Runs) -> Comparison:
    """Return the comparison of a tidy table's runs; a comparison is returned as it is.

    Raises UserError unless the table is one of runs.
    """
    if isinstance(runs, Comparison):
        return runs
    if lacking := [name for name in NEEDED_COLUMNS if name not in runs]:
        raise UserError(
            f"the frame has no column {', '.join(lacking)}: it needs those of optbench.load_runs, "
            f"with a row for each evaluation of each run"
        )
    if runs.empty:
        raise UserError("the frame has no rows: no run is left in it")
    return Comparison(runs)


def from_config(options: Options, figure: dict[str, object]) -> Options:
    """Return the options, completed from a sweep's `figure` config."""
    filled: dict[str, object] = {}
    keys = ["y", "x", "facet", "lines", "style", "columns"]
    keys += ["candidate", "baseline"] if options.candidate is None else []
    for key in keys:
        if getattr(options, key) is None and figure.get(key):
            value = figure[key]
            filled[key] = [value] if key in LISTS and isinstance(value, str) else value
    if options.log is None and figure.get("log") is False:
        filled["log"] = False
    if options.target is None and figure.get("target") is not None:
        filled["target"] = str(figure["target"])
    return options._replace(**filled)  # type: ignore[arg-type]


def split_trials(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the trials of a tuned study, and the compared runs; else the table twice."""
    tried = table["phase"].astype(str) == "trials" if "phase" in table else None
    if tried is None or not tried.any() or tried.all():
        return table, table
    return table[tried], table[~tried]


def check_logged(table: pd.DataFrame, column: str, columns: Collection[str] | None = None) -> None:
    """Raise UserError unless the table, or `columns`, has the column."""
    there = list(map(str, table if columns is None else columns))
    if not isinstance(column, str):
        raise UserError(f"the name of one logged column is needed, not {column!r}")
    if column not in there:
        near = did_you_mean(column, there)
        raise UserError(f"no logged column {column!r}{near}\nThere are: {', '.join(there)}")

"""Read run folders into one tidy table.

Only `run.json` and the CSV files are read: neither the model nor the data is needed, nor torch. A
file that cannot be trusted is left out and named in `table.attrs["problems"]`.
"""

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.common.errors import UserError, is_text
from optbench.common.names import nearest
from optbench.formats.keys import KEYS, SERIES_KEYS
from optbench.formats.older_code import moment, newest_data_only, newest_only
from optbench.formats.record import FINISHED, RunRecord, engine_of
from optbench.formats.run import (
    COLUMNS,
    COST_COLUMNS,
    GAP,
    RUN_COLUMNS,
    flatten,
    read_record,
    read_rows,
    reference_of,
    stop_of,
)
from optbench.formats.run_cache import cache_of, stamp_of
from optbench.formats.study import current, read_manifest

FOLDER_HINT = (
    "A run folder holds run.json and epochs.csv, and `optbench` makes one for each run: "
    "train first, then give its folder (or any folder above it)."
)
# by dotted key of the optimizer's side: the value that applied before the key existed
EARLIER = flatten({key: KEYS[key].before for key in SERIES_KEYS if KEYS[key].before is not ...})
UNFINISHED_HINT = "The command that began the runs resumes them, and tries failed ones again."

OWN_DATASETS = ("csv", "text", "image_folder")  # of a file or folder of the user's

Record = tuple[Path, RunRecord]


class Run(NamedTuple):
    """A finished run: its `run.json`, and one of its CSV files."""

    folder: Path
    record: RunRecord
    columns: dict[str, np.ndarray]


def check_folders(folders: Sequence[str | Path]) -> None:
    """Raise UserError for a folder that cannot be meant."""
    if wrong := [folder for folder in folders if not isinstance(folder, str | Path)]:
        raise UserError(f"a folder is a text or a Path, not {wrong[0]!r}; give each by itself")
    # an empty name, as of a shell variable that is not set
    if not all(str(folder).strip() for folder in folders):
        raise UserError("a folder's name is empty; '.' is the current one")
    for folder in map(Path, folders):
        if not is_text(str(folder.absolute())):
            raise UserError(f"{str(folder)!r} holds bytes that are no UTF-8: rename the folder")
        if not folder.exists():
            raise UserError(f"there is no folder {folder}{near_folder(folder)}")
        if not folder.is_dir():
            raise UserError(
                f"{folder} is a file; give the folder of a run or of a sweep. {FOLDER_HINT}"
            )


def near_folder(folder: Path) -> str:
    """Return what a missing folder was probably meant to be, and what folders are meant."""
    if str(folder).startswith("figure."):
        key, _, value = str(folder).removeprefix("figure.").partition("=")
        return f": a key of the figure is an option here. Did you mean --{key} {value}?"
    if "=" in str(folder):
        return ": an override is for training, and --where KEY=VALUE picks among finished runs"
    inside = Path(os.environ.get("OPTBENCH_RESULTS", "results")) / folder
    places = [path.name for path in folder.parent.glob("*/")]
    found = [folder.parent / name for name in nearest(folder.name, places)]
    found = [inside] if inside.is_dir() else found
    meant = f". Did you mean {found[0]}?" if found else ""
    return f"{meant}\n{FOLDER_HINT}"


def load_runs(*folders: str | Path, rows: str = "epochs") -> pd.DataFrame:
    """Return all finished runs below `folders` as a tidy table, a row per logged row.

    Columns: run (folder), run_id, problem (hash), status, seed, optimizer, device, engine (that
    took its steps; NaN: not named), stopped (what ended the run before its budget of steps; NaN:
    nothing); the flattened config ("optimizer.lr"; categories, of which `.astype(float)` makes
    numbers; lists as text, null as "null", NaN for a key that a run lacks); step_ms and
    state_bytes_per_parameter (of the optimizer's step; NaN if not measured), peak_mb (of memory,
    10^6 bytes; docs/files.md), runs_at_once (trained together, sharing the time; NaN: alone); the
    columns of `epochs.csv` or `steps.csv`; loss_gap (test_loss - train_loss). A run that diverged
    before its first step has a single row, of NaN.
    Of runs with one run_id the newest finished one counts. A run that is both the tuned and the
    default setting's counts in both phases of its study. Left out are runs of a tuned study that
    its manifest has replaced (`formats.study.current`), and runs made before the user's code or
    data changed (`older_code`).
    `attrs`: "problems" (a line for each file left out), "older" (sentences on runs of older code
    or data), "problem_keys" (columns that define the problem), "measured" (columns of the CSV),
    "rows", "references" (the least training loss of problems that have it in closed form), "mixed"
    (whether the folders hold different problems).
    Warns of files and runs left out. Raises UserError if there is nothing to read.
    """
    table = read_runs(*folders, rows=rows)
    for problem in [*table.attrs["problems"], *table.attrs["older"]]:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    return table


def read_runs(*folders: str | Path, rows: str = "epochs") -> pd.DataFrame:
    """Return the table of `load_runs`, without its warnings."""
    if rows not in COLUMNS:
        raise UserError(f"rows is {rows!r}; allowed: {', '.join(COLUMNS)}")
    return RunFiles(folders).table(rows)


class RunFiles:
    """The runs below some folders; each file is read once, a CSV at first use."""

    def __init__(self, folders: Sequence[str | Path]) -> None:
        """Read every `run.json`. Raises UserError for a folder that cannot be meant."""
        if not folders:
            raise UserError(f"no folder was given. {FOLDER_HINT}")
        check_folders(folders)
        self.folders = [Path(folder) for folder in folders]
        found, self._problems = find_runs(folders)
        self._cache = cache_of(self.folders, len(found))
        records: list[Record] = []
        for folder in found:
            try:
                records.append((folder, self._record(folder)))
            except (OSError, ValueError) as error:
                self._problems.append(f"{folder / 'run.json'}: {without_path(error)}")
        records, self.older = newest_only(records)  # `older`: sentences on what is left out
        records, older = newest_data_only(records)
        self.older += older
        self.read_manifest = cache(read_manifest)  # of a tuned study, once
        # finished and unfinished runs, without those that a tuned study has replaced
        self.records = current(records, self.read_manifest)
        self._tables: dict[str, pd.DataFrame] = {}

    def table(self, rows: str = "epochs") -> pd.DataFrame:
        """Return the table of `load_runs`, always the same one; UserError without runs."""
        if rows not in self._tables:
            self._tables[rows] = self._read(rows)
            if self._cache is not None:
                self._cache.save()
        return self._tables[rows]

    def _record(self, folder: Path) -> RunRecord:
        """Return a run's record, from the cache if its file is unchanged."""
        path = folder / "run.json"
        if self._cache is None:
            return read_record(path)
        if (known := self._cache.record(folder)) is not None:
            return known
        stamp = stamp_of(path)
        record = read_record(path)
        self._cache.note_record(folder, record, stamp)
        return record

    def _columns(self, folder: Path, rows: str, record: RunRecord) -> dict[str, np.ndarray]:
        """Return the columns of a run's CSV file, from the cache if the file is unchanged."""
        path = folder / f"{rows}.csv"
        if self._cache is None:
            return read_rows(path, record)
        if (known := self._cache.columns(folder, rows)) is not None:
            return known
        stamp = stamp_of(path)
        columns = read_rows(path, record)
        self._cache.note_columns(folder, rows, columns, stamp)
        return columns

    def _read(self, rows: str) -> pd.DataFrame:
        problems = list(self._problems)
        # newest first: the first readable one of each run_id counts, in each phase of a study

        def age(item: Record) -> tuple[float, str]:
            return moment(item[1].get("finished")), str(item[0])

        records = sorted(self.records, key=age, reverse=True)
        runs: dict[tuple[str, str | None], Run] = {}
        for folder, record in records:
            if record["status"] not in FINISHED or (rows != "epochs" and "imported" in record):
                continue  # an imported run has one table
            path = folder / f"{rows}.csv"
            try:
                # read duplicates too: a record in another run's folder hides that run
                run = Run(folder, record, self._columns(folder, rows, record))
                runs.setdefault((record["run_id"], record["config"].get("phase")), run)
            except (OSError, ValueError) as error:
                problems.append(f"{path}: {without_path(error)}")
        counted = {run_id for run_id, _ in runs}
        for folder, record in records:
            if record["status"] in FINISHED or record["run_id"] in counted:
                continue
            what = f"unfinished run (status {record['status']})"
            if record["status"] == "failed":
                what = f"the run failed: {record.get('error')}"
            problems.append(f"{folder / 'run.json'}: {what}")
        problems.sort()
        if not runs:
            where = ", ".join(map(str, self.folders))
            lines = "".join(f"\n  {line}" for line in [*problems, *self.older])
            if any(record["status"] in FINISHED for _, record in records):
                more = ": diagnostics=layers writes it" if rows == "layers" else ""
                raise UserError(f"no finished run in {where} has a {rows}.csv{more}{lines}")
            hint = UNFINISHED_HINT if records else FOLDER_HINT
            raise UserError(f"no finished run found in {where}. {hint}{lines}")
        table = assemble(sorted(runs.values(), key=lambda run: str(run.folder)))
        table.attrs |= {"problems": problems, "older": self.older, "rows": rows}
        table.attrs["mixed"] = hold_different_problems(self.folders, runs.values())
        return table


def hold_different_problems(folders: Iterable[str | Path], runs: Iterable[Run]) -> bool:
    """Return whether the given folders hold different sets of problems."""
    bases = {Path(folder).resolve() for folder in folders}
    where = [(run.folder.resolve(), run.record["problem_hash"]) for run in runs]
    held = {base: {p for path, p in where if path.is_relative_to(base)} for base in bases}
    return len({frozenset(problems) for problems in held.values() if problems}) > 1


def find_runs(folders: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """Return the sorted run folders below the folders, and a line for each broken one."""
    found: dict[str, Path] = {}  # by real path: overlapping folders count once
    problems = set()
    for folder in map(Path, folders):
        for here, below, files in os.walk(folder):
            if "run.json" in files or "run.json" in below:
                found.setdefault(os.path.realpath(here), Path(here))
            elif "epochs.csv" in files:
                problems.add(f"{Path(here) / 'epochs.csv'}: there is no run.json beside it")
    return sorted(found.values()), sorted(problems)


def without_path(error: OSError | ValueError) -> str:
    """Return the error's text without the path, which the line names already."""
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def own_data_names(records: Iterable[RunRecord]) -> dict[Any, str]:
    """Return a name for a user's own data, by their digest: the name of the file or folder.

    Files of one name have their folders in front. A file that moved keeps its first name, since
    its problem is the same. A dataset that the user named keeps that name.
    """
    paths: dict[Any, Path] = {}
    for record in records:
        config, problem = record["config"], record["problem"]
        path = (config.get("data") or {}).get("path")
        if path and (problem.get("dataset") or {}).get("name") in OWN_DATASETS:
            paths.setdefault(problem.get("data_digest"), Path(str(path)))
    same = Counter(path.name for path in paths.values())
    return {
        digest: path.name if same[path.name] == 1 else str(path) for digest, path in paths.items()
    }


def assemble(runs: Sequence[Run]) -> pd.DataFrame:
    """Return all runs as one table, a row per CSV row, with config, problem and costs."""
    lengths = [len(run.columns["step"]) for run in runs]
    measured = list(dict.fromkeys(name for run in runs for name in run.columns))
    problem_keys: dict[str, None] = {}
    lines: list[dict[str, Any]] = []  # one per run, without the measured columns
    names = own_data_names([run.record for run in runs])
    for folder, record, _ in runs:
        hashes = (record["run_id"], record["problem_hash"])
        rest = (record["status"], record["seed"], record["name"], record.get("device"))
        stop = stop_of(record)
        stopped = stop["by"] if stop else math.nan
        values = (str(folder), *hashes, *rest, engine_of(record) or math.nan, stopped)
        identity = dict(zip(RUN_COLUMNS, values, strict=True))
        config = flatten(record["config"])
        problem = flatten(record["problem"])
        problem_keys |= dict.fromkeys(problem)
        if (digest := problem.get("data_digest")) in names:
            problem["dataset.name"] = names[digest]
        # first for the order of the columns, last to override the config
        lines.append(identity | config | problem | identity)
    keys = [key for key in dict.fromkeys(k for line in lines for k in line) if key not in measured]
    data: dict[str, Any] = {
        key: repeat_rows([line.get(key, EARLIER.get(key, math.nan)) for line in lines], lengths)
        for key in keys
    }
    data["seed"] = np.repeat([run.record["seed"] for run in runs], lengths)
    costs = [costs_of(run.record) for run in runs]
    for name, values in zip(COST_COLUMNS, zip(*costs, strict=True), strict=True):
        data[name] = np.repeat(np.array(values, dtype=float), lengths)
    for name in measured:
        parts = [
            run.columns.get(name, np.full(length, math.nan))
            for run, length in zip(runs, lengths, strict=True)
        ]
        data[name] = np.concatenate(parts)
    data["step"] = data["step"].astype(np.int64)
    if {"train_loss", "test_loss"} <= {*measured} and np.isfinite(data["test_loss"]).any():
        with np.errstate(invalid="ignore"):  # of a diverged run: inf - inf
            data[GAP] = data["test_loss"] - data["train_loss"]
        measured.append(GAP)
    table = pd.DataFrame(data)
    table.attrs = {
        "references": _references(runs),
        "measured": [*measured, *COST_COLUMNS],
        "problem_keys": [key for key in problem_keys if key in keys and key not in RUN_COLUMNS],
    }
    return table


def _references(runs: Sequence[Run]) -> dict[str, float]:
    """Return the least training loss of each problem whose runs agree on one."""
    found: dict[str, set[float]] = {}
    for run in runs:
        if value := reference_of(run.record):
            found.setdefault(run.record["problem_hash"], set()).add(value)
    return {problem: values.pop() for problem, values in found.items() if len(values) == 1}


def costs_of(record: RunRecord) -> tuple[float, float, float, float, float]:
    """Return COST_COLUMNS of a record; NaN if not measured.

    The last, runs_at_once, is NaN for a run that was trained alone.
    """
    cohort = record.get("cohort") or 1
    share = float(cohort) if cohort > 1 else math.nan
    peak = record.get("peak_bytes")
    peak_mb = peak / 1e6 if isinstance(peak, int) else math.nan
    try:
        cost = record["cost"] or {}  # null if not measured
        fastest = float(cost.get("step_ms_min", cost["step_ms"]))  # disturbances only add
        high = float(cost.get("step_ms_high", cost.get("step_ms_max", math.nan)))
        size = cost["state_bytes"] / cost["parameters"]
        return fastest, high / fastest, size, peak_mb, share
    except (TypeError, KeyError, ValueError, ArithmeticError):
        return math.nan, math.nan, math.nan, peak_mb, share


def repeat_rows(values: Sequence[Any], lengths: Sequence[int]) -> pd.Categorical:
    """Repeat each run's value for its rows, as a categorical, because text is slow."""
    codes, categories = pd.factorize(np.array([*values, None], dtype=object)[:-1])
    return pd.Categorical.from_codes(np.repeat(codes, lengths), categories=pd.Index(categories))

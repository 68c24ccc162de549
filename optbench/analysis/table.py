"""Run folders to one tidy table.

Reads `run.json` and the CSV files only: neither the model nor the data is needed, nor torch.
A file that cannot be trusted is left out and named in `table.attrs["problems"]`.
"""

import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.common.errors import UserError, is_text
from optbench.formats.older_code import newest_only
from optbench.formats.record import RunRecord, engine_of
from optbench.formats.run import COLUMNS, COST_COLUMNS, flatten, read_record, read_rows
from optbench.formats.study import current, read_manifest

IDENTITY = ("run", "run_id", "problem", "status", "seed", "optimizer", "device", "engine")
FINISHED = ("completed", "diverged")
HOW = (
    "A run folder holds run.json and epochs.csv, and `optbench` makes one for each run: "
    "train first, then give its folder (or any folder above it)."
)


Record = tuple[Path, RunRecord]


class Run(NamedTuple):
    """A finished run: what `run.json` says, and one of its CSV files."""

    folder: Path
    record: RunRecord
    columns: dict[str, np.ndarray]


def check_names(folders: Sequence[str | Path]) -> None:
    """Raise UserError for an empty name: it is a shell's variable that was not set."""
    if not all(str(folder).strip() for folder in folders):
        raise UserError("a folder's name is empty; '.' is the current one")


def load_runs(*folders: str | Path, rows: str = "epochs") -> pd.DataFrame:
    """All finished runs below `folders` as one tidy table, a line per logged row.

    Columns: run (folder), run_id, problem (hash), status, seed, optimizer, device, engine (which
    took its steps; NaN: not said), the flattened config ("optimizer.lr"; lists as text, null as
    "null", a key that a run lacks as NaN), then step_ms and state_bytes_per_parameter (of the
    optimizer's step; NaN where a run lacks them), runs_at_once (how many were trained together,
    sharing the time; NaN: alone) and the columns of `epochs.csv` or `steps.csv` (where a
    run that diverged before its first step has a single line, of NaN). Of runs with one run_id the
    newest finished one counts; runs of a tuned study that its manifest has replaced do not
    (`formats.study.current`), nor runs made before one's own code changed (`older_code`).
    `attrs`: "problems" (one line for each file left out), "older" (a sentence for the runs of older
    code, which are kept and left out), "problem_keys" (columns that define
    the problem), "measured" (columns of the CSV), "rows", "mixed" (whether the given folders hold
    different problems).
    Warns of what is left out. Raises UserError when there is nothing to read.
    """
    table = read_runs(*folders, rows=rows)
    for problem in [*table.attrs["problems"], *table.attrs["older"]]:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    return table


def read_runs(*folders: str | Path, rows: str = "epochs") -> pd.DataFrame:
    """`load_runs` for those who say themselves what is left out."""
    if rows not in COLUMNS:
        raise UserError(f"rows is {rows!r}; allowed: {', '.join(COLUMNS)}")
    return RunFiles(folders).table(rows)


class RunFiles:
    """The runs below some folders. Each `run.json` is read once, each CSV when first needed."""

    def __init__(self, folders: Sequence[str | Path]) -> None:
        """Read every `run.json`. Raises UserError for a folder that cannot be meant."""
        if not folders:
            raise UserError(f"no folder was given. {HOW}")
        check_names(folders)
        self.folders = [Path(folder) for folder in folders]
        found, self._problems = find_runs(folders)
        records: list[Record] = []
        for folder in found:
            try:
                records.append((folder, read_record(folder / "run.json")))
            except (OSError, ValueError) as error:
                self._problems.append(f"{folder / 'run.json'}: {reason(error)}")
        records, self.older = newest_only(records)  # `older`: a sentence for those of older code
        self.read_manifest = cache(read_manifest)  # of a tuned study, once
        # every run that counts or is named, finished or not
        self.records = current(records, self.read_manifest)
        self._tables: dict[str, pd.DataFrame] = {}

    def table(self, rows: str = "epochs") -> pd.DataFrame:
        """Return the table of `load_runs`, always the same one. Raises UserError without runs."""
        if rows not in self._tables:
            self._tables[rows] = self._read(rows)
        return self._tables[rows]

    def _read(self, rows: str) -> pd.DataFrame:
        problems = list(self._problems)
        # newest first: the first readable one of each run_id counts
        records = sorted(
            self.records, key=lambda item: (finish_time(item[1]), str(item[0])), reverse=True
        )
        runs: dict[str, Run] = {}
        for folder, record in records:
            if record["status"] not in FINISHED:
                continue
            path = folder / f"{rows}.csv"
            try:
                # of a second one, too: a record in another's folder hides the run that was there
                run = Run(folder, record, read_rows(path, record))
                runs.setdefault(record["run_id"], run)
            except (OSError, ValueError) as error:
                problems.append(f"{path}: {reason(error)}")
        for folder, record in records:
            if record["status"] in FINISHED or record["run_id"] in runs:
                continue
            what = f"unfinished run (status {record['status']})"
            if record["status"] == "failed":
                what = f"the run failed: {record.get('error')}"
            problems.append(f"{folder / 'run.json'}: {what}")
        problems.sort()
        if not runs:
            where = ", ".join(map(str, self.folders))
            lines = "".join(f"\n  {line}" for line in [*problems, *self.older])
            raise UserError(f"no finished run found in {where}. {HOW}{lines}")
        table = assemble(sorted(runs.values(), key=lambda run: str(run.folder)))
        table.attrs |= {"problems": problems, "older": self.older, "rows": rows}
        table.attrs["mixed"] = mixed(self.folders, runs.values())
        return table


def mixed(folders: Iterable[str | Path], runs: Iterable[Run]) -> bool:
    """Whether the folders that were given do not all hold the same problems."""
    bases = {Path(folder).resolve() for folder in folders}
    where = [(run.folder.resolve(), run.record["problem_hash"]) for run in runs]
    held = {base: {p for path, p in where if path.is_relative_to(base)} for base in bases}
    return len({frozenset(problems) for problems in held.values() if problems}) > 1


def find_runs(folders: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """Run folders below the folders, sorted, and what looked like a run and is none."""
    found: dict[str, Path] = {}  # by real path: overlapping folders count once
    problems = set()
    for folder in map(Path, folders):
        if not is_text(str(folder.absolute())):
            raise UserError(f"{str(folder)!r} holds bytes that are no UTF-8: rename the folder")
        if not folder.exists():
            raise UserError(f"there is no folder {folder}. {HOW}")
        if not folder.is_dir():
            raise UserError(f"{folder} is a file; give the folder of a run or of a sweep. {HOW}")
        for here, below, files in os.walk(folder):
            if "run.json" in files or "run.json" in below:
                found.setdefault(os.path.realpath(here), Path(here))
            elif "epochs.csv" in files:
                problems.add(f"{Path(here) / 'epochs.csv'}: there is no run.json beside it")
    return sorted(found.values()), sorted(problems)


def reason(error: OSError | ValueError) -> str:
    """The error without the path, which the line names already."""
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def finish_time(record: Mapping[str, Any]) -> float:
    """Seconds since 1970 at which a run finished, -inf when it does not say."""
    try:
        moment = datetime.fromisoformat(record["finished"])
    except (KeyError, TypeError, ValueError):
        return -math.inf
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def assemble(runs: Sequence[Run]) -> pd.DataFrame:
    """The runs below each other, with which columns the CSV and the problem made."""
    lengths = [len(run.columns["step"]) for run in runs]
    measured = list(dict.fromkeys(name for run in runs for name in run.columns))
    problem_keys: dict[str, None] = {}
    lines: list[dict[str, Any]] = []  # one per run: all but the measured columns
    for folder, record, _ in runs:
        hashes = (record["run_id"], record["problem_hash"])
        rest = (record["status"], record["seed"], record["name"], record.get("device"))
        values = (str(folder), *hashes, *rest, engine_of(record) or math.nan)
        identity = dict(zip(IDENTITY, values, strict=True))
        config = flatten(record["config"])
        problem = flatten(record["problem"])
        problem_keys |= dict.fromkeys(problem)
        # first for the order of the columns, and last because it wins over the config
        lines.append(identity | config | problem | identity)
    keys = [key for key in dict.fromkeys(k for line in lines for k in line) if key not in measured]
    data: dict[str, Any] = {
        key: repeat([line.get(key, math.nan) for line in lines], lengths) for key in keys
    }
    data["seed"] = np.repeat([run.record["seed"] for run in runs], lengths)
    costs = [step_costs(run.record) for run in runs]
    for name, values in zip(COST_COLUMNS, zip(*costs, strict=True), strict=True):
        data[name] = np.repeat(np.array(values, dtype=float), lengths)
    for name in measured:
        parts = [
            run.columns.get(name, np.full(length, math.nan))
            for run, length in zip(runs, lengths, strict=True)
        ]
        data[name] = np.concatenate(parts)
    data["step"] = data["step"].astype(np.int64)
    table = pd.DataFrame(data)
    table.attrs = {
        "measured": [*measured, *COST_COLUMNS],
        "problem_keys": [key for key in problem_keys if key in keys and key not in IDENTITY],
    }
    return table


def step_costs(record: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """COST_COLUMNS of a record, NaN where its optimizer's steps were not measured, and where it
    was trained alone."""
    cohort = record.get("cohort") or 1
    share = float(cohort) if cohort > 1 else math.nan
    try:
        cost = record["cost"] or {}  # none was measured
        fastest = float(cost.get("step_ms_min", cost["step_ms"]))  # what disturbs only adds
        high = float(cost.get("step_ms_high", cost.get("step_ms_max", math.nan)))
        size = cost["state_bytes"] / cost["parameters"]
        return fastest, high / fastest, size, share
    except (TypeError, KeyError, ValueError, ArithmeticError):
        return math.nan, math.nan, math.nan, share


def repeat(values: Sequence[Any], lengths: Sequence[int]) -> pd.Categorical:
    """One value per run to one per row; a categorical, or 200 rows of text per run are slow."""
    codes, categories = pd.factorize(np.array([*values, None], dtype=object)[:-1])
    return pd.Categorical.from_codes(np.repeat(codes, lengths), categories=pd.Index(categories))

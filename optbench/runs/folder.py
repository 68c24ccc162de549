"""A run's folder: `run.json` with its settings and outcome, CSV files with curves.

This module writes the files; `optbench.formats.run` defines the format and reads it.
"""

import csv
import errno
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, TextIO, cast

from optbench.common.errors import UNWRITABLE, UserError
from optbench.common.files import read_text, replace_text
from optbench.common.metrics import TASK_METRICS, metric_of
from optbench.formats.record import FINISHED, PlannedRecord, RunRecord, Stop
from optbench.formats.run import AVERAGED, COLUMNS, FORMAT, columns_of, read_record, write_sealed
from optbench.runs.loggers import Loggers
from optbench.runs.provenance import CHECKOUT, git_commit, machine, versions
from optbench.training.evaluation import Row
from optbench.training.steps import Update

# the columns whose best value is in the summary of `run.json`
BEST_OF = (
    "train_loss",
    *(f"{averaged}val_{name}" for averaged in ("", AVERAGED) for name in ("loss", *TASK_METRICS)),
)


class RunFolder:
    """The writer of one run's folder, which overwrites no other run."""

    def __init__(
        self, group: Path, name: str, record: PlannedRecord, *, instead_of: Path | None = None
    ) -> None:
        """Make the folder `group/name`, or `group/name-2` and so on if it exists.

        instead_of: the folder of a dead run, which is emptied and used instead.
        """
        if instead_of is not None:
            for old in instead_of.iterdir():
                if old.is_file() or old.is_symlink():
                    old.unlink()
        self.path = instead_of or new_folder(group, name)
        begun: dict[str, Any] = {
            "format": FORMAT,
            **record,
            "status": "running",
            "error": None,
            "diverged_at_step": None,
            "versions": versions(),
            "machine": machine(str(record.get("device", "cpu"))),
            "git_commit": git_commit(CHECKOUT),
            "started": now(),
            "finished": None,
            "summary": {},
        }
        self.record = cast(RunRecord, begun)
        self._last: Row = {}
        self._best: dict[str, float] = {}
        self._rows = {"epochs": 0, "steps": 0}
        self._files: dict[str, TextIO] = {}
        self._columns: dict[str, list[str]] = {}  # of each file
        self.loggers = Loggers({})
        try:
            save(self.path, self.record)
            for file in self._rows:
                self._files[file] = self._open(file)
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)  # it holds no rows yet
            raise

    @classmethod
    def reopen(cls, path: Path, state: Mapping[str, Any]) -> "RunFolder":
        """Return an unfinished run's folder, with its files as they were at `state`.

        Later rows are cut off, since the resumed run writes them again.
        Raises ValueError or OSError where the files do not hold the rows of the state.
        """
        folder = cls.__new__(cls)
        folder.path, folder.record = path, read_record(path / "run.json")
        folder._last, folder._best = dict(state["last"]), dict(state["best"])
        folder._rows, folder._files, folder._columns = dict(state["rows"]), {}, {}
        kinds = {"epochs", "steps"} <= set(folder._rows) <= set(COLUMNS)
        # a checkpoint from others may name any file
        if not kinds or not all(isinstance(n, int) and n >= 0 for n in folder._rows.values()):
            raise ValueError(f"{path}: the checkpoint holds no counts of its rows")
        folder.loggers = Loggers({})
        for name, count in folder._rows.items():
            file = path / f"{name}.csv"
            lines = read_text(file).splitlines(keepends=True)[: count + 1]
            kept = "".join(lines)
            if len(lines) <= count or not lines[-1].endswith("\n"):
                raise ValueError(f"{file} has lost rows that were written")
            if hashlib.sha256(kept.encode()).hexdigest() != state["sha256"][name]:
                raise ValueError(f"{file} was changed after its rows were written")
            replace_text(file, kept)
            folder._columns[name] = lines[0].strip().split(",")  # perhaps of an earlier version
            folder._files[name] = file.open("a", encoding="utf-8", newline="")
        for file in path.glob("*.csv"):
            if file.stem not in folder._rows:
                file.unlink()  # begun after the checkpoint
        resumed = [*folder.record.get("resumed", []), now()]
        folder.record |= {"status": "running", "error": None, "resumed": resumed, "finished": None}
        folder.record.pop("process_died", None)
        save(path, folder.record)
        return folder

    def attach_loggers(self, loggers: Loggers, results: Path) -> None:
        """Hand all rows and the run's end to `loggers`, the rows already written first.

        results: `results_dir`, which holds this folder at some depth.
        """
        self.loggers = loggers
        loggers.start(self.path, results)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `reopen`, after all rows are on the disk."""
        for file in self._files.values():
            os.fsync(file.fileno())
        return {
            "last": self._last,
            "best": self._best,
            "rows": dict(self._rows),
            "sha256": self._digests(),
        }

    def write(self, update: Update) -> None:
        """Append the update's rows to the CSV files."""
        self._append("steps", update.steps)
        if update.layers:
            self._append("layers", update.layers)
        if update.epoch is not None:
            self._append("epochs", [update.epoch])
            self._last = update.epoch
            for key in BEST_OF:
                value, better = update.epoch.get(key), min if metric_of(key).smaller else max
                # step 0 is the untrained model, which cannot be an optimizer's best epoch
                if value is not None and isfinite(value) and update.epoch["step"]:
                    self._best[f"best_{key}"] = better(value, self._best.get(f"best_{key}", value))
        if update.status == "diverged":
            self.record["diverged_at_step"] = update.step
        if update.stopped is not None:
            self.record["stopped"] = Stop(by=update.stopped, step=update.step)
        wanted = (self.record["config"].get("stop_at") or {}).get("value") is not None
        if wanted and update.status in FINISHED:
            self.record["target_reached"] = update.stopped == "stop_at"

    def finish(self, status: str, error: str | None = None) -> None:
        """Close the files and record how the run ended.

        Raises OSError, and records nothing, where a file cannot be written as a whole. A run with
        status "failed" is recorded anyway.
        """
        for file in self._files.values():
            try:
                if not file.closed:
                    file.flush()
                    os.fsync(file.fileno())  # before the record says that they are whole
            except OSError:
                if status != "failed":
                    raise
            finally:
                with suppress(OSError):
                    file.close()
        figures = {k: v for k, v in (self._last | self._best).items() if v is not None}
        self.record |= {
            "status": status,
            "error": error,
            "finished": now(),
            # JSON has no infinity: a number that is not finite is null here, and in full in the CSV
            "summary": {k: v if isfinite(v) else None for k, v in figures.items()}
            | {"rows": self._rows},  # how many the CSV files must hold
            "csv_sha256": self._digests(),
        }
        save(self.path, self.record)
        self.loggers.finish(status)

    def _digests(self) -> dict[str, str]:
        """Return the SHA-256 of each CSV file; readers report files that are gone."""
        found = {}
        for name in self._files:
            with suppress(OSError), (self.path / f"{name}.csv").open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def _open(self, name: str) -> TextIO:
        file = (self.path / f"{name}.csv").open("w", encoding="utf-8", newline="")
        self._columns[name] = columns_of(name, self.record)
        csv.writer(file, lineterminator="\n").writerow(self._columns[name])
        file.flush()
        return file

    def _append(self, name: str, rows: Sequence[Mapping[str, float | str | None]]) -> None:
        if name not in self._files:
            self._files[name], self._rows[name] = self._open(name), 0
        writer = csv.writer(self._files[name], lineterminator="\n")
        exact = self.record.get("problem", {}).get("precision") == "float64"
        digits = 17 if exact else 9  # enough for a float64, or a float32, without rounding
        columns = self._columns[name]
        writer.writerows([_cell(row.get(c), digits) for c in columns] for row in rows)
        self._files[name].flush()
        if not os.fstat(self._files[name].fileno()).st_nlink:  # writes to a deleted file never fail
            raise FileNotFoundError(errno.ENOENT, "the folder was deleted", str(self.path))
        self._rows[name] += len(rows)
        self.loggers.rows(name, rows)


def save(folder: Path, record: RunRecord) -> None:
    """Write a run's `run.json`. Raises OSError."""
    write_sealed(folder / "run.json", record)


def new_folder(group: Path, name: str) -> Path:
    """Make the folder `group/name`, or `group/name-2` and so on if it exists."""
    number = 1
    while True:
        path = group / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not group.is_dir():
                raise UserError(f"{group} is a file; a folder for the results is needed") from None
            number += 1
        except OSError as error:
            raise UserError(UNWRITABLE.format(group, error.strerror)) from error


def _cell(value: float | str | None, digits: int) -> str:
    """Return the text of a cell, which is empty for a value that does not exist."""
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.{digits}g}"


def now() -> str:
    """Return the current time with its zone, in the format of a record."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

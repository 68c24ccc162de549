"""A run's folder: `run.json` says what was asked and how it ended, CSV files hold the curves.

This module writes; `optbench.formats.run` knows the format and reads.
"""

import csv
import errno
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, TextIO

from optbench import __version__
from optbench.common.console import say
from optbench.common.errors import UNWRITABLE, UserError, unwritable
from optbench.common.files import read_text, replace_text
from optbench.formats.run import COLUMNS, FORMAT, check_whole, read_record, write_sealed
from optbench.runs import locks
from optbench.runs.loggers import Loggers
from optbench.training.evaluation import Row
from optbench.training.steps import Update

FINISHED = ("completed", "diverged")
HERE = Path(__file__).resolve().parents[2]  # the checkout that optbench runs from, if it is one
# NAME/RUN, sweeps/SWEEP/RUN; one level more for a study in a folder of conf/study, and one for the
# phase of a tuned study
DEEPEST = 5


class RunFolder:
    """Writes one run into a new folder; an existing one is never overwritten."""

    def __init__(
        self, group: Path, name: str, record: Mapping[str, Any], *, instead_of: Path | None = None
    ) -> None:
        """Make `group/name`, or `group/name-2` and so on where that exists.

        instead_of: the folder of a run that is given up; it is emptied and taken.
        """
        if instead_of is not None:
            for old in instead_of.iterdir():
                if old.is_file() or old.is_symlink():
                    old.unlink()
        self.path = instead_of or _new_folder(group, name)
        self.record: dict[str, Any] = {
            "format": FORMAT,
            **record,
            "status": "running",
            "error": None,
            "diverged_at_step": None,
            "versions": _versions(),
            "machine": _machine(str(record.get("device", "cpu"))),
            "git_commit": git_commit(HERE),
            "started": _now(),
            "finished": None,
            "summary": {},
        }
        self._last: Row = {}
        self._best: dict[str, float] = {}
        self._rows = {"epochs": 0, "steps": 0}
        self._files: dict[str, TextIO] = {}
        self.loggers = Loggers({})
        try:
            _save(self.path, self.record)
            for file in self._rows:
                self._files[file] = self._open(file)
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)  # it has nothing in it yet
            raise

    @classmethod
    def reopen(cls, path: Path, state: Mapping[str, Any]) -> "RunFolder":
        """An unfinished run's folder, with its files as they were at `state`.

        Rows that were written later are cut off: they will be written again.
        Raises ValueError or OSError where the files do not hold what the state says.
        """
        folder = cls.__new__(cls)
        folder.path, folder.record = path, read_record(path / "run.json")
        folder._last, folder._best = dict(state["last"]), dict(state["best"])
        folder._rows, folder._files = dict(state["rows"]), {}
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
            folder._files[name] = file.open("a", encoding="utf-8", newline="")
        for file in path.glob("*.csv"):
            if file.stem not in folder._rows:
                file.unlink()  # begun after the checkpoint
        resumed = [*folder.record.get("resumed", []), _now()]
        folder.record |= {"status": "running", "error": None, "resumed": resumed, "finished": None}
        folder.record.pop("process_died", None)
        _save(path, folder.record)
        return folder

    def discard(self) -> None:
        """Take the folder of a run that could not begin away again."""
        for file in self._files.values():
            file.close()
        self.loggers.finish("failed")
        shutil.rmtree(self.path, ignore_errors=True)

    def follow(self, loggers: Loggers, results: Path) -> None:
        """Hand all rows, those already written first, and the end to `loggers` too.

        results: the folder that this one is somewhere in.
        """
        self.loggers = loggers
        loggers.start(self.path, results)

    def state_dict(self) -> dict[str, Any]:
        """What `reopen` needs, once all rows are on the disk."""
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
            for key, better in (("train_loss", min), ("val_loss", min), ("val_accuracy", max)):
                value = update.epoch[key]
                # the untrained model is nobody's best epoch
                if value is not None and isfinite(value) and update.epoch["step"]:
                    self._best[f"best_{key}"] = better(value, self._best.get(f"best_{key}", value))
        if update.status == "diverged":
            self.record["diverged_at_step"] = update.step

    def finish(self, status: str, error: str | None = None) -> None:
        """Close the files and record how the run ended.

        Raises OSError where a file cannot be written as a whole, and records nothing, unless the
        run has failed anyway.
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
            "finished": _now(),
            # JSON has no infinity: a figure that is not finite is null, and the CSV has it
            "summary": {k: v if isfinite(v) else None for k, v in figures.items()}
            | {"rows": self._rows},  # what the CSV files must hold
            "csv_sha256": self._digests(),
        }
        _save(self.path, self.record)
        self.loggers.finish(status)

    def _digests(self) -> dict[str, str]:
        """The SHA-256 of each CSV file, less those that are gone: readers name them."""
        found = {}
        for name in self._files:
            with suppress(OSError), (self.path / f"{name}.csv").open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def _open(self, name: str) -> TextIO:
        file = (self.path / f"{name}.csv").open("w", encoding="utf-8", newline="")
        csv.writer(file, lineterminator="\n").writerow(COLUMNS[name])
        file.flush()
        return file

    def _append(self, name: str, rows: Sequence[Mapping[str, float | str | None]]) -> None:
        if name not in self._files:
            self._files[name], self._rows[name] = self._open(name), 0
        writer = csv.writer(self._files[name], lineterminator="\n")
        exact = self.record.get("problem", {}).get("precision") == "float64"
        digits = 17 if exact else 9  # they hold a float64, or a float32, exactly
        writer.writerows([_cell(row.get(c), digits) for c in COLUMNS[name]] for row in rows)
        self._files[name].flush()
        if not os.fstat(self._files[name].fileno()).st_nlink:  # it could be written for ever
            raise FileNotFoundError(errno.ENOENT, "the folder was deleted", str(self.path))
        self._rows[name] += len(rows)
        self.loggers.rows(name, rows)


class Finished:
    """Finds completed and diverged runs; the folders are listed once, at the first question."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[Path]]] = {}
        self._marks: dict[Path, int] = {}

    def mark(self, results: Path) -> int:
        """`locks.released` when the folders were listed: later runs are not among them."""
        self._list(results)
        return self._marks[results]

    def __call__(self, results: Path, run_id: str, group: Path | None = None) -> Path | None:
        """The newest such run with this identity in any folder of `results`.

        One in `group` comes first: a sweep that has the run needs no second copy of it.
        """
        self._list(results)
        found: list[tuple[bool, str, Path, dict[str, Any]]] = []
        # a folder's name says where to look; what the run is stands in its record
        for path in self._folders[results].get(run_id, ()):
            try:
                record = read_record(path)
            except (OSError, ValueError):
                continue  # what is damaged proves nothing: the run is done again, in a new folder
            if record["run_id"] == run_id and record["status"] in FINISHED:
                own = group is not None and path.parent.parent.resolve() == group.resolve()
                found.append((own, str(record.get("finished")), path.parent, record))
        for *_, folder, record in sorted(found, key=lambda one: one[:3], reverse=True):
            try:
                check_whole(folder, record)
            except (OSError, ValueError) as error:
                say(f"warning: {folder} {error}: the run is done again", error=True)
            else:
                return folder
        return None

    def _list(self, results: Path) -> None:
        if results not in self._folders:
            self._marks[results] = locks.released(results)
            words: dict[str, list[Path]] = {}
            for here, below, files in os.walk(results, followlinks=True):
                folder = Path(here)
                depth = len(folder.parts) - len(results.parts)
                if depth == DEEPEST:
                    below.clear()
                if depth > 1 and "run.json" in files and "-" in folder.name:
                    for word in folder.name.split("-"):
                        words.setdefault(word, []).append(folder / "run.json")
            self._folders[results] = words

    def add(self, results: Path, run_id: str, folder: Path) -> None:
        """A run that has come to its end since."""
        if results in self._folders:
            self._folders[results].setdefault(run_id, []).append(folder / "run.json")


def find_finished(results: Path, run_id: str, group: Path | None = None) -> Path | None:
    """The newest completed or diverged run with this identity in any folder of `results`."""
    return Finished()(results, run_id, group)


def abandon(folder: Path, error: str) -> bool:
    """Mark a run as failed whose process can no longer do it; False where it had come to an end."""
    record = read_record(folder / "run.json")
    if record["status"] != "running":
        return False
    ended = {"status": "failed", "error": error, "finished": _now(), "process_died": True}
    _save(folder, record | ended)
    return True


def copy_run(run: Path, group: Path, config: Mapping[str, Any]) -> Path:
    """Copy a finished run's folder into another group, so that each sweep's folder is complete.

    config: what was asked for now; it differs from the run's own in nothing that made the curves.
    """
    target = _new_folder(group, run.name)
    try:
        for file in run.glob("*.csv"):
            shutil.copyfile(file, target / file.name)
        record = read_record(run / "run.json")
        reused = {"reused": _now()} if "code" in record else {}
        _save(target, record | {"config": config} | reused)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise unwritable(target, error) from error
    return target


def note_reuse(run: Path) -> None:
    """Note that a command asked for a finished run with the code that made it: of several versions
    of one's own code that one is the newest which was asked for last. Raises OSError."""
    _save(run, read_record(run / "run.json") | {"reused": _now()})


def _save(folder: Path, record: Mapping[str, Any]) -> None:
    write_sealed(folder / "run.json", record)


def _new_folder(group: Path, name: str) -> Path:
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
    """A value that does not exist is an empty field."""
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.{digits}g}"


def _versions() -> dict[str, str]:
    import numpy
    import torch

    return {
        "optbench": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


@cache
def _machine(device: str) -> dict[str, str]:
    """What the times depend on; no name of a host or a person."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text("utf-8", "replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
    found = {"system": f"{platform.system()} {platform.machine()}", "cpu": cpu}
    found |= {"cores": str(os.cpu_count()), "allocator": allocator()}
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def allocator() -> str:
    """Return the preloaded library that allocates memory; "system" for the C library's own."""
    words = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    maps = Path("/proc/self/maps")
    loaded = maps.read_text("utf-8", "replace") if words and maps.exists() else ""
    found = (p.name for p in map(Path, words) if "malloc" in p.name and p.resolve().name in loaded)
    return next(found, "system")


@cache
def git_commit(root: Path) -> str | None:
    """The commit of a checkout; None if there is none.

    `-dirty` is added where files differ from it.
    """
    if not (root / ".git").exists():
        return None
    # not `describe --dirty`: it locks the index, and a lock would stay where this process is killed
    git = ["git", "--no-optional-locks", "-C", str(root)]
    try:
        commit, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout
            for words in (
                ["describe", "--always", "--abbrev=40"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + "-dirty" * bool(changes.strip())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

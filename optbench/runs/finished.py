"""Finished runs: found by their identity, and reused."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optbench.common.console import warn
from optbench.common.errors import unwritable
from optbench.formats.record import FINISHED, RunRecord
from optbench.formats.run import check_whole, read_record
from optbench.runs import locks
from optbench.runs.folder import new_folder, now, save

# sweeps/SWEEP/RUN, with one level more for a study in a folder of conf/study, and one for the phase
# of a tuned study
MAX_FOLDER_DEPTH = 5


class Finished:
    """An index of completed and diverged runs; the first call lists the folders."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[Path]]] = {}
        self._marks: dict[Path, int] = {}

    def mark(self, results: Path) -> int:
        """Return `locks.release_log_position` at the time when the folders were listed."""
        self._list(results)
        return self._marks[results]

    def __call__(self, results: Path, run_id: str, group: Path | None = None) -> Path | None:
        """Return the newest finished run with this identity in any folder of `results`.

        Runs in `group` come first: a sweep that has the run needs no second copy of it.
        """
        self._list(results)
        found: list[tuple[bool, str, Path, RunRecord]] = []
        # a folder's name says where to look, but only its record says which run it holds
        for path in self._folders[results].get(run_id, ()):
            try:
                record = read_record(path)
            except (OSError, ValueError):
                continue  # a damaged record proves nothing: the run is done again, elsewhere
            if record["run_id"] == run_id and record["status"] in FINISHED:
                own = group is not None and path.parent.parent.resolve() == group.resolve()
                found.append((own, str(record.get("finished")), path.parent, record))
        for *_, folder, record in sorted(found, key=lambda one: one[:3], reverse=True):
            try:
                check_whole(folder, record)
            except (OSError, ValueError) as error:
                warn(f"{folder} {error}: the run is done again")
            else:
                return folder
        return None

    def _list(self, results: Path) -> None:
        if results not in self._folders:
            self._marks[results] = locks.release_log_position(results)
            words: dict[str, list[Path]] = {}
            for here, below, files in os.walk(results, followlinks=True):
                folder = Path(here)
                depth = len(folder.parts) - len(results.parts)
                if depth == MAX_FOLDER_DEPTH:
                    below.clear()
                if depth > 1 and "run.json" in files and "-" in folder.name:
                    for word in folder.name.split("-"):
                        words.setdefault(word, []).append(folder / "run.json")
            self._folders[results] = words

    def add(self, results: Path, run_id: str, folder: Path) -> None:
        """Add a run that finished after the folders were listed."""
        if results in self._folders:
            self._folders[results].setdefault(run_id, []).append(folder / "run.json")

    def note(self, results: Path, run_id: str, folder: Path) -> None:
        """Add a run, in place of listing the folders of `results`."""
        self._folders.setdefault(results, {})
        self._marks.setdefault(results, 0)
        self.add(results, run_id, folder)


def find_finished(results: Path, run_id: str, group: Path | None = None) -> Path | None:
    """Return the newest finished run with this identity in any folder of `results`."""
    return Finished()(results, run_id, group)


def abandon(folder: Path, error: str) -> bool:
    """Mark the run of a dead process as failed; return False if it had ended before."""
    record = read_record(folder / "run.json")
    if record["status"] != "running":
        return False
    record |= {"status": "failed", "error": error, "finished": now(), "process_died": True}
    save(folder, record)
    return True


def copy_run(run: Path, group: Path, config: Mapping[str, Any]) -> Path:
    """Copy a finished run into another group, so that each sweep's folder is complete.

    config: the configuration of the current command, which would make the same curves.
    """
    target = new_folder(group, run.name)
    try:
        for file in run.glob("*.csv"):
            shutil.copyfile(file, target / file.name)
        record = read_record(run / "run.json")
        record["config"] = dict(config)
        if "code" in record:
            record["reused"] = now()
        save(target, record)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise unwritable(target, error) from error
    return target


def note_reuse(run: Path) -> None:
    """Note in a finished run that a command reused it. Raises OSError.

    Of several versions of a user's code, the one that was asked for last counts as the newest.
    """
    save(run, read_record(run / "run.json") | {"reused": now()})

"""Read and write the lists of jobs of a study that several workers share.

Each worker writes its own list, `.work/CALL/WORKER.jsonl` in the study's folder: first who it is,
then a line for each job that it has ended, last that it has left. So no two machines write one
file. A call is the joint work of all workers until the study is whole; its last worker puts all
lines into `jobs.jsonl`.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

WORK_FOLDER = ".work"
SUBMISSIONS_FILE = "submissions.jsonl"  # in `.work`: the jobs given to a scheduler
LEFT = {"left": True}
# of two outcomes of one job, the one that counts
RANK = {"completed": 3, "diverged": 3, "failed": 2, "interrupted": 1}
Line = dict[str, Any]


class Worker(NamedTuple):
    """A worker's list: who it is, the lines of its jobs, and whether it has left."""

    info: Line
    lines: list[Line]
    left: bool

    @property
    def name(self) -> str:
        """The worker's name."""
        return str(self.info.get("worker"))


def call_folder(folder: Path, call: str) -> Path:
    """Return the folder of the lists of one call."""
    return folder / WORK_FOLDER / call


def call_of(first: Mapping[str, Any]) -> Line:
    """Return the call that the first line of `jobs.jsonl` names; {} if there is none."""
    found = first.get("call")
    return found if isinstance(found, dict) and isinstance(found.get("id"), str) else {}


def list_files(folder: Path, call: str) -> list[Path]:
    """Return the workers' lists of a call."""
    return sorted(call_folder(folder, call).glob("*.jsonl"))


def read_workers(folder: Path, call: str) -> list[Worker]:
    """Return all workers of a call with their lines."""
    found = []
    for path in list_files(folder, call):
        try:
            lines = list(parse_lines(path.read_bytes()))
        except OSError:
            continue  # the call has ended meanwhile
        info = lines[0] if lines and "worker" in lines[0] else {"worker": path.stem}
        jobs = [line for line in lines if "job" in line]
        found.append(Worker(info, jobs, LEFT in lines))
    return found


def parse_lines(data: bytes) -> Iterator[Line]:
    """Yield the objects of a JSON-lines file, without torn lines."""
    for text in data.split(b"\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            yield line


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line to a worker's own list, which has no other writer. Raises OSError."""
    with path.open("ab+") as file:
        torn = False
        if file.tell():
            file.seek(-1, 2)
            torn = file.read(1) != b"\n"  # a full disk may have cut the last line
        file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")


def best_of(lines: Iterable[Line]) -> list[Line]:
    """Return one line for each job: of a finished run, rather than of a failed one."""
    kept: dict[int, Line] = {}
    for line in lines:
        rank = RANK.get(str(line.get("status")), 0)
        number = line["job"]
        if number not in kept or rank >= RANK.get(str(kept[number].get("status")), 0):
            kept[number] = line
    return [kept[number] for number in sorted(kept)]


def remove_lists(folder: Path, call: str) -> None:
    """Delete the lists of a call whose lines are all in `jobs.jsonl`."""
    shutil.rmtree(call_folder(folder, call), ignore_errors=True)
    with suppress(OSError):
        (folder / WORK_FOLDER).rmdir()  # if nothing else is left there


def submissions(folder: Path) -> list[Line]:
    """Return what was given to a scheduler: its name, the job's number, and the logs."""
    try:
        return list(parse_lines((folder / WORK_FOLDER / SUBMISSIONS_FILE).read_bytes()))
    except OSError:
        return []

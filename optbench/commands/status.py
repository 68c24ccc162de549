"""`optbench status FOLDER`: what of a study is queued, running, done and failed, and who works."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from optbench.commands import Parser
from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.common.text import count
from optbench.formats import job_list, shared_study
from optbench.formats.record import FINISHED
from optbench.formats.run import read_record
from optbench.runs import claims
from optbench.sweeps.clusters import queue

MAX_LINES = 10  # of each kind: running, failed
SILENT_SECONDS = 60.0  # after which a heartbeat is called old


def main(argv: Sequence[str] | None = None) -> int:
    """Run `optbench status`; return 0."""
    parser = Parser(
        prog="optbench status",
        description="Show what of a sweep or a study is done, running, queued and failed.",
    )
    parser.add_argument("folder", type=expanded, metavar="FOLDER", help="of a sweep or a study")
    asked = parser.parse_args(argv)
    print("\n".join(lines_of(Path(asked.folder))))
    return 0


def lines_of(folder: Path) -> Iterator[str]:
    """Yield the lines about a study. Raise `UserError` for a folder without one."""
    try:
        first, outcomes = job_list.read(folder)
    except OSError:
        if not folder.exists():
            raise UserError(f"there is no folder {folder}") from None
        hint = f": it has no {job_list.JOBS_FILE}"
        if (folder / "run.json").exists():
            hint = ": it is one run, and its run.json says how it ended"
        raise UserError(f"{folder} is not the folder of a sweep{hint}") from None
    except ValueError as error:
        raise UserError(str(error)) from None
    call = shared_study.call_of(first)
    workers = shared_study.read_workers(folder, call["id"]) if call else []
    running = list(running_in(claim_folder(folder, first), {one.name for one in workers}))
    # workers name what they run; another sweep's runs are those whose folders it does not list
    unlisted = {} if call else unlisted_runs(folder, outcomes)
    begun = sum(status in ("running", "interrupted") for status in unlisted.values())
    yield summary(folder, first, outcomes, len(running), begun)
    kept = sum(status in FINISHED for status in unlisted.values())
    if kept and first["planned"] != len(outcomes):
        yield (
            f"the folder also has {count(kept, 'finished run')} of earlier commands; the command "
            f"reuses those that it needs"
        )
    yield from shortened("running", [f"{one.get('job')}  by {one['worker']}" for one in running])
    failed = [line for line in outcomes if line["status"] == "failed"]
    yield from shortened("failed", [failure(line) for line in failed])
    if workers:
        yield "workers:"
        yield from (worker_line(folder, first, one) for one in workers)
    elif call:
        yield "no worker has joined yet"
    for line in shared_study.submissions(folder):
        yield from submission_lines(line)
    over = sum(line["status"] in (*FINISHED, "failed") for line in outcomes)
    whole = first["planned"] is not None and over >= first["planned"]
    if call and whole and not (folder / "summary.md").exists():
        yield f"the figures are not drawn yet: `optbench work {folder}` draws them"
    elif call and not any(not one.left for one in workers):
        yield f"nobody works on it: `optbench work {folder}` goes on"


def unlisted_runs(folder: Path, outcomes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the status of each run in a folder whose end the list of jobs does not have."""
    found = dict[str, str]()
    ended = {str(line.get("run")) for line in outcomes if line["status"] != "interrupted"}
    for place in folder.iterdir():
        if place.name not in ended and (place / "run.json").exists():
            with suppress(OSError, ValueError):
                found[place.name] = read_record(place / "run.json")["status"]
    return found


def summary(
    folder: Path,
    first: Mapping[str, Any],
    outcomes: Sequence[Mapping[str, Any]],
    running: int,
    begun: int = 0,
) -> str:
    """Return how many runs there are of each kind."""
    counts = Counter(str(line["status"]) for line in outcomes)
    done = sum(counts[status] for status in FINISHED)
    words = [f"{done} done"]
    words += [f"{counts['diverged']} of them diverged"] if counts["diverged"] else []
    words += [f"{running} running"] if running else []
    words += [f"{begun} begun (running, or interrupted)"] if begun else []
    words += [f"{counts['failed']} failed"] if counts["failed"] else []
    planned = first["planned"]
    if planned is not None and (left := planned - done - counts["failed"] - running - begun) > 0:
        words.append(f"{left} to do")
    total = "? runs" if planned is None else count(planned, "run")
    return f"{folder}: {total}, {', '.join(words)}"


def claim_folder(folder: Path, first: Mapping[str, Any]) -> Path:
    """Return the folder of the claims of a study's workers."""
    inside = (first.get("command") or {}).get("inside")
    results = folder.absolute()
    for _ in Path(inside or "").parts:
        results = results.parent
    return results / claims.CLAIM_FOLDER


def running_in(folder: Path, workers: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the holders of the claims that these workers have on runs."""
    for name, generation in sorted(claims.newest_of(folder).items()):
        holder = claims.holder_of(folder, name, generation)
        if holder.get("worker") in workers and holder.get("job"):
            yield holder


def failure(line: Mapping[str, Any]) -> str:
    """Return which job failed, and the first line of its error."""
    words = [text for text in line["overrides"] if not job_list.is_cosmetic(text)]
    error = next(iter(str(line.get("error")).splitlines()), "")
    return f"{' '.join(words)}: {error}"


def shortened(what: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield a heading and the first lines, and how many there are more."""
    if lines:
        yield f"{what}:"
        yield from (f"  {line}" for line in lines[:MAX_LINES])
        if len(lines) > MAX_LINES:
            yield f"  and {len(lines) - MAX_LINES} more"


def worker_line(folder: Path, first: Mapping[str, Any], worker: shared_study.Worker) -> str:
    """Return a line about a worker: what it has done, and its last sign of life."""
    info = worker.info
    words = [f"{count(len(worker.lines), 'run')} ended"] if info.get("trains", True) else ["waits"]
    if array := info.get("slurm_array"):
        words.append(f"Slurm {array}_{info.get('slurm_task')} (job {info.get('slurm_job')})")
    elif job := info.get("slurm_job"):
        words.append(f"Slurm {job}")
    if gpus := info.get("gpus"):
        words.append(f"GPU {gpus}")
    if worker.left:
        words.append("has left")
    elif claims.is_dead_here(info):
        words.append("has died: others take over its runs")
    else:
        words.append(sign_of_life(claim_folder(folder, first), worker.name))
    return f"  {worker.name}: {', '.join(words)}"


def sign_of_life(folder: Path, worker: str) -> str:
    """Return how long ago a worker's heartbeat was, by the clock of the file system."""
    try:
        age = now_of(folder) - claims.beat_file(folder, worker).stat().st_mtime
    except OSError:
        return "no sign of life"
    return f"silent for {age:.0f} s" if age > SILENT_SECONDS else "at work"


def now_of(folder: Path) -> float:
    """Return the time by the file server's clock, or else by this machine's."""
    probe = folder / f"now-{time.monotonic_ns()}.tmp"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def submission_lines(line: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a scheduler says about its job."""
    if line.get("scheduler") != "slurm":
        yield f"{line.get('scheduler')}: {line.get('about', '')}"
        return
    job = str(line.get("job"))
    found = queue.tasks_of(job)
    if found is None:
        state = "Slurm does not answer here"
    elif not found:
        state = "ended"
    else:
        states = Counter(one.state.lower() for one in found)
        state = ", ".join(f"{number} {name}" for name, number in sorted(states.items()))
        if reasons := {one.reason for one in found if one.state == "PENDING"} - {"None"}:
            state += f" ({', '.join(sorted(reasons))})"
    yield f"Slurm array {job} of {count(int(line.get('tasks', 0)), 'task')}: {state}"
    yield f"  logs: {line.get('logs')}"

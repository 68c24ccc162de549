"""A sweep's list of jobs, `jobs.jsonl`: the plan, then a line for each ended job."""

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optbench.common.console import warn
from optbench.common.files import read_text, replace_text
from optbench.formats import shared_study
from optbench.formats.keys import COSMETIC_KEYS, NO_EFFECT_KEYS
from optbench.formats.record import FINISHED

JOBS_FILE = "jobs.jsonl"
ENGINES_FILE = "engines.json"  # the engine of each problem in the sweep
FIGURE_FILE = "figure.json"  # the options of the sweep's figure
CLAIM_FILE = "claim.json"  # the claim of the sweep's study
MANIFEST_FILE = "study.json"  # a tuned study's trials and choices
# a folder with one of these files is a sweep's folder
SWEEP_FILES = (JOBS_FILE, MANIFEST_FILE, FIGURE_FILE, CLAIM_FILE, ENGINES_FILE)
Job = dict[str, Any]
ended: list[Job] = []  # the ended jobs of this process's sweep
engines: dict[str, str] = {}  # the engine that this process's sweep chose, by problem
unwritten: list[Job] = []  # the ended jobs that could not be written


class Shared:
    """The call that this process has joined, if other workers share its study."""

    call: Job | None = None
    own_list: Path | None = None  # this worker's list, in place of `jobs.jsonl`

    def leave(self) -> None:
        """Forget the call: this process has the study for itself."""
        self.call = self.own_list = None


shared = Shared()


def plan(
    folder: Path,
    planned: int | None,
    retry: str,
    jobs: Sequence[Sequence[str]] | None = None,
    words: Sequence[str] | None = None,
    command: Mapping[str, Any] | None = None,
) -> None:
    """Start a new list with the number of jobs, their overrides, and earlier failures.

    planned: None while a tuned study has not decided. jobs: None for a tuned study, whose manifest
    has them. words: the overrides of the command. command: from `sweeps.folder.command_of`; None:
    the one of the list so far. If this process has joined a call, the call's list stays, and gets
    the new number of jobs.
    """
    ended.clear()
    unwritten.clear()
    before = first_line(folder)
    joined = shared.call and shared_study.call_of(before).get("id") == shared.call["id"]
    if joined:  # the engines stay those that the first worker chose
        if planned is not None:
            replan(folder, planned)
        return
    engines.clear()
    first: Job = {"planned": planned, "retry": retry, "jobs": jobs}
    first["failed_before"] = failed(folder)
    first |= {} if words is None else {"words": list(words)}
    first["command"] = before.get("command") if command is None else command
    first |= {"call": shared.call} if shared.call else {}
    replace_text(folder / JOBS_FILE, json.dumps(first) + "\n")
    if earlier := shared_study.call_of(before):
        shared_study.remove_lists(folder, earlier["id"])


def first_line(folder: Path) -> Job:
    """Return the plan of a sweep's list; {} without a readable one."""
    try:
        with (folder / JOBS_FILE).open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return {}
    return first if isinstance(first, dict) else {}


def replan(folder: Path, planned: int) -> None:
    """Set the number of jobs of a study that has decided on more."""
    text, _, rest = read_text(folder / JOBS_FILE).partition("\n")
    first = json.loads(text)
    if shared.call and (first["planned"] or 0) >= planned:
        return  # another worker has come further
    replace_text(folder / JOBS_FILE, json.dumps(first | {"planned": planned}) + "\n" + rest)


def close(folder: Path) -> None:
    """End a call: put the lines of all workers, and this one's, into `jobs.jsonl`."""
    first, outcomes = read(folder)
    call = first.pop("call")
    found = shared_study.best_of([*outcomes, *ended])
    replace_text(folder / JOBS_FILE, "".join(json.dumps(line) + "\n" for line in [first, *found]))
    shared_study.remove_lists(folder, call["id"])


def record(folder: Path, job: Mapping[str, Any], *, write: bool = True) -> None:
    """Append a job's outcome: its number, overrides, status, run folder and error.

    write: False for an outcome that another worker of the same call has written.
    """
    ended.append(dict(job))
    if not write:
        return
    if shared.own_list is not None:
        shared_study.append(shared.own_list, job)
        return
    with (folder / JOBS_FILE).open("ab+") as file:
        file.seek(-1, os.SEEK_END)  # the file holds the plan at least
        torn = file.read(1) != b"\n"  # a full disk may have cut the last line
        file.write(b"\n" * torn + json.dumps(job).encode() + b"\n")


def with_more_seeds(first: Job, seeds: Sequence[int], count: int) -> str:
    """Return the command that repeats a sweep with `count` seeds; "" if not known.

    seeds: those that were run, and are kept.
    """
    new = sorted(set(seeds))
    new += [seed for seed in range(count) if seed not in new][: max(0, count - len(new))]
    text = ",".join(map(str, new))
    text = f"range({len(new)})" if sorted(new) == list(range(len(new))) else text
    return with_value(first, "seed", text)


def with_value(first: Job, key: str, text: str) -> str:
    """Return the command that repeats a sweep with another value of a key, or ""."""
    words: list[str] = first.get("words") or []
    if not words or not is_texts(words):
        return ""  # a list of an older version, or of a tuned study
    kept = [word for word in words if _key(word) != key]
    return " ".join(["python -m optbench -m", *map(shlex.quote, [*kept, f"{key}={text}"])])


def read(folder: Path) -> tuple[Job, list[Job]]:
    """Return the plan and the outcomes, without lines that a killed process left torn."""
    lines: list[Job] = []
    for number, line in enumerate(read_text(folder / JOBS_FILE).split("\n")):
        try:
            job = json.loads(line)
            if _is_outcome(job) if number else _is_plan(job):
                lines.append(job)
        except (ValueError, TypeError, RecursionError):
            pass  # a torn or damaged line
        if not lines:
            raise ValueError(f"{folder / JOBS_FILE} does not begin with what was planned")
    first, outcomes = lines[0], lines[1:]
    if call := shared_study.call_of(first):
        workers = shared_study.read_workers(folder, call["id"])
        others = [line for one in workers for line in one.lines if _is_outcome(line)]
        outcomes = shared_study.best_of([*outcomes, *others])
    return first, outcomes


def _is_plan(line: object) -> bool:
    return (
        isinstance(line, dict)
        and isinstance(line.get("planned", ""), int | None)
        and (line.get("jobs") is None or all(map(is_texts, line["jobs"])))
        and all(map(_is_outcome, line.get("failed_before", [])))
    )


def is_texts(value: object) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_outcome(job: object) -> bool:
    return (
        isinstance(job, dict)
        and isinstance(job.get("job"), int)
        and isinstance(job.get("status"), str)
        and is_texts(job.get("overrides"))
    )


def count(folder: Path) -> int | None:
    """Return how many jobs the sweep has planned; None where it decides as it runs."""
    with (folder / JOBS_FILE).open(encoding="utf-8") as file:
        return json.loads(file.readline())["planned"]


def label(folder: Path, number: int, overrides: Sequence[str]) -> str:
    """Return a run's label: its number, the count of runs, and the overrides that vary."""
    with (folder / JOBS_FILE).open(encoding="utf-8") as file:
        first = json.loads(file.readline())
    jobs = first.get("jobs") or [[]]
    shared = {*jobs[0]} & {*jobs[-1]}  # in a grid, what these two share all jobs share
    words = [text for text in overrides if not is_cosmetic(text)]
    words = [text for text in words if text not in shared] or words
    return f"[{number + 1}/{first['planned'] or '?'}] {' '.join(words)}"


def failed(folder: Path) -> list[Job]:
    """Return the failed jobs of a sweep's list; [] without a readable list."""
    found = read_or_say(folder)
    return [] if found is None else failed_of(*found)


def read_or_say(folder: Path) -> tuple[Job, list[Job]] | None:
    """Return the plan and the outcomes, or None; warn where the list is damaged."""
    try:
        return read(folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        warn(f"the list of the sweep's jobs cannot be read ({error})")
        return None


def failed_of(first: Job, outcomes: Sequence[Job]) -> list[Job]:
    """Return the jobs whose last try failed, in this or an earlier call of the sweep."""
    latest: dict[tuple[str, ...], Job] = {}
    for job in [*first.get("failed_before", []), *outcomes]:
        latest[job_identity(job["overrides"])] = job
    return [job for job in latest.values() if job["status"] == "failed"]


def job_identity(overrides: Iterable[str]) -> tuple[str, ...]:
    """Return a job's overrides without those on which its failure cannot depend.

    The place of the results is left out: a worker that was given the folder writes it. Quotes about
    a value are left out: such a worker writes them, and one that was given the words of a study may
    not.
    """
    top = {unquoted(text): _key(text).split(".")[0] for text in overrides}
    left_out = (*NO_EFFECT_KEYS, "results_dir")
    return tuple(sorted(text for text, key in top.items() if key not in left_out))


def unquoted(override: str) -> str:
    """Return an override without quotes about its value."""
    key, sign, value = override.partition("=")
    whole = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return f"{key}{sign}{value[1:-1]}" if whole else override


def progress(planned: Sequence[Sequence[str]], statuses: Sequence[str | None]) -> dict[str, Any]:
    """Return counts and overrides of the done, failed and missing jobs of a plan.

    statuses: of each planned job, or None without an outcome. An interrupted run counts as missing,
    since the same command runs it.
    """
    lists: dict[str, list[str]] = {"done": [], "failed": [], "missing": []}
    for overrides, status in zip(planned, statuses, strict=True):
        kind = "done" if status in FINISHED else "failed" if status == "failed" else "missing"
        lists[kind].append(" ".join(overrides))
    counts = {kind: len(texts) for kind, texts in lists.items()}
    return {"planned": len(planned), **counts, "jobs": lists}


def progress_of(first: Job, outcomes: Sequence[Job]) -> dict[str, Any]:
    """Return the `progress` of an ordinary sweep from its list of jobs."""
    # not by number, since another sweep of the same name may have replaced the plan
    status = {job_identity(job["overrides"]): job["status"] for job in outcomes}
    planned = first["jobs"] or []
    return progress(planned, [status.get(job_identity(overrides)) for overrides in planned])


def of_sweep(folder: Path) -> dict[str, Any]:
    """Return the `progress` of the sweep in a folder."""
    return progress_of(*read(folder))


def is_cosmetic(override: str) -> bool:
    """Return whether an override is cosmetic, so that no comparison depends on it."""
    key = _key(override)
    return key in COSMETIC_KEYS or key.startswith("logger.")


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+")

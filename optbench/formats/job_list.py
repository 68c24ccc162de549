"""A sweep's list of jobs, `jobs.jsonl`: what was planned, then a line for each job as it ends."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optbench.common.console import say
from optbench.common.files import read_text, replace_text
from optbench.formats.keys import COSMETIC_KEYS, NO_EFFECT_KEYS

FILE = "jobs.jsonl"
ENGINES = "engines.json"  # which engine takes the steps of each problem
DONE = ("completed", "diverged")
Job = dict[str, Any]
ended: list[Job] = []  # of this process's sweep
engines: dict[str, str] = {}  # likewise: its choice, by problem
unlisted: list[Job] = []  # of these, what could not be written


def plan(
    folder: Path, planned: int | None, retry: str, jobs: Sequence[Sequence[str]] | None = None
) -> None:
    """Start the list afresh: how many jobs, their overrides, and what failed before.

    planned, jobs: None where the sweeper decides as it goes (a tuned study has its own manifest).
    """
    first = {"planned": planned, "retry": retry, "jobs": jobs, "failed_before": failed(folder)}
    ended.clear()
    engines.clear()
    unlisted.clear()
    replace_text(folder / FILE, json.dumps(first) + "\n")


def record(folder: Path, job: Mapping[str, Any]) -> None:
    """Append one job's outcome: its number and overrides, status, run (a folder) and error."""
    ended.append(dict(job))
    with (folder / FILE).open("ab+") as file:
        file.seek(-1, os.SEEK_END)  # there is a plan
        torn = file.read(1) != b"\n"  # by a full disk
        file.write(b"\n" * torn + json.dumps(job).encode() + b"\n")


def read(folder: Path) -> tuple[Job, list[Job]]:
    """The plan and the outcomes; a line that a killed process left unfinished is none."""
    lines: list[Job] = []
    for number, line in enumerate(read_text(folder / FILE).split("\n")):
        try:
            job = json.loads(line)
            if _is_outcome(job) if number else _is_plan(job):
                lines.append(job)
        except (ValueError, TypeError, RecursionError):
            pass  # of a killed process, or damaged
        if not lines:
            raise ValueError(f"{folder / FILE} does not begin with what was planned")
    return lines[0], lines[1:]


def _is_plan(line: object) -> bool:
    return (
        isinstance(line, dict)
        and isinstance(line.get("planned", ""), int | None)
        and (line.get("jobs") is None or all(map(is_texts, line["jobs"])))
        and all(map(_is_outcome, line.get("failed_before", [])))
    )


def is_texts(value: object) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_outcome(job: object) -> bool:
    return (
        isinstance(job, dict)
        and isinstance(job.get("job"), int)
        and isinstance(job.get("status"), str)
        and is_texts(job.get("overrides"))
    )


def count(folder: Path) -> int | None:
    """How many jobs the sweep will have, where that is known."""
    with (folder / FILE).open(encoding="utf-8") as file:
        return json.loads(file.readline())["planned"]


def label(folder: Path, number: int, overrides: Sequence[str]) -> str:
    """Which run of how many, and what it is."""
    planned = count(folder)
    words = [text for text in overrides if not is_aside(text)]
    return f"[{number + 1}/{planned or '?'}] {' '.join(words)}"


def failed(folder: Path) -> list[Job]:
    """Return `failed_of` a sweep's list; no list, no memory: everything is tried."""
    found = read_or_say(folder)
    return [] if found is None else failed_of(*found)


def read_or_say(folder: Path) -> tuple[Job, list[Job]] | None:
    """Return the plan and the outcomes; None where there is no list, or (said) a damaged one."""
    try:
        return read(folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        say(f"warning: the list of the sweep's jobs cannot be read ({error})", error=True)
        return None


def failed_of(first: Job, outcomes: Sequence[Job]) -> list[Job]:
    """The jobs that failed when they were last tried, in this or an earlier call of the sweep."""
    latest: dict[tuple[str, ...], Job] = {}
    for job in [*first.get("failed_before", []), *outcomes]:
        latest[job_identity(job["overrides"])] = job
    return [job for job in latest.values() if job["status"] == "failed"]


def job_identity(overrides: Iterable[str]) -> tuple[str, ...]:
    """A job by its overrides, less those on which its failure cannot depend."""
    top = {text: _key(text).split(".")[0] for text in overrides}
    return tuple(sorted(text for text, key in top.items() if key not in NO_EFFECT_KEYS))


def progress(planned: Sequence[Sequence[str]], statuses: Sequence[str | None]) -> dict[str, Any]:
    """How many of the planned jobs are done, failed and missing, and which (their overrides).

    statuses: of each planned job; None where there is no outcome. An interrupted run is missing:
    the same command runs it.
    """
    lists: dict[str, list[str]] = {"done": [], "failed": [], "missing": []}
    for overrides, status in zip(planned, statuses, strict=True):
        kind = "done" if status in DONE else "failed" if status == "failed" else "missing"
        lists[kind].append(" ".join(overrides))
    counts = {kind: len(texts) for kind, texts in lists.items()}
    return {"planned": len(planned), **counts, "jobs": lists}


def progress_of(first: Job, outcomes: Sequence[Job]) -> dict[str, Any]:
    """`progress` of an ordinary sweep, from its list of jobs."""
    # not by their numbers: another sweep of the same name may have written its plan meanwhile
    status = {job_identity(job["overrides"]): job["status"] for job in outcomes}
    planned = first["jobs"] or []
    return progress(planned, [status.get(job_identity(overrides)) for overrides in planned])


def of_sweep(folder: Path) -> dict[str, Any]:
    """`progress_of` the list in a sweep's folder."""
    return progress_of(*read(folder))


def is_aside(override: str) -> bool:
    """Whether an override changes nothing that is compared."""
    key = _key(override)
    return key in COSMETIC_KEYS or key.startswith("logger.")


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+")

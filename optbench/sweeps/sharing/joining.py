"""Join the folders of one study from several machines: `optbench merge A B -o C`.

Runs are the same if their `run_id` is. The inputs are only read.
"""

import csv
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from optbench.analysis.table import find_runs, without_path
from optbench.formats import job_list
from optbench.formats.keys import NO_EFFECT_KEYS, Role, having
from optbench.formats.older_code import moment
from optbench.formats.record import FINISHED, RunRecord
from optbench.formats.run import check_whole, read_record, read_sealed

UNREPEATED = (*NO_EFFECT_KEYS, *having(Role.SWEEP))
TIMES = ("seconds", "total_seconds")  # columns in which two trainings of one run differ


class Found(NamedTuple):
    """A run of an input: the input, the run's folder, and its record."""

    source: Path
    folder: Path
    record: RunRecord

    @property
    def place(self) -> Path:
        """The folder of the run's group, relative to the input."""
        return self.folder.relative_to(self.source).parent


class Joined(NamedTuple):
    """The runs of all inputs, each once, and what the user has to know."""

    kept: list[Found]
    same: int  # runs that several inputs have
    conflicts: list[str]  # a line for each run that two inputs have with different curves
    problems: list[str]  # a line for each file that cannot be read


def join_runs(sources: Sequence[Path]) -> Joined:
    """Return the runs of some folders, each once.

    Of runs with one identity in one group, the first finished one is kept, else the newest.
    """
    by_identity: dict[tuple[Path, str], list[Found]] = {}
    problems: list[str] = []
    for source in sources:
        folders, broken = find_runs([source])
        problems += broken
        for folder in folders:
            try:
                record = read_record(folder / "run.json")
            except (OSError, ValueError) as error:
                problems.append(f"{folder / 'run.json'}: {without_path(error)}")
                continue
            found = Found(source, folder, record)
            by_identity.setdefault((found.place, record["run_id"]), []).append(found)
    kept, conflicts, same = [], [], 0
    for runs in by_identity.values():
        whole = []
        for one in runs:
            if one.record["status"] not in FINISHED:
                continue
            try:
                check_whole(one.folder, one.record)
                whole.append(one)
            except (OSError, ValueError) as error:
                problems.append(f"{one.folder}: {without_path(error)}")
        if whole:
            kept.append(whole[0])
            same += len(whole) - 1
            conflicts += [
                f"{whole[0].record['run_id']}: {whole[0].folder} (kept) and {other.folder} {why}"
                for other in whole[1:]
                if (why := difference(whole[0], other))
            ]
            continue
        left = [one for one in runs if one.record["status"] not in FINISHED]
        if left:  # the study goes on from the newest one
            ages = [(moment(one.record.get("finished")), str(one.folder)) for one in left]
            kept.append(left[ages.index(max(ages))])
    return Joined(kept, same, conflicts, sorted(problems))


def difference(one: Found, other: Found) -> str:
    """Return how two trainings of one run differ, times aside; "" if they agree."""
    for key in ("status", "diverged_at_step"):
        if one.record.get(key) != other.record.get(key):
            return f"differ in {key}: {one.record.get(key)} and {other.record.get(key)}"
    names = sorted({path.name for run in (one, other) for path in run.folder.glob("*.csv")})
    for name in names:
        first, second = (rows_of(run.folder / name) for run in (one, other))
        if first is None or second is None:
            return f"do not both have {name}"
        for number, (row, its) in enumerate(zip(first, second, strict=False), start=2):
            if row != its:
                return f"differ in line {number} of {name}"
        if len(first) != len(second):
            return f"have {len(first)} and {len(second)} rows in {name}"
    return ""


def rows_of(path: Path) -> list[dict[str, str]] | None:
    """Return the rows of a CSV file without times; None if it is not there."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {key: value for key, value in row.items() if key not in TIMES}
                for row in csv.DictReader(file)
            ]
    except OSError:
        return None


def copy_runs(runs: Iterable[Found], target: Path) -> None:
    """Copy runs into a folder, each to its place in its input. Raises OSError."""
    for run in runs:
        group = target / run.place
        folder, number = group / run.folder.name, 2
        while folder.exists():
            folder, number = group / f"{run.folder.name}-{number}", number + 1
        shutil.copytree(run.folder, folder, symlinks=True)


def sweeps_in(sources: Sequence[Path]) -> list[Path]:
    """Return the folders of sweeps in some inputs, each relative to its input."""
    found = {
        path.parent.relative_to(source)
        for source in sources
        for name in job_list.SWEEP_FILES
        for path in source.rglob(name)
    }
    return sorted(found)


def join_lists(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return one list of jobs from several folders of a sweep; [] without a list."""
    found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for folder in folders:
        with suppress(OSError, ValueError):
            found.append(job_list.read(folder))
    if not found:
        return []
    first: dict[str, Any] = {**found[0][0]}
    first.pop("call", None)
    for key in ("command", "words"):
        if any(other.get(key) != first.get(key) for other, _ in found):
            first.pop(key, None)  # no one command makes the joined study
    latest: dict[tuple[str, ...], dict[str, Any]] = {}
    for _, outcomes in found:
        for line in outcomes:
            identity = identity_of(line["overrides"])
            known = latest.get(identity, line)
            if known["status"] not in FINISHED or known is line:
                latest[identity] = line
    jobs: dict[tuple[str, ...], list[str]] = {}
    for other, _ in found:
        for overrides in other.get("jobs") or ():
            jobs.setdefault(identity_of(overrides), overrides)
    if jobs:  # an ordinary sweep, whose jobs are numbered anew
        first |= {"jobs": list(jobs.values()), "planned": len(jobs)}
        numbers = {key: number for number, key in enumerate(jobs)}
        lines = [line | {"job": numbers[key]} for key, line in latest.items() if key in numbers]
    else:
        planned = [other["planned"] or 0 for other, _ in found]
        first["planned"] = max([*planned, len(latest)])
        lines = list(latest.values())
        if len(found) > 1:
            lines = [line | {"job": number} for number, line in enumerate(lines)]
    first["failed_before"] = []
    return [first, *sorted(lines, key=lambda line: int(line["job"]))]


def identity_of(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return a job's overrides without those on which its run does not depend."""
    keys = {
        job_list.unquoted(text): text.lstrip("+").partition("=")[0].partition(".")[0]
        for text in overrides
    }
    return tuple(sorted(text for text, key in keys.items() if key not in UNREPEATED))


def join_options(folders: Sequence[Path], name: str) -> tuple[Mapping[str, Any] | None, str]:
    """Return the options in a file of several folders, and a line if they differ.

    The options of the first folder are kept; engines are joined.
    """
    found = []
    for folder in folders:
        with suppress(OSError, ValueError):
            found.append((folder, read_sealed(folder / name)))
    if not found:
        return None, ""
    if name == job_list.ENGINES_FILE:
        engines = [content.get("engines", {}) for _, content in found]
        joined = {key: value for each in reversed(engines) for key, value in each.items()}
        return {"engines": joined}, ""
    others = [folder for folder, content in found[1:] if content != found[0][1]]
    told = f"{name}: {found[0][0]} (kept) and {others[0]} differ" if others else ""
    return found[0][1], told

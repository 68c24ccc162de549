"""The runs of a report, each with its command, and the runs that are missing."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optbench.analysis.comparison import Comparison
from optbench.analysis.final_values import Timing
from optbench.analysis.series import Layout
from optbench.analysis.table import Record
from optbench.common.text import show
from optbench.formats import job_list
from optbench.formats.keys import PATHS
from optbench.formats.record import FINISHED, RunRecord
from optbench.formats.run import flatten
from optbench.report.repeat_command import command, with_engine

JobList = tuple[job_list.Job, list[job_list.Job]]


def run_list(
    records: Sequence[Record], folders: Sequence[Path], made: Comparison, conf: Path
) -> dict[str, Any]:
    """Return an entry per run with its command, and the configurations' differences.

    conf: as in `repeat_command.command`. The command of a run whose time is not comparable uses the
    engine that serves all runs (`Timing.again`).
    """
    flat = [
        {k: show(v) for k, v in flatten(record["config"]).items() if k not in PATHS}
        for _, record in records
    ]
    keys = list(dict.fromkeys(key for config in flat for key in config))
    shared = {
        key: flat[0][key]
        for key in keys
        if key in flat[0] and all(config.get(key) == flat[0][key] for config in flat)
    }
    finished = {record["run_id"] for _, record in records if record["status"] in FINISHED}
    used = set(map(str, made.table["run"].unique()))
    entries = []
    for (folder, record), config in zip(records, flat, strict=True):
        status = record["status"]
        if status not in FINISHED and record["run_id"] in finished:
            continue  # a later run replaced the failed job
        step = record.get("diverged_at_step")
        message = f"the loss was not finite at step {step}" if status == "diverged" else ""
        if status not in FINISHED:
            message = str(record.get("error") or "no message: the process ended")
        entries.append(
            {
                "run": relative(folder, folders),
                "name": str(record["name"]),
                "seed": record["seed"],
                "status": status,
                "phase": str(record["config"].get("phase") or ""),
                "message": message,
                "compared": str(folder) in used,
                "command": command_of(folder, record, made.timing, conf),
                "differs": {k: v for k, v in config.items() if k not in shared and "._" not in k},
            }
        )
    return {"shared": shared, "runs": entries}


def command_of(folder: Path, record: RunRecord, timing: Timing, conf: Path) -> str:
    """Return the command that repeats a run."""
    config, engine = record["config"], timing.again.get(str(folder))
    if engine is None or config.get("phase"):  # the tuned study's own command repeats its runs
        words = command(config, conf)
    else:
        words = with_engine(config, engine, conf)
    if not (beside := record.get("code_folder")):
        return words
    program = "python -m optbench"
    return words.replace(program, f"{program} --config-dir {shlex.quote(str(beside))}", 1)


def relative(folder: Path, folders: Sequence[Path]) -> str:
    """Return a run's folder relative to the given folder."""
    for base in folders:
        if folder != base and folder.is_relative_to(base):
            return str(folder.relative_to(base))
    return folder.name


def missing(
    plan: Layout, lists: Sequence[JobList], manifests: Sequence[dict[str, Any]]
) -> list[str]:
    """Return the missing runs: seeds that others in the panel have, and planned jobs."""
    found = []
    for where, part in plan.runs.groupby(plan.problems, sort=False):
        seeds = sorted(part["seed"].unique())
        for name, own in part.groupby("variant", sort=False):
            has = set(own["seed"])
            lacking = [str(seed) for seed in seeds if seed not in has]
            if lacking:
                head = f"{where}: " if where else ""
                found.append(f"{head}{name} lacks seed {', '.join(lacking)}")
    for first, outcomes in lists:
        try:
            lost = job_list.progress_of(first, outcomes)["jobs"]["missing"]
        except (ValueError, KeyError, TypeError):
            continue  # a list of an older version
        found += [f"planned and not run: {text}" for text in lost]
    for manifest in manifests:
        for done in manifest["phases"].values():
            found += [f"planned and not run: {text}" for text in done["jobs"]["missing"]]
    return found


def failed_jobs(lists: Sequence[JobList], records: Sequence[Record]) -> list[dict[str, str]]:
    """Return jobs that failed before they had a folder: overrides and message."""
    told = {str(record.get("error")) for _, record in records}
    return [
        {"command": " ".join(map(str, job["overrides"])), "message": str(job.get("error"))}
        for first, outcomes in lists
        for job in job_list.failed_of(first, outcomes)
        if str(job.get("error")) not in told
    ]


def machines(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the versions, devices and commits of the runs, most frequent first."""
    counts: dict[str, int] = {}
    for _, record in records:
        facts = {key: show(value) for key, value in (record.get("versions") or {}).items()}
        for key in ("device", "machine", "git_commit"):
            value = record.get(key)
            if isinstance(value, dict):
                facts |= {name: show(item) for name, item in value.items()}
            elif value:
                facts[key.replace("_", " ")] = show(value)
        text = json.dumps(facts)
        counts[text] = counts.get(text, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return [{"runs": count, "facts": json.loads(text)} for text, count in ranked]

"""The jobs of a study as Slurm sees them.

`squeue` tells the state, since not every site has `sacct`.
"""

import shutil
import subprocess
from contextlib import suppress
from typing import NamedTuple

SECONDS = 20  # to wait for an answer of Slurm's controller


class Task(NamedTuple):
    """A task of a job array in Slurm's words, such as 123_4 and RUNNING."""

    name: str
    state: str
    reason: str
    node: str


def tasks_of(job: str) -> list[Task] | None:
    """Return the queued and running tasks of a job; None if Slurm does not answer.

    The list is also empty for a job that Slurm has forgotten, a while after its last task ended.
    """
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--array", "--format=%i|%T|%r|%N", f"--jobs={job}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return [] if "Invalid job id" in done.stderr else None
    lines = [line.strip().split("|") for line in done.stdout.splitlines()]
    return [Task(*parts) for parts in lines if len(parts) == 4]


def cancel(job: str, *options: str) -> None:
    """Cancel a job with all its tasks; their workers write checkpoints first."""
    if shutil.which("scancel") is not None:
        with suppress(OSError, subprocess.TimeoutExpired):
            command = ["scancel", *options, job]
            subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)

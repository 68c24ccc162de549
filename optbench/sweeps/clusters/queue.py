"""What Slurm says about the jobs of a study: by `squeue`, since not every site has `sacct`."""

import shutil
import subprocess
from contextlib import suppress
from typing import NamedTuple

SECONDS = 20  # to wait for an answer of the controller


class Task(NamedTuple):
    """A task of a job array, as Slurm names it: 123_4, RUNNING, its reason and its node."""

    name: str
    state: str
    reason: str
    node: str


def tasks_of(job: str) -> list[Task] | None:
    """Return the tasks of a job that Slurm still knows as queued or running; None if it is silent.

    An array whose last task has ended is unknown to Slurm after a while: [].
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

"""Slurm: array jobs that work through a study, submitted by submitit."""

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from optbench.common.errors import UserError
from optbench.common.text import count
from optbench.formats.shared_study import SUBMISSIONS_FILE, WORK_FOLDER
from optbench.sweeps.clusters import queue
from optbench.sweeps.clusters.cluster import Cluster, command_of, working_folder
from optbench.sweeps.sharing.session import Session

LOG_FOLDER = "slurm"  # in `.work`
POLL_SECONDS = 0.5  # between two looks whether a task's worker has ended
GRACE_SECONDS = 90  # between Slurm's signal and the end of a task, to write checkpoints in
ENDED = (
    "all tasks of Slurm's array {job} have ended, and the study is not whole: the logs are {logs}. "
    "The same command submits them again, and goes on from the checkpoints"
)


class Work:
    """A task of the array, which runs `optbench work` in a process of its own.

    submitit calls `checkpoint` before the time is up or the task is preempted, and requeues it.
    """

    def __init__(self, command: Sequence[str], folder: str) -> None:
        self.command, self.folder = list(command), folder
        self.process: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"command": self.command, "folder": self.folder, "process": None}

    def __call__(self) -> int:
        """Work until the study is whole, and return the exit status."""
        command = [*self.command, "--parent", str(os.getpid())]
        # Slurm signals all processes of a task, and the signal is meant for this one alone
        blocked = {getattr(signal, "SIGUSR2", signal.SIGTERM)}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            self.process = subprocess.Popen(command, cwd=self.folder)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # `wait` would hold a lock that `checkpoint`, which interrupts this loop, needs as well
        while self.process.poll() is None:
            time.sleep(POLL_SECONDS)
        return self.process.returncode

    def checkpoint(self) -> Any:
        """Let the worker give its runs back, and return the task to submit again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            with suppress(ProcessLookupError, ChildProcessError):  # it has ended already
                os.kill(self.process.pid, signal.SIGTERM)
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(self)


class Slurm(Cluster):
    """An array job of workers."""

    def __init__(self, session: Session, folder: Path, options: Mapping[str, Any]) -> None:
        """options: those of `conf/hydra/launcher/slurm.yaml`."""
        super().__init__(folder)
        self.session, self.options, self.job = session, options, ""

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.folder / WORK_FOLDER / LOG_FOLDER

    def submit(self) -> str:
        """Submit the array."""
        executor = self._executor()
        options, tasks = self.options, int(self.options["jobs"])
        # with GPUs, `optbench work` starts one process for each by itself
        workers = [] if options["gpus"] else ["--workers", str(options["cpus"])]
        work = Work(command_of(self.session, self.folder, workers), working_folder())
        try:
            with executor.batch():
                jobs = [executor.submit(work) for _ in range(tasks)]
        except Exception as error:  # submitit raises errors of several kinds for what Slurm says
            raise UserError(f"Slurm does not take the jobs: {last_line(error)}") from error
        self.job = str(jobs[0].job_id).partition("_")[0]
        logs = str(self.logs / f"{self.job}_*_log.*")
        line = {"scheduler": "slurm", "job": self.job, "tasks": tasks, "logs": logs}
        with (self.folder / WORK_FOLDER / SUBMISSIONS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return f"submitted Slurm's array {self.job} of {count(tasks, 'task')}; logs: {logs}"

    def _executor(self) -> Any:
        submitit = import_submitit()
        check_slurm()
        options = self.options
        try:
            executor = submitit.SlurmExecutor(
                folder=self.logs, max_num_timeout=int(options["requeues"])
            )
            given = {key: options[key] for key in ("partition", "account", "constraint", "mem")}
            executor.update_parameters(
                job_name=f"optbench-{self.folder.name}",
                time=math.ceil(options["time"] / 60),  # Slurm counts minutes
                cpus_per_task=int(options["cpus"]),
                signal_delay_s=GRACE_SECONDS,
                array_parallelism=int(options["jobs"]),
                srun_args=[f"--cpus-per-task={options['cpus']}"],
                setup=list(options["setup"] or []),
                additional_parameters=dict(options["extra"] or {}),
                **({"gpus_per_node": int(options["gpus"])} if options["gpus"] else {}),
                **{key: value for key, value in given.items() if value is not None},
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(f"hydra/launcher=slurm: {last_line(error)}") from error
        return executor

    def alive(self) -> bool | None:
        """Return whether Slurm knows a task of the array."""
        tasks = queue.tasks_of(self.job)
        return None if tasks is None else bool(tasks)

    def cancel(self, *, waiting_only: bool = False) -> None:
        """Cancel the array, or its tasks that are still queued."""
        queue.cancel(self.job, *(["--state=PENDING"] if waiting_only else []))

    def ended_words(self) -> str:
        """Return where the logs are."""
        return ENDED.format(job=self.job, logs=self.logs / f"{self.job}_*_log.err")


def import_submitit() -> Any:
    """Return submitit. Raise `UserError` without it."""
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            "hydra/launcher=slurm needs submitit: pip install 'optbench[slurm]'"
        ) from error
    return submitit


def check_slurm() -> None:
    """Raise `UserError` if Slurm is missing, or its controller does not answer."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError(
            "hydra/launcher=slurm needs Slurm's sbatch and srun, which are not on this machine: "
            "start the command on a login node of the cluster. Without a scheduler, "
            "`optbench work` shares a study as well"
        )
    done = subprocess.run(
        ["squeue", "--noheader", "--me"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = next(iter(done.stderr.strip().splitlines()[-1:]), "")
        raise UserError(f"Slurm's controller does not answer: {said}")


def last_line(error: BaseException) -> str:
    """Return the last line of an error, where Slurm's tools say what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

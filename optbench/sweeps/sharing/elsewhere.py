"""The jobs of a shared study that other workers have, and their outcomes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from optbench.common.console import say
from optbench.config.build import results_of
from optbench.formats.record import FINISHED, UNFINISHED
from optbench.formats.run import read_record
from optbench.runs import locks
from optbench.runs.finished import Finished
from optbench.sweeps.batch import Job
from optbench.sweeps.sharing.session import Session
from optbench.sweeps.worker import Guard


class Answer(NamedTuple):
    """The outcome of a job that another worker had: a run's folder, or an error.

    Without both, the job is this worker's now.
    """

    job: Job
    done: Path | None = None
    error: str | None = None


class Elsewhere:
    """The jobs that other workers have."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.jobs: list[Job] = []

    def ask_for(self, job: Job) -> Answer | None:
        """Claim a job's run, and return the answer about the job.

        None: another worker has the run, and the job is kept in `jobs`.
        """
        run_id = run_id_of(job)
        if self.session.is_due():
            self.session.look()
        if answer := self._answer(job, run_id):
            return answer
        if self.session.claim(run_id, job.label) is None:
            self.jobs.append(job)
            return None
        # the last holder may have ended the run before this claim
        self.session.look()
        if answer := self._answer(job, run_id) or self._found(job, run_id):
            self.session.release(run_id)
            return answer
        if run_id in self.session.taken_over:
            say(f"{job.label}  taken over from a worker that is gone", error=True)
            fence(job, run_id)
        return Answer(job)

    def _found(self, job: Job, run_id: str) -> Answer | None:
        """Return a run in the job's group that another worker has just finished."""
        assert job.plan is not None
        done = in_group(job.plan.group, run_id)
        return None if done is None else Answer(job, done)

    def _answer(self, job: Job, run_id: str) -> Answer | None:
        """Return what other workers wrote about a job's run."""
        assert job.plan is not None
        line = self.session.outcomes.get(run_id)
        if line is None:
            return None
        if line["status"] == "failed":
            return Answer(job, error=str(line.get("error")))
        folder = job.plan.group / str(line.get("run"))
        try:
            record = read_record(folder / "run.json")
        except (OSError, ValueError):
            return None  # not yet visible on this machine, or damaged: there is no answer yet
        right = record["run_id"] == run_id and record["status"] in FINISHED
        return Answer(job, folder) if right else None

    def answers(self) -> Iterator[Answer]:
        """Yield the answers about kept jobs; these jobs are kept no longer."""
        self.session.look()
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            if answer := self._answer(job, run_id_of(job)):
                yield answer
            else:
                self.jobs.append(job)

    def take_free(self) -> list[Job]:
        """Return the kept jobs whose runs no living worker has, and keep them no longer."""
        if not self.session.trains:
            return []
        claimed = self.session.claimed()
        free: list[Job] = []
        kept: list[Job] = []
        for job in self.jobs:
            run_id = run_id_of(job)
            generation = claimed.get(run_id, 0)
            held = generation and not self.session.is_silent(run_id, generation)
            (kept if held else free).append(job)
        self.jobs = kept
        return free

    def guard(self, job: Job) -> Guard:
        """Return the guard of a job's run for the process that trains it."""
        claim = self.session.held[run_id_of(job)]
        return Guard(claim, self.session.every)

    def keeps(self, job: Job) -> bool:
        """Return whether this worker has not lost its claim on a job's run."""
        run_id = run_id_of(job)
        claim = self.session.held.get(run_id)
        if claim is not None and not claim.holds():
            self.session.lost.append(run_id)
            return False
        return True

    def release(self, job: Job) -> None:
        """Give back the claim on a job's run."""
        self.session.release(run_id_of(job))

    def leaves_out(self, job: Job) -> bool:
        """Return whether another worker notes a run that was done before.

        The worker that began the call notes such runs for all, and so does a worker that has copied
        the run.
        """
        return not self.session.begins and run_id_of(job) not in self.session.held


def run_id_of(job: Job) -> str:
    """Return the identity of a job's run, which is known once the job is planned."""
    assert job.plan is not None
    return str(job.plan.record["run_id"])


def in_group(group: Path, run_id: str) -> Path | None:
    """Return a finished run with this identity in a folder, which is listed anew."""
    found = Finished()
    try:
        names = [entry.name for entry in os.scandir(group) if run_id in entry.name.split("-")]
    except OSError:
        return None
    for name in names:
        found.note(group, run_id, group / name)
    return found(group, run_id)


def fence(job: Job, run_id: str) -> None:
    """Keep the earlier holder of a run away from the run's folder and lock.

    The earlier holder may come back. So the folder of an unfinished run gets another name: what
    that holder still writes fails, or goes into files that the resumed run has replaced.
    """
    assert job.plan is not None
    locks.discard(results_of(job.plan.config), run_id)
    seed = job.plan.record["seed"]
    for path in job.plan.group.glob(f"*-seed{seed}-{run_id}*/run.json"):
        try:
            record = read_record(path)
        except (OSError, ValueError):
            continue
        if record["run_id"] == run_id and record["status"] in UNFINISHED:
            rename(path.parent, run_id)


def rename(folder: Path, run_id: str) -> None:
    """Give a run's folder a name that no other folder has."""
    head, _, _ = folder.name.rpartition(run_id)
    while True:
        target = folder.with_name(f"{head}{run_id}-{uuid4().hex[:4]}")
        if not target.exists():
            folder.rename(target)
            return

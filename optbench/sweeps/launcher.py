"""The launcher of Hydra's plugin, which runs a sweep's jobs in workers."""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import sleep

from hydra.core.utils import JobReturn, JobRuntime, JobStatus, env_override, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from optbench.common.console import say
from optbench.common.errors import UNWRITABLE, reason
from optbench.common.text import count
from optbench.config import build
from optbench.config.resolve import resolve
from optbench.formats import job_list
from optbench.formats.record import FINISHED
from optbench.runner import rehearsal, run, writing
from optbench.runner.interrupts import interrupts
from optbench.sweeps import engine_choice, shared_dataset, worker
from optbench.sweeps.batch import Batch, Job, begin, is_wrong
from optbench.sweeps.concurrency import asked_threads, count_gpus, split_cores, worker_pool
from optbench.sweeps.engine_choice import EngineChoice
from optbench.sweeps.job import (
    RESUME_HINT,
    STOPPED_HINT,
    check_retry,
    ending,
    record_outcome,
    stops,
)
from optbench.sweeps.progress import Board, board
from optbench.sweeps.sharing.elsewhere import Answer, Elsewhere
from optbench.sweeps.sharing.session import Session, say_last_words, sessions
from optbench.sweeps.sweep_loader import hydra_config
from optbench.sweeps.worker_pool import Event, Task
from optbench.training import device


def launch(
    context: HydraContext,
    master: DictConfig,
    task: TaskFunction,
    overrides: Sequence[Sequence[str]],
    first: int,
    *,
    workers: int | None = None,
    time_limit: float | None = None,
) -> list[JobReturn]:
    """Run all jobs, and return their results for Hydra in the order of `overrides`.

    workers: the number of processes; on GPUs at most one for each. None: one for each core or job,
    or fewer if `num_threads` asks for more than one thread. time_limit: seconds for each run.
    Exits with 128 + signal after SIGINT or SIGTERM, and with 1 after a failure that stops the
    sweep; in both cases the running jobs end first.
    """
    setup_globals()
    left = [(index, list(words)) for index, words in enumerate(overrides)]
    planned = job_list.count(Path(master.hydra.sweep.dir))
    # all jobs of a tuned study get the same threads, whatever the size of its batches
    jobs = max(planned or 0, len(left))
    if gpus := count_gpus(master, overrides):  # one process fills a GPU
        workers = min(workers or gpus, gpus, jobs)
    asked = asked_threads(master, overrides)
    size, threads = split_cores(device.cores(), jobs, asked, workers)
    choice = EngineChoice(shared_dataset.load, dict(job_list.engines))
    batch = Batch(context, master, task, first, threads, left[::-1], choice, size=size)
    session = sessions.current
    batch.elsewhere = None if session is None else Elsewhere(session)
    with (
        interrupts() as received,
        board(batch.folder, quiet=bool(master.quiet)) as shown,
    ):

        def stop() -> bool:
            ending = session is not None and session.ending()
            return bool(received) or batch.stopping or ending

        if session is not None and not session.trains:
            follow(batch, shown, session, stop)
            events: Iterable[Event] = ()
        else:
            events = worker_pool(size, threads, gpus).run(
                lambda: next_task(batch, shown),
                time_limit=time_limit,
                stop=stop,
                waiting=lambda: bool(batch.elsewhere and (batch.elsewhere.jobs or batch.waiting)),
            )
        for event in events:
            handle_event(batch, shown, event)
    if session is not None and (status := say_last_words(session)) is not None:
        sys.exit(status)
    if received:
        print(RESUME_HINT, file=sys.stderr)
        sys.exit(128 + received[0])
    if batch.stopping:
        say(STOPPED_HINT, error=True)
        sys.exit(1)
    return [batch.results[index] for index in sorted(batch.results)]


def next_task(batch: Batch, shown: Board) -> Task | None:
    """Begin jobs until one needs a worker, and return its task; None if none does."""
    if not batch.checked:
        # jobs are taken from the end of `left`, so that wrong jobs fail before any training
        batch.left.sort(key=lambda job: is_wrong(batch, *job))
        batch.checked = True
        engine_choice.keep(batch.folder, batch.choice)
    again, batch.waiting = batch.waiting, []
    for number, job in enumerate(again):
        if not batch.stopping and is_ready(batch, job, shown):
            batch.waiting += again[number + 1 :]
            return as_task(batch, job, shown)
    while batch.left and not batch.stopping:
        job = begin(batch, batch.left.pop()[0])
        if is_ready(batch, job, shown):
            return as_task(batch, job, shown)
    return None if batch.elsewhere is None else from_elsewhere(batch, shown)


def from_elsewhere(batch: Batch, shown: Board) -> Task | None:
    """Return the task of a run that no other worker has, or None.

    Before that, the jobs that other workers have ended are recorded.
    """
    elsewhere: Elsewhere = batch.elsewhere
    if not elsewhere.session.is_due():
        return None
    for answer in elsewhere.answers():
        end_elsewhere(batch, answer, shown)
    free = elsewhere.take_free()
    for number, job in enumerate(free):
        if not batch.stopping and is_ready(batch, job, shown):
            batch.waiting += free[number + 1 :]
            return as_task(batch, job, shown)
    return None


def follow(batch: Batch, shown: Board, session: Session, stop: Callable[[], bool]) -> None:
    """Wait until other workers have ended all jobs."""
    while not stop():
        next_task(batch, shown)
        if not batch.left and not batch.elsewhere.jobs:
            return
        session.watch()
        sleep(session.poll)


def end_elsewhere(batch: Batch, answer: Answer, shown: Board) -> None:
    """Record the outcome of a job that another worker had."""
    assert answer.job.plan is not None
    done, error = None, answer.error
    if answer.done is not None:
        try:
            done = run.reuse_finished(answer.job.plan, answer.done)
        except Exception as raised:  # such as for a folder that has gone
            error = reason(raised)
    end(batch, answer.job, done, error, shown, elsewhere=True)


def as_task(batch: Batch, job: Job, shown: Board) -> Task:
    """Return the task with which a worker trains a job."""
    assert job.plan is not None
    if not batch.told and not batch.master.quiet and batch.first == 0:
        processes = f"{batch.size} process{'es' if batch.size > 1 else ''}"
        say(f"{processes} with {count(batch.threads, 'thread')} each")
    batch.told = True
    key = str(job.number)
    batch.running[key] = job
    shown.begin(job.label)
    hydra = job.config.hydra
    where = worker.Environment(
        folder=str(hydra.runtime.output_dir if hydra.job.chdir else Path.cwd()),
        environment=dict(hydra.job.env_set),
        modules=list(sys.path),
    )
    plan = replace(job.plan, dataset=None)  # type: ignore[arg-type]  # found by `place`
    place = shared_dataset.place(job.plan.dataset)
    guard = None if batch.elsewhere is None else batch.elsewhere.guard(job)
    return Task(key, worker.train, (plan, place, where, batch.threads, guard))


def is_ready(batch: Batch, job: Job, shown: Board) -> bool:
    """Plan a job, and return whether to train its run now.

    False: the job is wrong or done, or another job or worker does its run.
    """
    try:
        with hydra_config(job.config), env_override(dict(job.config.hydra.job.env_set)):
            config = job.resolved or resolve(job.config, job.overrides)
            check_retry(config, job.overrides, batch.folder)
            job.plan = run.plan(
                config, job.group, load=shared_dataset.load, find=batch.find,
                released=batch.find.mark(build.results_of(config)),
                chosen=batch.choice.of(config),
            )  # fmt: skip
        found = job.plan.done
        if found is None and rehearsal.kind_of(config) not in batch.built:
            rehearsal.build(job.plan)  # raises again the error that `is_wrong` found
        # in a shared study, only the worker with the claim copies a run from another sweep
        copies = batch.elsewhere is not None and not is_in_group(found, job)
        done = None if found is None or copies else run.reuse_finished(job.plan, found)
    except Exception as error:
        end(batch, job, None, reason(error), shown)
        return False
    if done is not None:
        end(batch, job, done, None, shown)
        return False
    running = [other.plan for other in batch.running.values()]
    run_id = job.plan.record["run_id"]
    if not config["force"] and any(plan and plan.record["run_id"] == run_id for plan in running):
        batch.waiting.append(job)
        return False
    return batch.elsewhere is None or is_mine(batch, job, shown)


def is_in_group(found: Path | None, job: Job) -> bool:
    """Return whether a finished run needs no copy into the folder of its job."""
    return found is None or found.parent.resolve() == job.group.resolve()


def is_mine(batch: Batch, job: Job, shown: Board) -> bool:
    """Claim a job's run in a shared study, and return whether to train it here.

    False: another worker has the run, or the run is done.
    """
    assert job.plan is not None
    try:
        answer = batch.elsewhere.ask_for(job)
    except OSError as error:
        results = build.results_of(job.plan.config)
        end(batch, job, None, UNWRITABLE.format(results, error.strerror), shown)
        return False
    if answer is not None and (answer.done or answer.error):
        end_elsewhere(batch, answer, shown)
        return False
    if answer is not None and job.plan.done is not None:
        try:
            copied = run.reuse_finished(job.plan, job.plan.done)
        except Exception as error:
            end(batch, job, None, reason(error), shown)
        else:
            end(batch, job, copied, None, shown)
        return False
    return answer is not None


def handle_event(batch: Batch, shown: Board, event: Event) -> None:
    """Handle an event of a worker's job."""
    job = batch.running[event.key]
    if event.kind == "printed":
        print(event.value, end="", file=sys.stderr, flush=True)
    elif event.kind == "sent":
        report: worker.Report = event.value
        if report.folder is not None:
            job.folder = report.folder
        elif report.total_steps is not None:
            shown.move(job.label, report.step, report.total_steps, report.loss)
    elif event.kind in ("done", "failed", "died"):
        del batch.running[event.key]
        done = event.kind == "done"
        result = event.value if done else worker.RunResult(None, event.value)
        lost = batch.elsewhere is not None and not batch.elsewhere.keeps(job)
        if result.outcome is None and job.folder and job.plan and not lost:
            with suppress(OSError, ValueError):
                writing.mark_abandoned(job.plan.config, job.folder, str(result.error))
        end(batch, job, result.outcome, result.error, shown, result.text)


def end(
    batch: Batch,
    job: Job,
    outcome: run.Outcome | None,
    error: str | None,
    shown: Board,
    text: str = "",
    *,
    elsewhere: bool = False,
) -> None:
    """Record a job's outcome, and call Hydra's callbacks.

    elsewhere: whether another worker of a shared study has ended the job, and recorded it.
    """
    shared = batch.elsewhere if job.plan is not None else None
    if shared is not None and not elsewhere and not shared.keeps(job):
        return  # another worker has taken the run over, and this process is about to end
    if job.plan is not None and outcome is not None and outcome.status in FINISHED:
        results = build.results_of(job.plan.config)
        batch.find.add(results, job.plan.record["run_id"], outcome.folder)
    quiet = bool(batch.master.quiet) or elsewhere
    # of a run that was done before, one worker makes a note for all (`leaves_out`)
    known = outcome is not None and outcome.known
    left_out = shared is not None and known and shared.leaves_out(job)
    record = record_outcome(
        batch.folder, job.label, job.number, job.overrides, outcome, error, quiet=quiet,
        run_id=None if job.plan is None else job.plan.record["run_id"],
        write=not elsewhere and not left_out,
    )  # fmt: skip
    if shared is not None:
        shared.release(job)
    batch.stopping |= stops(batch.master, record)
    words = "" if known and not quiet else None  # `record_outcome` has said how a known run ended
    if words is None and outcome is not None:
        words = ending(outcome)
    shown.end(job.label, record["status"], text, words)
    job.result.return_value = record
    job.result.status = JobStatus.COMPLETED
    job.result.task_name = JobRuntime.instance().get("name")
    batch.results[job.index] = job.result
    with hydra_config(job.config):
        batch.context.callbacks.on_job_end(config=job.config, job_return=job.result)

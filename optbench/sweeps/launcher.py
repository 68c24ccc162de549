"""The launcher of Hydra's plugin, which runs a sweep's jobs in workers."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobRuntime, JobStatus, env_override, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from optbench.common.console import say
from optbench.common.errors import UserError, reason
from optbench.common.text import count
from optbench.config import build, validate
from optbench.config.compose import texts_of
from optbench.config.resolve import resolve
from optbench.formats import job_list
from optbench.formats.keys import RunConfig
from optbench.runner import rehearsal, run, writing
from optbench.runner.interrupts import interrupts
from optbench.runs.finished import FINISHED_STATUSES
from optbench.sweeps import engine_choice, shared_dataset, worker
from optbench.sweeps.batch import Batch, Job, begin
from optbench.sweeps.concurrency import asked_threads, count_gpus, split_cores, worker_pool
from optbench.sweeps.engine_choice import EngineChoice
from optbench.sweeps.job import RESUME_HINT, STOPPED_HINT, check_retry, record_outcome, stops
from optbench.sweeps.progress import Board, board
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

    workers: the number of processes, at most one for each GPU. None: one for each core or job, or
    fewer if `num_threads` asks for more than one thread. time_limit: seconds for each run.
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
    with (
        interrupts() as received,
        board(batch.folder, quiet=bool(master.quiet)) as shown,
    ):
        events = worker_pool(size, threads, gpus).run(
            lambda: next_task(batch, shown),
            time_limit=time_limit,
            stop=lambda: bool(received) or batch.stopping,
        )
        for event in events:
            handle_event(batch, shown, event)
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
        # `left` is taken from its end, so wrong jobs come first, and fail before any training
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
    return None


def is_wrong(batch: Batch, index: int, overrides: list[str]) -> bool:
    """Compose a job's configuration, and return whether it is wrong."""
    loader: Any = batch.context.config_loader  # a SweepLoader
    config = loader.take_config(batch.master, overrides)
    batch.composed[index] = config
    try:
        with hydra_config(config):
            resolved = resolve(config, texts_of(config.hydra.overrides.task))
            validate.check(resolved)
            rehearse(batch, resolved, str(config.hydra.sweep.subdir))
            batch.choice.look_at(resolved)
    except Exception:  # the beginning of the job reports the error
        return True
    return False


def rehearse(batch: Batch, config: RunConfig, subfolder: str) -> None:
    """Load and build the parts of a job, once for all jobs of the same kind.

    Raises the errors of these parts. A dataset that could not be loaded is not tried again.
    """
    kind = rehearsal.kind_of(config)
    if kind in batch.built:
        return
    parts = build.dataset_parts(config)
    if parts in batch.lacking:
        raise UserError("its dataset could not be loaded")  # the job itself reports the reason
    batch.lacking.add(parts)
    shared_dataset.load(config)
    batch.lacking.remove(parts)
    found = batch.find.mark(build.results_of(config))
    group = batch.folder / subfolder
    planned = run.plan(config, group, load=shared_dataset.load, find=batch.find, released=found)
    if planned.done is None:
        rehearsal.build(planned)
    batch.built.add(kind)


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
    plan = replace(job.plan, dataset=None)  # type: ignore[arg-type]  # the worker has it
    place = shared_dataset.place(job.plan.dataset)
    return Task(key, worker.train, (plan, place, where, batch.threads))


def is_ready(batch: Batch, job: Job, shown: Board) -> bool:
    """Plan a job; return False if it is wrong or done, or if another job does its run."""
    try:
        with hydra_config(job.config), env_override(dict(job.config.hydra.job.env_set)):
            config = resolve(job.config, job.overrides)
            check_retry(config, job.overrides, batch.folder)
            job.plan = run.plan(
                config, job.group, load=shared_dataset.load, find=batch.find,
                released=batch.find.mark(build.results_of(config)),
                chosen=batch.choice.of(config),
            )  # fmt: skip
        found = job.plan.done
        if found is None and rehearsal.kind_of(config) not in batch.built:
            rehearsal.build(job.plan)  # raises again the error that `is_wrong` found
        done = None if found is None else run.reuse_finished(job.plan, found)
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
    return True


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
        if result.outcome is None and job.folder is not None and job.plan is not None:
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
) -> None:
    """Record a job's outcome, and call Hydra's callbacks."""
    if job.plan is not None and outcome is not None and outcome.status in FINISHED_STATUSES:
        results = build.results_of(job.plan.config)
        batch.find.add(results, job.plan.record["run_id"], outcome.folder)
    quiet = bool(batch.master.quiet)
    record = record_outcome(
        batch.folder, job.label, job.number, job.overrides, outcome, error, quiet=quiet
    )
    batch.stopping |= stops(batch.master, record)
    shown.end(job.label, record["status"], text)
    job.result.return_value = record
    job.result.status = JobStatus.COMPLETED
    job.result.task_name = JobRuntime.instance().get("name")
    batch.results[job.index] = job.result
    with hydra_config(job.config):
        batch.context.callbacks.on_job_end(config=job.config, job_return=job.result)

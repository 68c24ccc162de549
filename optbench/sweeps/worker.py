"""The training of a sweep's run in a worker process."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import torch

from optbench.common.errors import reason
from optbench.config import build
from optbench.runner import run
from optbench.runner.progress import describe
from optbench.runs.claims import Claim
from optbench.sweeps import shared_dataset
from optbench.training import device
from optbench.training.steps import Update

REPORT_SECONDS = 0.2  # between two reports of a run's progress


class Report(NamedTuple):
    """A report of a run's progress, or of its folder once it exists."""

    folder: Path | None = None
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None


class RunResult(NamedTuple):
    """The outcome or error of a run. text: the last evaluation's numbers."""

    outcome: run.Outcome | None
    error: str | None = None
    text: str = ""


class Guard(NamedTuple):
    """A run's claim, which a process that was stopped for a while may have lost."""

    claim: Claim
    every: float  # seconds between two checks of the claim

    def around(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """Return `stop` with a check of the claim, now and then and before a last write.

        The check raises `ClaimLost` if another worker has taken the run over.
        """
        looked = monotonic()

        def check_and_stop() -> bool:
            nonlocal looked
            told = stop()
            if told or monotonic() - looked >= self.every:
                self.claim.check()
                looked = monotonic()
            return told

        return check_and_stop


class Environment(NamedTuple):
    """The parent's folder, variables and module path, which a run needs."""

    folder: str
    environment: Mapping[str, str]
    modules: list[str]  # sys.path, since the user's classes may be anywhere


def set_up(number: int, threads: int, gpus: int) -> None:
    """Set a worker's threads, and its GPU if there are several.

    number: the worker's, which picks the GPU of `device=cuda`.
    """
    if gpus > 1:
        torch.cuda.set_device(number % gpus)
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def train(
    planned: run.Plan,
    place: shared_dataset.Place | None,
    where: Environment,
    threads: int,
    guard: Guard | None = None,
    *,
    send: Callable[[Any], None],
    stop: Callable[[], bool],
) -> RunResult:
    """Train a planned run, and return how it ended.

    place: the address of the plan's shared dataset; None: load the dataset here.
    guard: the claim on the run, in a study that several workers share.
    """
    reporter = ProgressReporter(send)
    stop = stop if guard is None else guard.around(stop)
    with environment_of(where):
        torch.set_num_threads(threads)  # an earlier run may have asked for fewer
        try:
            config = planned.config
            dataset = build.load_dataset(config) if place is None else shared_dataset.find(place)
            device.choose(
                str(planned.device),
                num_threads=config["num_threads"],
                deterministic=config["deterministic"],
            )
            whole = replace(planned, dataset=dataset)
            outcome = run.complete(whole, reporter.show, stop, reporter.opened)
        except Exception as error:
            return RunResult(None, reason(error))
    return RunResult(outcome, None, reporter.text)


class ProgressReporter:
    """The reporter of a run's folder and progress to the parent process."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self.send, self.text, self.last = send, "", 0.0

    def opened(self, folder: Path) -> None:
        """Report the run's folder."""
        self.send(Report(folder))

    def show(self, update: Update) -> None:
        """Report an update, but not more often than `REPORT_SECONDS`."""
        if update.epoch is not None:
            self.text = describe(update)
        if monotonic() - self.last > REPORT_SECONDS:
            self.send(Report(None, update.step, update.total_steps, update.loss))
            self.last = monotonic()


@contextmanager
def environment_of(where: Environment) -> Iterator[None]:
    """Use the parent's folder, variables and module path for one run.

    Only the variables are restored, since the next run sets the other two.
    """
    before = os.environ.copy()
    os.chdir(where.folder)
    sys.path[:] = where.modules
    os.environ.update(where.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

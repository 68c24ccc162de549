"""A unit of a sweep's work, as a worker process does it: one run, or several trained together."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import torch

from optbench.common.console import describe
from optbench.common.errors import reason
from optbench.config import build
from optbench.runner import run, run_cohort
from optbench.sweeps import shared_dataset
from optbench.training import device
from optbench.training.loop import Update

EVERY = 0.2  # seconds between two reports of a run's progress


class Report(NamedTuple):
    """How far a run is; place: which of the unit. folder: where it is written."""

    place: int
    folder: Path | None = None
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None


class Ending(NamedTuple):
    """What became of a run: an outcome, or an error. text: the figures of its last evaluation."""

    outcome: run.Outcome | None
    error: str | None = None
    text: str = ""


class Surroundings(NamedTuple):
    """What the parent process has that a worker started without."""

    folder: str
    environment: Mapping[str, str]
    modules: list[str]  # sys.path: a class of the user's own may be anywhere


def set_up(threads: int, onednn: bool) -> None:
    """The first thing in a worker: never more threads than its share of the cores.

    onednn: the parent's `device.onednn_pays`.
    """
    device.believe(onednn)
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def train(
    plans: list[run.Plan],
    data: list[shared_dataset.Place | None],
    where: Surroundings,
    threads: int,
    *,
    send: Callable[[Any], None],
    stop: Callable[[], bool],
) -> list[Ending]:
    """Train the planned runs of one unit; one that fails leaves the others alone.

    data: where the datasets lie that the plans came without; None: load it here.
    """
    with surrounded(where):
        if len(plans) > 1:
            return _train_together(plans, data, threads, send, stop)
        endings = []
        for index, (planned, place) in enumerate(zip(plans, data, strict=True)):
            torch.set_num_threads(threads)  # a run before may have asked for fewer
            endings.append(_train(index, planned, place, send, stop))
    return endings


def _train_together(
    plans: list[run.Plan],
    data: list[shared_dataset.Place | None],
    threads: int,
    send: Callable[[Any], None],
    stop: Callable[[], bool],
) -> list[Ending]:
    """Runs of one group: the first one's dataset and threads are those of all."""
    torch.set_num_threads(threads)
    config = plans[0].config
    views = [View(index, send) for index in range(len(plans))]
    try:
        dataset = build.load_dataset(config) if data[0] is None else shared_dataset.find(data[0])
        _choose(plans[0])
        outcomes = run_cohort.complete_together(
            [replace(planned, dataset=dataset) for planned in plans],
            [view.show for view in views],
            stop,
            lambda place, folder: views[place].opened(folder),
        )
    except Exception as error:
        return [Ending(None, reason(error))] * len(plans)
    return [
        Ending(None, reason(outcome))
        if isinstance(outcome, Exception)
        else Ending(outcome, None, view.text)
        for outcome, view in zip(outcomes, views, strict=True)
    ]


def _train(
    index: int,
    planned: run.Plan,
    place: shared_dataset.Place | None,
    send: Callable[[Any], None],
    stop: Callable[[], bool],
) -> Ending:
    view = View(index, send)
    try:
        config = planned.config
        dataset = build.load_dataset(config) if place is None else shared_dataset.find(place)
        _choose(planned)
        whole = replace(planned, dataset=dataset)
        outcome = run.complete(whole, view.show, stop, view.opened)
    except Exception as error:
        return Ending(None, reason(error))
    return Ending(outcome, None, view.text)


class View:
    """Tells the parent of a run's folder, and now and then how far it is."""

    def __init__(self, index: int, send: Callable[[Any], None]) -> None:
        self.index, self.send, self.text, self.last = index, send, "", 0.0

    def opened(self, folder: Path) -> None:
        """There is a folder."""
        self.send(Report(self.index, folder))

    def show(self, update: Update) -> None:
        """Called with each update."""
        if update.epoch is not None:
            self.text = describe(update)
        if monotonic() - self.last > EVERY:
            loss = update.loss
            self.send(Report(self.index, None, update.step, update.total_steps, loss))
            self.last = monotonic()


def _choose(planned: run.Plan) -> None:
    device.choose(
        str(planned.device),
        num_threads=planned.config["num_threads"],
        deterministic=planned.config["deterministic"],
    )


@contextmanager
def surrounded(where: Surroundings) -> Iterator[None]:
    """The parent's folder, environment and module path, for the time of one unit."""
    before = os.environ.copy()
    os.chdir(where.folder)
    sys.path[:] = where.modules
    os.environ.update(where.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

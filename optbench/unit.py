"""A unit of a sweep's work, as a worker process does it: one run, or several trained together."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import torch

from optbench import device, experiment, shared
from optbench.errors import UserError
from optbench.progress import describe
from optbench.training import Update

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

    outcome: experiment.Outcome | None
    error: str | None = None
    text: str = ""


class Surroundings(NamedTuple):
    """What the parent process has that a worker started without."""

    folder: str
    environment: Mapping[str, str]
    modules: list[str]  # sys.path: a class of the user's own may be anywhere


def set_up(threads: int) -> None:
    """The first thing in a worker: never more threads than its share of the cores."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def train(
    plans: list[experiment.Plan],
    data: list[shared.Place | None],
    where: Surroundings,
    threads: int,
    *,
    send: Callable[[Any], None],
    stop: Callable[[], bool],
) -> list[Ending]:
    """Train the planned runs of one unit; one that fails leaves the others alone.

    data: where the datasets lie that the plans came without; None: load it here.
    """
    endings = []
    with surrounded(where):
        for index, (planned, place) in enumerate(zip(plans, data, strict=True)):
            torch.set_num_threads(threads)  # a run before may have asked for fewer
            endings.append(_train(index, planned, place, send, stop))
    return endings


def _train(
    index: int,
    planned: experiment.Plan,
    place: shared.Place | None,
    send: Callable[[Any], None],
    stop: Callable[[], bool],
) -> Ending:
    text, last = "", 0.0

    def opened(folder: Path) -> None:
        send(Report(index, folder))

    def show(update: Update) -> None:
        nonlocal text, last
        if update.epoch is not None:
            text = describe(update)
        if monotonic() - last > EVERY:
            send(Report(index, None, update.step, update.total_steps, update.loss))
            last = monotonic()

    config = planned.config
    try:
        dataset = experiment.load_dataset(config) if place is None else shared.find(place)
        device.choose(
            str(planned.device),
            num_threads=config["num_threads"],
            deterministic=config["deterministic"],
        )
        outcome = experiment.complete(replace(planned, dataset=dataset), show, stop, opened)
    except UserError as error:
        return Ending(None, str(error))
    except Exception as error:
        traceback.print_exc()
        return Ending(None, f"{type(error).__name__}: {error}")
    return Ending(outcome, None, text)


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

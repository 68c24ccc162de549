"""What a sweep or a study will cost, from short timed trainings: `--dry-run`."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import NamedTuple

import torch

from optbench.common.console import say
from optbench.common.text import count
from optbench.config.build import results_of
from optbench.datasets import prepare
from optbench.formats.keys import RunConfig
from optbench.runner import planning, rehearsal
from optbench.runs.finished import Finished
from optbench.training import device
from optbench.training.loop import Training

PROBE_SECONDS = 1.0  # of training, for each kind of run
MIN_PROBE_STEPS = 3  # so that the first steps, which make the optimizer's state, may be left out
HOUR = 3600.0


class Share(NamedTuple):
    """Runs of one configuration: how many, and the part of its steps that each takes."""

    config: RunConfig
    runs: int
    part: float = 1.0  # below 1 for trials that are stopped early


class Speed(NamedTuple):
    """The times of a kind of run, in seconds, and its size."""

    start: float  # to build and to compile
    step: float
    evaluation: float
    steps: int
    evaluations: int
    epochs: float
    budget: float = math.inf  # seconds of training, after which a run ends

    def part_of(self, part: float) -> float:
        """Return the part of the steps that fits the budget, at most `part`."""
        return min(part, self.budget / (self.step * self.steps) if self.step else part)

    def seconds(self, part: float) -> float:
        """Return the time of a run that takes a part of the steps, within its budget."""
        part = self.part_of(part)
        evaluations = 1 + (self.evaluations - 1) * part
        return self.start + self.step * self.steps * part + self.evaluation * evaluations


def probe(planned: planning.Plan) -> Speed:
    """Train for about a second, and return the times. Nothing is written."""
    begun = perf_counter()
    training = Training(**planning.arguments(planned))
    start = perf_counter() - begun
    deadline = begun + start + PROBE_SECONDS
    asked = itertools.count(1)  # after each step; `training.step` waits for the end of a chunk
    updates = training.updates(lambda: next(asked) >= MIN_PROBE_STEPS and perf_counter() > deadline)
    begun = perf_counter()
    next(updates)
    evaluation = perf_counter() - begun
    deadline = perf_counter() + PROBE_SECONDS
    first: tuple[int, float] | None = None
    for _ in updates:
        first = first or (training.step, training.seconds)
    steps, seconds = training.step, training.seconds
    if first is not None and steps > first[0]:  # without the steps that warm up
        steps, seconds = steps - first[0], seconds - first[1]
    total, each = training.total_steps, training.steps_per_epoch
    evaluations = 1 + -(-total // (each * training.eval_every))
    step = seconds / max(1, steps)
    budget = training.applied.endings.budget_seconds
    return Speed(start, step, evaluation, total, evaluations, total / each, budget)


def tell(
    shares: Iterable[Share],
    load: Callable[[RunConfig], prepare.Dataset] | None = None,
) -> None:
    """Print what some runs cost. Runs that differ in numbers only are timed once.

    load: from a configuration to its dataset. Raises `UserError` for a mistake in a configuration.
    """
    finished, done = Finished(), 0
    known: dict[str, Speed] = {}
    left: list[tuple[Share, Speed]] = []
    for share in shares:
        config = share.config
        planned = planning.plan(config, results_of(config), load=load, find=finished)
        if share.runs == 1 and planned.done is not None and not config["force"]:
            done += 1
            continue
        kind = rehearsal.kind_of(config)
        if kind not in known:
            known[kind] = probe(planned)
        left.append((share, known[kind]))
    say(*lines_of(left, done))


def processes_for(shares: Sequence[Share]) -> int:
    """Return how many of these runs this machine trains at the same time."""
    runs = sum(share.runs for share in shares)
    if any_gpu(shares):
        return max(1, min(torch.cuda.device_count(), runs))
    threads = max([1, *(share.config["num_threads"] or 1 for share in shares)])
    return max(1, min(device.cores() // threads, runs))


def lines_of(pairs: Sequence[tuple[Share, Speed]], done: int) -> Iterator[str]:
    """Yield the cost in words. done: how many runs exist, and are not in the pairs."""
    shares = [share for share, _ in pairs]
    runs = sum(share.runs for share in shares)
    epochs = sum(share.runs * speed.part_of(share.part) * speed.epochs for share, speed in pairs)
    more = f"; {done:,} {'is' if done == 1 else 'are'} done already" if done else ""
    plural = "s" * (f"{epochs:,.0f}" != "1")
    yield f"dry run: {runs:,} run{'s' * (runs != 1)}, {epochs:,.0f} epoch{plural} in all{more}"
    if not runs:
        return
    groups: dict[str, list[tuple[Share, Speed]]] = {}
    for share, speed in pairs:
        config = share.config
        where = f"{config['model']['name']} on {config['dataset']['name']}"
        groups.setdefault(f"{config['optimizer']['name']}, {where}", []).append((share, speed))
    hours = 0.0
    for name, members in groups.items():
        number = sum(share.runs for share, _ in members)
        seconds = sum(share.runs * speed.seconds(share.part) for share, speed in members)
        hours += seconds / HOUR
        each = " each" if number > 1 else ""
        yield f"  {name}: {count(number, 'run')} of {seconds / number:.3g} s{each}"
    workers = processes_for(shares)
    kind = "GPU" if any_gpu(shares) else "core"
    wall = duration(hours * HOUR / workers)
    yield f"about {hours:.3g} {kind} hours; with {count(workers, 'process', 'processes')} {wall}"
    yield "timed by probes of a second on this machine; nothing was written"


def any_gpu(shares: Iterable[Share]) -> bool:
    """Return whether a run would train on a GPU."""
    return any(device.choose(str(share.config["device"])).type == "cuda" for share in shares)


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"

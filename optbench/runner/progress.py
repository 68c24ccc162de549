"""The progress of a run: a bar on a terminal, else a line for each evaluation."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from optbench.common.console import say
from optbench.common.metrics import MAIN_METRICS
from optbench.training.steps import Update

Show = Callable[[Update], None]  # called with each update of a run


@contextmanager
def progress(label: str, *, quiet: bool) -> Iterator[Show]:
    """Show the updates of one run, which `label` names."""
    if quiet:
        yield lambda update: None
    elif sys.stdout.isatty():
        with _bar(label) as show:
            yield show
    else:
        yield lambda update: _line(label, update)


def _line(label: str, update: Update) -> None:
    if update.epoch is not None:
        say(f"{label}  {describe(update)}")


def describe(update: Update) -> str:
    """Return the numbers of an evaluation in one line."""
    assert update.epoch is not None
    row = update.epoch
    parts = [f"epoch {row['epoch']:g}", f"train_loss {row['train_loss']:.4g}"]
    found = {name: row.get(f"test_{name}") for name in MAIN_METRICS}
    if shown := next((name for name, value in found.items() if value is not None), None):
        parts.append(f"test_{shown} {found[shown]:.4f}")
    return "  ".join([*parts, f"{row['seconds']:.1f} s"])


@contextmanager
def _bar(label: str) -> Iterator[Show]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    # a sweep's long label would leave no room for the bar
    number, _, rest = label.partition(" ")
    if rest:
        say(label)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps  {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(number, total=None, loss="")

        def show(update: Update) -> None:
            bar.update(task, completed=update.step, total=update.total_steps)
            if update.loss is not None:
                bar.update(task, loss=f"loss {update.loss:.4g}")

        yield show

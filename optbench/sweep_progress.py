"""What a person sees while several runs train at once: a bar for each on a terminal, else lines."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from optbench.progress import say


class Board(Protocol):
    """Told of each job of a sweep by its label, such as "[3/21] optimizer=sgd"."""

    def begin(self, label: str) -> None:
        """It has been given to a worker."""

    def move(self, label: str, step: int, total: int | None, loss: float | None) -> None:
        """It has come so far."""

    def end(self, label: str, status: str, text: str) -> None:
        """It is over. text: the figures of its last evaluation; none: it was known before."""


@contextmanager
def board(planned: int | None, *, quiet: bool) -> Iterator[Board]:
    """The board of one sweep; planned: how many jobs it has, where that is known."""
    if not quiet and sys.stdout.isatty():
        with _bars(planned) as bars:
            yield bars
    else:
        yield Lines(quiet)


class Lines:
    """A line for each run that is over; only for a diverged one where quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def begin(self, label: str) -> None:
        """Silent."""

    def move(self, label: str, step: int, total: int | None, loss: float | None) -> None:
        """Silent."""

    def end(self, label: str, status: str, text: str) -> None:
        """One line; failures have said why on standard error."""
        if status == "diverged" or (text and not self.quiet and status != "failed"):
            say("  ".join(part for part in (label, "" if self.quiet else text, status) if part))


class Bars:
    """The whole sweep's bar, with counts, and one for each job that runs."""

    def __init__(self, progress: Any, planned: int | None) -> None:
        self.progress = progress
        self.counts: Counter[str] = Counter()
        self.tasks: dict[str, Any] = {}
        self.whole = progress.add_task("sweep", total=planned, note="")

    def begin(self, label: str) -> None:
        """A bar of its own."""
        self.tasks[label] = self.progress.add_task(label, total=None, note="")

    def move(self, label: str, step: int, total: int | None, loss: float | None) -> None:
        """Further on."""
        note = "" if loss is None else f"loss {loss:.4g}"
        self.progress.update(self.tasks[label], completed=step, total=total, note=note)

    def end(self, label: str, status: str, text: str) -> None:
        """Its bar goes, the counts stay."""
        if label in self.tasks:
            self.progress.remove_task(self.tasks.pop(label))
        self.counts[status] += 1
        bad = [f"{n} {key}" for key, n in sorted(self.counts.items()) if key != "completed"]
        self.progress.update(self.whole, advance=1, note=", ".join(bad))
        if status == "diverged":
            say(f"{label}  diverged")


@contextmanager
def _bars(planned: int | None) -> Iterator[Bars]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, expand=True) as progress:
        yield Bars(progress, planned)

"""What a person sees of a whole sweep while it runs: bars on a terminal, now and then a line in a
log, nothing where quiet."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from optbench.common.console import say
from optbench.formats import job_list

EVERY = 30.0  # seconds between two lines on the whole sweep, in a log
EACH = 60  # runs: in a sweep of more, a log names only those that took long or went wrong
LONG = 1.0  # seconds between two such lines
MOST_BARS = 8  # of single runs: a machine may have hundreds of cores
SOON = 3.0  # seconds, before which nobody can say how long it will take


@contextmanager
def board(sweep: Path, *, quiet: bool) -> Iterator["Board"]:
    """The board of the sweep in this folder, going on from its list of jobs."""
    tally = Tally(sweep)
    if quiet:
        yield Board(tally)
    elif sys.stdout.isatty():
        with _bars(tally) as bars:
            yield bars
    else:
        yield Lines(tally)


class Tally:
    """How many jobs of a sweep are over, running, diverged and failed, and how long it may take.

    A tuned study launches its jobs in several batches: those of the batches before count as over.
    """

    def __init__(self, sweep: Path) -> None:
        first, outcomes = job_list.read(sweep)
        self.planned: int | None = first["planned"]
        self.counts = Counter(str(job["status"]) for job in outcomes)
        self.running: dict[str, float] = {}  # the share that is done of each
        self.trained = 0  # since then, and not known before
        self.since = self.told = monotonic()

    def begin(self, label: str) -> None:
        """It runs."""
        self.running[label] = 0.0

    def move(self, label: str, step: int, total: int | None) -> None:
        """It has come so far."""
        self.running[label] = step / total if total else 0.0

    def end(self, label: str, status: str) -> None:
        """It is over, or goes on in another call."""
        share = self.running.pop(label, None)
        if status != "interrupted":
            self.trained += share is not None
            self.counts[status] += 1

    @property
    def over(self) -> int:
        """Jobs that ended, in whatever way."""
        return self.counts.total()

    @property
    def done(self) -> float:
        """The same with the shares of those that run."""
        return self.over + sum(self.running.values())

    def seconds_left(self) -> float | None:
        """By the pace so far; None where it is too early, or nobody knows how many will come."""
        elapsed, trained = monotonic() - self.since, self.trained + sum(self.running.values())
        if self.planned is None or elapsed < SOON or trained <= 0:
            return None
        return max(0.0, self.planned - self.done) * elapsed / trained

    def note(self) -> str:
        """What runs and what went wrong, in a few words."""
        words = [f"{len(self.running)} running"] if self.running else []
        words += [f"{self.counts[key]} {key}" for key in ("diverged", "failed") if self.counts[key]]
        left = self.seconds_left()
        return ", ".join([*words, *([f"about {duration(left)} left"] if left else [])])

    def tell(self, last: bool = False) -> None:
        """Say it in a line, where the last time is long enough ago, and at the end."""
        if last or monotonic() - self.told >= EVERY:
            self.told = monotonic()
            parts = f"{self.over} of {self.planned or '?'} runs done", self.note()
            say(", ".join(part for part in parts if part))


def duration(seconds: float) -> str:
    """As in "40 s", "12 min" or "3 h 5 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Board:
    """Told of each job of a sweep by its label, such as "[3/21] optimizer=sgd".

    This one counts, and says nothing; failures are said by those who record them.
    """

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    def begin(self, label: str) -> None:
        """It has been given to a worker."""
        self.tally.begin(label)

    def move(self, label: str, step: int, total: int | None, loss: float | None) -> None:
        """It has come so far."""
        self.tally.move(label, step, total)

    def end(self, label: str, status: str, text: str) -> None:
        """It is over. text: the figures of its last evaluation; none: it was known before."""
        self.tally.end(label, status)


class Lines(Board):
    """For a log: a line for a run that is over, and now and then one on the whole sweep."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(tally)
        self.said = monotonic()

    def move(self, label: str, step: int, total: int | None, loss: float | None) -> None:
        """Only counted, until it is time for a line."""
        super().move(label, step, total, loss)
        self.tally.tell()

    def end(self, label: str, status: str, text: str) -> None:
        """One line; failures have said why on standard error."""
        super().end(label, status, text)
        now = monotonic()
        due = (self.tally.planned or 0) <= EACH or now - self.said >= LONG
        if status == "diverged" or (text and status != "failed" and due):
            say("  ".join(part for part in (label, text, status) if part))
            self.said = now
        self.tally.tell(last=self.tally.over == self.tally.planned)


class Bars(Board):
    """The whole sweep's bar, with counts, and one for each of the first jobs that run."""

    def __init__(self, progress: Any, tally: Tally) -> None:
        super().__init__(tally)
        self.progress = progress
        self.tasks: dict[str, Any] = {}
        self.whole = progress.add_task("sweep", total=tally.planned, count="", note="")
        self._count()

    def begin(self, label: str) -> None:
        """A bar of its own, where there is room."""
        super().begin(label)
        if len(self.tasks) < MOST_BARS:
            self.tasks[label] = self.progress.add_task(label, total=None, count="", note="")
        self._count()

    def move(self, label: str, step: int, total: int | None, loss: float | None) -> None:
        """Further on."""
        super().move(label, step, total, loss)
        if label in self.tasks:
            note = "" if loss is None else f"loss {loss:.4g}"
            count = f"{step}/{total or '?'}"
            task = self.tasks[label]
            self.progress.update(task, completed=step, total=total, count=count, note=note)
        self._count()

    def end(self, label: str, status: str, text: str) -> None:
        """Its bar goes, the counts stay."""
        super().end(label, status, text)
        if label in self.tasks:
            self.progress.remove_task(self.tasks.pop(label))
        if status == "diverged":
            say(f"{label}  diverged")
        self._count()

    def _count(self) -> None:
        tally = self.tally
        count = f"{tally.over}/{tally.planned or '?'}"
        self.progress.update(self.whole, completed=tally.done, count=count, note=tally.note())


@contextmanager
def _bars(tally: Tally) -> Iterator[Bars]:
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[count]}", markup=False, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, expand=True) as progress:
        yield Bars(progress, tally)

"""The progress of a sweep: bars on a terminal, lines in a log, none if quiet."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from optbench.common.console import say
from optbench.common.text import count
from optbench.formats import job_list

SUMMARY_SECONDS = 30.0  # between two lines about the whole sweep, in a log
MAX_RUN_LINES = 60  # in a larger sweep a log skips runs that follow each other too fast
RUN_LINE_SECONDS = 1.0  # shortest time between two lines about runs in such a sweep
MAX_BARS = 8  # of single runs, since a machine may have hundreds of cores
ESTIMATE_AFTER_SECONDS = 3.0  # an earlier estimate of the time left is a guess


@contextmanager
def board(sweep: Path, *, quiet: bool) -> Iterator["Board"]:
    """Yield the progress board of a sweep, which starts from the sweep's list of jobs."""
    tally = Tally(sweep)
    if quiet:
        yield Board(tally)
    elif sys.stdout.isatty():
        with _bars(tally) as bars:
            yield bars
    else:
        yield Lines(tally)


class Tally:
    """Counts of a sweep's jobs by outcome, and an estimate of the time left.

    A tuned study launches jobs in several batches. Jobs of earlier batches count as over.
    """

    def __init__(self, sweep: Path) -> None:
        first, outcomes = job_list.read(sweep)
        if job_list.shared.call:  # jobs of others are counted as this process takes note of them
            outcomes = job_list.ended
        self.planned: int | None = first["planned"]
        self.counts = Counter(str(job["status"]) for job in outcomes)
        self.running: dict[str, float] = {}  # by label: the fraction of steps done
        self.trained = 0  # jobs trained by this process
        self.since = self.told = monotonic()

    def begin(self, label: str) -> None:
        """Note that a job runs."""
        self.running[label] = 0.0

    def move(self, label: str, step: int, total: int | None) -> None:
        """Note how far a job has come."""
        self.running[label] = step / total if total else 0.0

    def end(self, label: str, status: str) -> None:
        """Note that a job is over, or was interrupted and resumes in another call."""
        share = self.running.pop(label, None)
        if status != "interrupted":
            self.trained += share is not None
            self.counts[status] += 1

    @property
    def over(self) -> int:
        """The number of jobs that ended, with any outcome."""
        return self.counts.total()

    @property
    def done(self) -> float:
        """The number of jobs that ended, plus the fractions of running jobs."""
        return self.over + sum(self.running.values())

    def seconds_left(self) -> float | None:
        """Return an estimate from the pace so far; None if too early or without a total."""
        elapsed, trained = monotonic() - self.since, self.trained + sum(self.running.values())
        if self.planned is None or elapsed < ESTIMATE_AFTER_SECONDS or trained <= 0:
            return None
        return max(0.0, self.planned - self.done) * elapsed / trained

    def note(self) -> str:
        """Return how many jobs run or went wrong, and the time left, in a few words."""
        words = [f"{len(self.running)} running"] if self.running else []
        words += [f"{self.counts[key]} {key}" for key in ("diverged", "failed") if self.counts[key]]
        left = self.seconds_left()
        return ", ".join([*words, *([f"about {duration(left)} left"] if left else [])])

    def tell(self, last: bool = False) -> None:
        """Print a line about the sweep every `SUMMARY_SECONDS`, and at the end.

        The sweep's own last lines count runs that failed, so that none is needed before these.
        """
        if last and self.counts["failed"]:
            return
        if last or monotonic() - self.told >= SUMMARY_SECONDS:
            self.told = monotonic()
            planned = count(self.planned, "run") if self.planned else "? runs"
            parts = f"{self.over} of {planned} done", self.note()
            say(", ".join(part for part in parts if part))


def duration(seconds: float) -> str:
    """Return a duration in words: "40 s", "12 min" or "3 h 5 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Board:
    """A receiver of each job's progress by label, such as "[3/21] optimizer=sgd".

    This class only counts. Failures are reported where they are recorded.
    """

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    def begin(self, label: str) -> None:
        """Note that a worker has a job."""
        self.tally.begin(label)

    def move(self, label: str, step: int, total: int | None, loss: float | None) -> None:
        """Note how far a job has come."""
        self.tally.move(label, step, total)

    def end(self, label: str, status: str, text: str, words: str | None = None) -> None:
        """Note that a job is over. text: its last metrics, "" for an earlier result.

        words: how the job ended, by default the status; "" if that has been said.
        """
        self.tally.end(label, status)


class Lines(Board):
    """Progress in a log: a line per finished run, and at times one about the sweep."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(tally)
        self.said = monotonic()

    def move(self, label: str, step: int, total: int | None, loss: float | None) -> None:
        """Count the steps, and print a line about the sweep when due."""
        super().move(label, step, total, loss)
        self.tally.tell()

    def end(self, label: str, status: str, text: str, words: str | None = None) -> None:
        """Print one line about a run. Failures have been reported on standard error."""
        super().end(label, status, text, words)
        words = status if words is None else words
        now = monotonic()
        due = (self.tally.planned or 0) <= MAX_RUN_LINES or now - self.said >= RUN_LINE_SECONDS
        if words and (status == "diverged" or (text and status != "failed" and due)):
            say("  ".join(part for part in (label, text, words) if part))
            self.said = now
        self.tally.tell(last=self.tally.over == self.tally.planned)


class Bars(Board):
    """Progress bars: one for the sweep with counts, and some for single runs."""

    def __init__(self, progress: Any, tally: Tally) -> None:
        super().__init__(tally)
        self.progress = progress
        self.tasks: dict[str, Any] = {}
        self.whole = progress.add_task("sweep", total=tally.planned, count="", note="")
        self._count()

    def begin(self, label: str) -> None:
        """Add a bar for the job, if there is room."""
        super().begin(label)
        if len(self.tasks) < MAX_BARS:
            self.tasks[label] = self.progress.add_task(label, total=None, count="", note="")
        self._count()

    def move(self, label: str, step: int, total: int | None, loss: float | None) -> None:
        """Move the job's bar."""
        super().move(label, step, total, loss)
        if label in self.tasks:
            note = "" if loss is None else f"loss {loss:.4g}"
            count = f"{step}/{total or '?'}"
            task = self.tasks[label]
            self.progress.update(task, completed=step, total=total, count=count, note=note)
        self._count()

    def end(self, label: str, status: str, text: str, words: str | None = None) -> None:
        """Remove the job's bar and keep the counts."""
        super().end(label, status, text, words)
        words = status if words is None else words
        if label in self.tasks:
            self.progress.remove_task(self.tasks.pop(label))
        if status == "diverged" and words:
            say(f"{label}  {words}")
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

"""What a person sees while a run trains: a bar on a terminal, a line per epoch elsewhere."""

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO


class Update(Protocol):
    """What is shown of a `training.steps.Update`."""

    @property
    def step(self) -> int:
        """Steps taken so far."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""

    @property
    def epoch(self) -> Mapping[str, float | None] | None:
        """A row of epochs.csv, or None between evaluations."""

    @property
    def loss(self) -> float | None:
        """The last mini-batch's."""

    @property
    def note(self) -> str:
        """Something to tell a person, or ""."""


class Show(Protocol):
    """Called with each update of a run."""

    def __call__(self, update: Update) -> None: ...


@contextmanager
def progress(label: str, *, quiet: bool) -> Iterator[Show]:
    """Show the updates of one run; `label` names it."""
    if quiet:
        yield lambda update: None
    elif sys.stdout.isatty():
        with _bar(label) as show:
            yield show
    else:
        yield lambda update: _line(label, update)


def say(*lines: object, error: bool = False) -> None:
    """Print, unless nobody listens any more (`| head`): a run does not end for that.

    Nor does it end for a name that the stream's encoding cannot write: its escapes are printed.
    """
    stream = sys.stderr if error else sys.stdout
    try:
        print(*lines, sep="\n", file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        text = "\n".join(map(str, lines)).encode(encoding, "backslashreplace")
        print(text.decode(encoding), file=stream, flush=True)
    except OSError:
        _silence(stream)


@contextmanager
def streams() -> Iterator[None]:
    """For a whole command: without stdout or stderr, or with a pipe that closes, it goes on.

    A command started with one closed (`>&-`) would write into the next file it opens.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may not fit the locale's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except BrokenPipeError:
        pass  # `| head` has seen enough
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                _silence(stream)


def _silence(stream: TextIO) -> None:
    # the interpreter would flush again at its end, and complain
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _line(label: str, update: Update) -> None:
    if update.note:
        say(f"{label}  {update.note}")
    if update.epoch is not None:
        say(f"{label}  {describe(update)}")


def describe(update: Update) -> str:
    """The figures of an evaluation in one line."""
    assert update.epoch is not None
    row = update.epoch
    parts = [f"epoch {row['epoch']:g}", f"train_loss {row['train_loss']:.4g}"]
    if row["test_accuracy"] is not None:
        parts.append(f"test_accuracy {row['test_accuracy']:.4f}")
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

    # a sweep's label would leave no room for the bar
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
            if update.note:
                say(update.note)
            bar.update(task, completed=update.step, total=update.total_steps)
            if update.loss is not None:
                bar.update(task, loss=f"loss {update.loss:.4g}")

        yield show

"""SIGINT, SIGTERM and Slurm's SIGUSR1: runs end after a whole step, with their rows written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

early: list[int] = []  # signals that came before anything had begun


class Interrupt(KeyboardInterrupt):
    """A Ctrl-C that `program.run` turns into exit status 130.

    Python ends by the signal itself after a bare KeyboardInterrupt in a string that a library
    executes as it is imported, caught or not, where the program was started with `python -m`.
    """


def first(number: int, frame: FrameType | None) -> None:
    """The handler of Ctrl-C before anything has begun: it ends the command.

    A library may swallow the exception where it imports: then `interrupts` finds it.
    """
    early.append(number)
    raise Interrupt


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGUSR1 instead of dying, so that a run ends after a whole step.

    A second one has its usual effect at once.
    """
    received, early[:] = early[:], []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGUSR1"):
        numbers.append(signal.SIGUSR1)  # what Slurm can send before it ends a job
    for number in numbers:
        before[number] = signal.signal(number, handle)
    try:
        yield received
    finally:
        restore()

"""Interrupts (SIGINT, SIGTERM, SIGUSR1), which end a run after a whole step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

early: list[int] = []  # signals that came before the first run began


class Interrupt(KeyboardInterrupt):
    """A Ctrl-C that `program.run` turns into exit status 130.

    A bare KeyboardInterrupt would not do. Raised in a string that a library executes at its
    import, it makes `python -m` end by the signal itself, even if it is caught.
    """


def first(number: int, frame: FrameType | None) -> None:
    """Handle a Ctrl-C before the first run begins: end the command.

    A library may swallow the exception at its import; `interrupts` then finds the signal.
    """
    early.append(number)
    raise Interrupt


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Collect the signals that interrupt a run, so that it ends after a whole step.

    A second signal has its usual effect immediately.
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
        numbers.append(signal.SIGUSR1)  # Slurm can send it before it ends a job
    for number in numbers:
        before[number] = signal.signal(number, handle)
    try:
        yield received
    finally:
        restore()

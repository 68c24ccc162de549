"""The job that each peer of the benchmark gets, and the peer's answer."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

CHANNELS, CNN_HIDDEN, LR = (32, 64, 64), 128, 1e-3


class Job(NamedTuple):
    """The job of every peer. model: "cnn", or the hidden widths, such as "1000-1000"."""

    train_x: Any
    train_y: Any
    test_x: Any
    test_y: Any
    model: str
    epochs: int
    batch: int = 128
    device: str = "cpu"

    @property
    def widths(self) -> list[int]:
        """The units of the hidden linear layers."""
        return [CNN_HIDDEN] if self.model == "cnn" else [int(w) for w in self.model.split("-")]


Answer = tuple[list[float], float]  # seconds of each epoch, test accuracy after the last


def timed(epochs: int, epoch: Callable[[], float]) -> Answer:
    """Time each call of `epoch`, which trains one epoch and returns the accuracy."""
    seconds, accuracy = [], 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        accuracy = float(epoch())
        seconds.append(time.perf_counter() - start)
    return seconds, accuracy

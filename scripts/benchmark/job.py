"""What each peer of the benchmark is asked, and what it answers."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

CHANNELS, CNN_HIDDEN, LR = (32, 64, 64), 128, 1e-3


class Job(NamedTuple):
    """What every peer is asked; `model` is "cnn" or the hidden widths, such as "1000-1000"."""

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
        """Units of the hidden linear layers."""
        return [CNN_HIDDEN] if self.model == "cnn" else [int(w) for w in self.model.split("-")]


Answer = tuple[list[float], float]  # seconds of each epoch, test accuracy after the last


def timed(epochs: int, epoch: Callable[[], float]) -> Answer:
    """Call `epoch`, which trains once through the data and gives the accuracy, and time it."""
    seconds, accuracy = [], 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        accuracy = float(epoch())
        seconds.append(time.perf_counter() - start)
    return seconds, accuracy

"""The job that each peer of the benchmark gets, and the peer's answer."""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

CHANNELS, CNN_HIDDEN, LR = (32, 64, 64), 128, 1e-3
DROPOUT, INPUT_DROPOUT = 0.5, 0.2  # as in the network of the Adam paper's figure 2
OWN_LR = 1e-4  # of Lion
WIDTHS = re.compile(r"\d+(-\d+)*")
PARTS = ("dropout", "norm", "own")


class Job(NamedTuple):
    """The job of every peer.

    model: "cnn", or the hidden widths, such as "1000-1000", with "+dropout", "+norm" for batch norm
    before the activation, and "+own" for Lion instead of Adam, an optimizer that optbench's engine
    does not know.
    """

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
        first = self.model.split("+")[0]
        return [CNN_HIDDEN] if first == "cnn" else [int(w) for w in first.split("-")]

    @property
    def is_cnn(self) -> bool:
        """Whether the model has convolutions."""
        return self.model.split("+")[0] == "cnn"

    def has(self, part: str) -> bool:
        """Return whether the model has one of `PARTS`."""
        return part in self.model.split("+")[1:]


def is_model(text: str) -> bool:
    """Return whether a text names a model."""
    first, *parts = text.split("+")
    return bool(first == "cnn" or WIDTHS.fullmatch(first)) and set(parts) <= set(PARTS)


Answer = tuple[list[float], float]  # seconds of each epoch, test accuracy after the last


def timed(epochs: int, epoch: Callable[[], float]) -> Answer:
    """Time each call of `epoch`, which trains one epoch and returns the accuracy."""
    seconds, accuracy = [], 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        accuracy = float(epoch())
        seconds.append(time.perf_counter() - start)
    return seconds, accuracy

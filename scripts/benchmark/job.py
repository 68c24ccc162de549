"""The job that each peer of the benchmark gets, and the peer's answer."""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

CHANNELS, CNN_HIDDEN, LR = (32, 64, 64), 128, 1e-3
UNITS = 128  # of the LSTM
TABLE_WIDTHS = (256, 128)  # each with batch norm
DROPOUT, INPUT_DROPOUT = 0.5, 0.2  # as in the network of the Adam paper's figure 2
OWN_LR = 1e-4  # of Lion
WIDTHS = re.compile(r"\d+(-\d+)*")
PARTS = ("dropout", "norm", "own")
# other models than MLPs: images by rows, lines of text, and the columns of a table
KINDS = ("cnn", "lstm", "gpt", "tabular")


class Job(NamedTuple):
    """The job of every peer.

    model: one of `KINDS`, or the hidden widths of an MLP, such as "1000-1000"; with "+dropout",
    "+norm" for batch norm before the activation, and "+own" for Lion instead of Adam, an optimizer
    that optbench's engine does not know. The labels are (n,), of a GPT (n, tokens).
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
    def kind(self) -> str:
        """One of `KINDS`, or "mlp"."""
        return kind_of(self.model)

    @property
    def widths(self) -> list[int]:
        """The units of the hidden linear layers."""
        others = {"cnn": [CNN_HIDDEN], "tabular": [*TABLE_WIDTHS], "lstm": [], "gpt": []}
        return others.get(self.kind) or [int(w) for w in re.findall(r"\d+", self.model)]

    @property
    def classes(self) -> int:
        """The number of labels; of a text, that of the characters."""
        return 1 + max(int(y.max()) for y in (self.train_y, self.test_y))

    def has(self, part: str) -> bool:
        """Return whether the model has one of `PARTS`."""
        return part in self.model.split("+")[1:] or (self.kind == "tabular" and part == "norm")


def kind_of(model: str) -> str:
    """Return the kind of a model: one of `KINDS`, or "mlp"."""
    first = model.split("+")[0]
    return first if first in KINDS else "mlp"


def is_model(text: str) -> bool:
    """Return whether a text names a model."""
    first, *parts = text.split("+")
    if first in KINDS[1:]:
        return set(parts) <= {"own"}
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

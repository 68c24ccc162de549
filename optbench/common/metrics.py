"""The properties of a logged column: direction, worst value, unit, axis and label."""

import math
from dataclasses import dataclass
from functools import cache

LABEL_OF = {
    "running_loss": "epoch-mean training loss",
    "lr": "learning rate",
    "seconds": "training time",
    "total_seconds": "total time",
}
SPLIT_NAMES = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class Metric:
    """A logged column, as tables and figures treat it."""

    name: str
    smaller: bool  # whether small values are good
    worst: float  # of a diverged run, so that no one averages over survivors
    unit: str  # "%": a fraction, shown times 100; "s"; "" for none
    log: bool  # whether the axis is logarithmic by default
    label: str  # in words, without the unit

    @property
    def percent(self) -> bool:
        """Return whether values are fractions, shown in per cent."""
        return self.unit == "%"

    @property
    def title(self) -> str:
        """Return the label as a column's heading, with "(%)" for fractions."""
        return self.label + (" (%)" if self.percent else "")

    @property
    def is_loss(self) -> bool:
        """Return whether the column is a loss, whose unit depends on the loss function."""
        return self.worst == math.inf


@cache
def metric_of(column: str) -> Metric:
    """Return the metric of a column, or of a quotient of columns, by its name.

    Large accuracies and scores are good. A column other than these or a loss has no worst value
    (NaN).
    """
    words = " ".join(SPLIT_NAMES.get(word, word) for word in column.split("_"))
    if "accuracy" in column:
        return Metric(column, False, -math.inf, "%", False, words)
    if "score" in column:
        return Metric(column, False, -math.inf, "", False, words)
    worst = math.inf if "loss" in column else math.nan
    time = "seconds" in column
    return Metric(column, True, worst, "s" if time else "", not time, LABEL_OF.get(column, words))

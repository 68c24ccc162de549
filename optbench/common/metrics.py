"""What is known of a logged column: which values are good, the worst of them, unit, axis, label."""

import math
from dataclasses import dataclass
from functools import cache

LABELS = {
    "train_loss": "training cost",
    "running_loss": "training cost, epoch mean",
    "val_loss": "validation loss",
    "test_loss": "test loss",
    "lr": "learning rate",
    "seconds": "training time",
    "total_seconds": "total time",
}
SPLITS = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class Metric:
    """A logged column, as tables and figures treat it."""

    name: str
    smaller: bool  # whether small values are the good ones
    worst: float  # what a diverged run counts as, so that no one averages over survivors
    unit: str  # "%": a fraction, shown times 100; "s"; "" for none
    log: bool  # whether its axis is logarithmic where nobody says
    label: str  # in words, without the unit

    @property
    def percent(self) -> bool:
        """Whether values are fractions that are shown in per cent."""
        return self.unit == "%"

    @property
    def title(self) -> str:
        """The name as the head of a column, with "(%)" where values are shown so."""
        return self.name.replace("_", " ") + (" (%)" if self.percent else "")

    @property
    def is_loss(self) -> bool:
        """Whether the column is a loss, whose unit depends on the run's loss function."""
        return self.worst == math.inf


@cache
def metric_of(column: str) -> Metric:
    """Return what is known of a column by its name, or of a quotient of columns.

    Accuracies are fractions of which the large ones are good. Of what is neither an accuracy nor
    a loss no value is the worst (NaN).
    """
    if "accuracy" in column:
        words = " ".join(SPLITS.get(word, word) for word in column.split("_"))
        return Metric(column, False, -math.inf, "%", False, words)
    worst = math.inf if "loss" in column else math.nan
    time = "seconds" in column
    return Metric(column, True, worst, "s" if time else "", not time, LABELS.get(column, column))

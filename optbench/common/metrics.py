"""The properties of a logged column: direction, worst value, unit, axis and label."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from optbench.common.text import number

if TYPE_CHECKING:
    import pandas as pd  # takes a third of a second

NEVER_CHANGED = (
    "never changed: no weight moves (an optimizer updates in place, as in p.sub_(...)), or the "
    "learning rate is far too small"
)
LABEL_OF = {
    "running_loss": "epoch-mean training loss",
    "lr": "learning rate",
    "forwards": "forward passes",
    "gradients": "gradient evaluations",
    "d": "estimate d of the step size",
    "effective_lr": "effective learning rate",
    "update_rms": "root mean square of the update",
    "preconditioner_age": "age of the preconditioner in steps",
    "seconds": "training time",
    "total_seconds": "total time",
    "loss_gap": "gap between test and training loss",
}
# what a task measures beside its loss: whether large values are good, and the unit
TASK_METRICS = {
    "accuracy": (True, "%"),
    "r2": (True, ""),
    "rmse": (False, ""),  # in the target's own unit
    "mae": (False, ""),
    "bits_per_character": (False, "bits"),
    "label_error_rate": (False, "%"),
}
MAIN_METRICS = ("label_error_rate", "bits_per_character", "accuracy", "rmse")  # most telling first
SHORT_NAMES = {"r2": "R²", "rmse": "RMSE", "mae": "MAE"}
SPLIT_NAMES = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class Metric:
    """A logged column, as tables and figures treat it."""

    name: str
    smaller: bool  # whether small values are good
    worst: float  # value of a diverged run: without one, means would be over the survivors alone
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
        return "loss" in self.name


def is_metric_column(column: str) -> bool:
    """Return whether a column is a task's metric on the train, val or test split.

    With several outputs, an output's name stands before the metric, as in val_digit_accuracy.
    """
    parts = column.removeprefix("averaged_").split("_", 1)
    names = tuple(f"_{name}" for name in TASK_METRICS)
    return parts[0] in ("train", "val", "test") and f"_{parts[-1]}".endswith(names)


def main_metric(columns: "Mapping[str, Any] | pd.DataFrame", part: str) -> str:
    """Return the column of a split's most telling metric, else of the split's loss.

    The metric is the first of `MAIN_METRICS` with a finite value. columns: a table, or arrays by
    name. part: train, val or test.
    """
    for name in MAIN_METRICS:
        column = f"{part}_{name}"
        if column in columns and np.isfinite(np.asarray(columns[column], dtype=float)).any():
            return column
    return f"{part}_loss"


@cache
def metric_of(column: str) -> Metric:
    """Return the metric of a column, or of a quotient of columns, by its name.

    Large accuracies and scores are good. Losses, accuracies, scores and the metrics of tasks have a
    worst value; for other columns the worst value is NaN.
    """
    names = SPLIT_NAMES | SHORT_NAMES
    words = " ".join(names.get(word, word) for word in column.split("_"))
    for name, (large, unit) in TASK_METRICS.items():
        if column.endswith(name):
            worst = -math.inf if large else math.inf
            return Metric(column, not large, worst, unit, not large and unit != "%", words)
    if "accuracy" in column:
        return Metric(column, False, -math.inf, "%", False, words)
    if "score" in column:
        return Metric(column, False, -math.inf, "", False, words)
    if column == "loss_gap":  # may be negative
        return Metric(column, True, math.inf, "", False, LABEL_OF[column])
    worst = math.inf if "loss" in column else math.nan
    time = "seconds" in column
    return Metric(column, True, worst, "s" if time else "", not time, LABEL_OF.get(column, words))


def final_text(value: float, column: str) -> str:
    """Return a final value of a column as text, shares in per cent; infinite is "diverged"."""
    if not math.isfinite(value):
        return "diverged"
    return f"{100 * value:.2f}" if metric_of(column).percent else number(value)


def target_text(target: float, column: str) -> str:
    """Return a target of a column as text, a share in per cent."""
    return f"{100 * target:.4g} %" if metric_of(column).percent else f"{target:.4g}"

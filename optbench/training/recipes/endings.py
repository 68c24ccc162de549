"""End a run before its budget of steps: no progress, a target, or seconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from optbench.common.errors import UserError, check_choice
from optbench.common.metrics import TASK_METRICS, metric_of
from optbench.problem import Problem
from optbench.training.evaluation import Row
from optbench.training.recipes.checks import is_count, is_number

# the test set decides nothing, so that its results stay those of a fresh sample
METRICS = (
    *(f"{part}_{name}" for part in ("val", "train") for name in ("loss", *TASK_METRICS)),
    "running_loss",
)
AVERAGED_METRICS = tuple(f"averaged_{name}" for name in METRICS[:-1])
PATIENCE, TARGET, SECONDS = "early_stopping", "stop_at", "budget_seconds"


def check_metric(key: str, value: Any, *, averaged: bool) -> None:
    """Raise `UserError` unless a recipe's value names a column that may end a run."""
    if "test" in str(value):
        raise UserError(
            f"{key} is {value}, and the test set may not decide when a run ends: take "
            f"{str(value).replace('test', 'val')}"
        )
    if not averaged and value in AVERAGED_METRICS:
        raise UserError(f"{key} is {value}, and no weights are averaged: set averaging.kind")
    check_choice(key, value, (*METRICS, *AVERAGED_METRICS * averaged))


def _check_column(key: str, metric: str, problem: Problem) -> None:
    if "val_" in metric and not len(problem.dataset.val_y):
        raise UserError(
            f"{key} is {metric}, and there is no validation set: set data.val_size above 0, or "
            f"take {metric.replace('val', 'train')}"
        )
    known = ("loss", *problem.dataset.task.metrics)
    if not metric.endswith(known):
        raise UserError(
            f"{key} is {metric}, and these targets have none: take one of {', '.join(known)}, as "
            f"in val_{known[-1]}"
        )


@dataclass(frozen=True)
class EarlyStopping:
    """Early stopping after so many evaluations in a row without a better value.

    patience: their number; None: no early stopping. metric: a column of epochs.csv.
    """

    patience: int | None = None
    metric: str = "val_loss"

    def __post_init__(self) -> None:
        if self.patience is not None and not is_count(self.patience, 1):
            raise UserError(
                f"early_stopping.patience must be a whole number of at least 1 (evaluations "
                f"without a better value), or null, not {self.patience!r}"
            )

    def check(self, key: str, problem: Problem) -> None:
        """Raise `UserError` where the problem has no such metric."""
        if self.patience is not None:
            _check_column(key, self.metric, problem)


@dataclass(frozen=True)
class StopAt:
    """The target at which a run ends.

    metric: a column of epochs.csv. value: the target; None: no target.
    """

    metric: str = "val_loss"
    value: float | None = None

    def __post_init__(self) -> None:
        if self.value is not None and not is_number(self.value):
            raise UserError(f"stop_at.value must be a number, or null, not {self.value!r}")
        if self.value is not None and metric_of(self.metric).percent and not 0 <= self.value <= 1:
            raise UserError(
                f"stop_at.value={self.value:g} is no share: {self.metric} is between 0 and 1, and "
                f"90 % is stop_at.value=0.9"
            )

    def check(self, key: str, problem: Problem) -> None:
        """Raise `UserError` where the problem has no such metric."""
        if self.value is not None:
            _check_column(f"{key}.metric", self.metric, problem)


class Endings:
    """Whether a run ends, from its evaluations and its seconds."""

    def __init__(
        self, early_stopping: EarlyStopping, stop_at: StopAt, budget_seconds: float | None
    ) -> None:
        self.early_stopping, self.stop_at = early_stopping, stop_at
        self.budget_seconds = inf if budget_seconds is None else budget_seconds
        self.best: float | None = None
        self.waited = 0  # evaluations since the best one

    def is_late(self, seconds: float) -> bool:
        """Return whether the seconds of training are used up."""
        return seconds >= self.budget_seconds

    def reason(self, row: Row, *, last: bool) -> str | None:
        """Return why a run ends with an evaluation, or None; call it once for each.

        last: the evaluation follows the last step of the budget, so that only a target counts.
        """
        ended = self._patience_ends(row)
        if self._is_reached(row):
            return TARGET
        if last:
            return None
        return PATIENCE if ended else SECONDS if self.is_late(row["seconds"] or 0.0) else None

    def _is_reached(self, row: Row) -> bool:
        value, target = row.get(self.stop_at.metric), self.stop_at.value
        if target is None or value is None:
            return False
        return value <= target if metric_of(self.stop_at.metric).smaller else value >= target

    def _patience_ends(self, row: Row) -> bool:
        """Count an evaluation, and return whether too many brought no better value."""
        metric, patience = self.early_stopping.metric, self.early_stopping.patience
        value = row.get(metric)
        if patience is None or value is None:
            return False
        value = value if metric_of(metric).smaller else -value
        if self.best is None or value < self.best:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= patience

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and how long no better one came."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best, self.waited = state["best"], state["waited"]

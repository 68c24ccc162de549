"""Trials on a map of learning rate by weight decay."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Runs, comparison_of
from optbench.analysis.trials import trial_scores
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of

PER_DECADE = 2  # cells
RATE, DECAY = "optimizer.lr", "optimizer.weight_decay"


class RateDecayMap(NamedTuple):
    """The best trial in each cell of one optimizer's map on one problem."""

    optimizer: str
    problem: str  # its hash
    rates: np.ndarray  # (columns + 1,) edges of the cells
    decays: list[str]  # (rows,) labels, "0" first where some trial had no decay
    best: np.ndarray  # (rows, columns) the best score, whatever the other settings; NaN: no trial
    lost: np.ndarray  # (rows, columns) whether all its trials diverged
    near: np.ndarray  # (rows, columns) whether its best is within 5 % of the map's best
    optimum: tuple[int, int]  # the row and column of the best trial
    trials: int

    @property
    def top(self) -> float:
        """Return the score of the best trial."""
        return float(self.best[self.optimum])


def rate_decay_maps(trials: Runs, metric: str, pick: str) -> list[RateDecayMap]:
    """Return the map of each optimizer that was tried at two rates and three decays.

    A decay of 0 counts as one of the three. Cells are half decades wide. Raises UserError without
    such an optimizer.
    """
    made = comparison_of(trials)
    if not {RATE, DECAY} <= set(made.table):
        raise UserError("these trials have no learning rate and weight decay to draw a map of")
    scores = trial_scores(made, metric, pick)
    first = made.table.drop_duplicates("run").set_index("run")
    decay = pd.to_numeric(first[DECAY].astype(object), errors="coerce")
    scores = scores.assign(decay=decay.reindex(scores.index)).dropna(subset=["lr", "decay"])
    scores = scores[(scores["lr"] > 0) & (scores["decay"] >= 0)]
    found = [
        map_of(part, str(name), str(problem), metric_of(metric).smaller)
        for (problem, name), part in scores.groupby(["problem", "optimizer"], sort=False)
        if len(part["lr"].unique()) > 1
        and len(part["decay"].unique()) > 2
        and np.isfinite(part["score"]).any()
    ]
    if not found:
        raise UserError(
            "no optimizer has a finite result and was tried at two learning rates and three weight "
            "decays"
        )
    return found


def map_of(part: pd.DataFrame, optimizer: str, problem: str, smaller: bool) -> RateDecayMap:
    """Return the map of one optimizer's trials, with columns lr, decay and score."""
    columns = np.floor(PER_DECADE * np.log10(part["lr"].to_numpy()) + 1e-9).astype(int)
    decays = part["decay"].to_numpy()
    with np.errstate(divide="ignore"):
        rows = np.floor(PER_DECADE * np.log10(decays) + 1e-9)
    none, lowest = bool((decays == 0).any()), int(rows[np.isfinite(rows)].min())
    rows = np.where(decays == 0, 0, rows - lowest + none).astype(int)
    columns, start = columns - columns.min(), int(columns.min())
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    best, tried = np.full(shape, math.nan), np.zeros(shape, dtype=bool)
    value = part["score"].to_numpy(dtype=float)
    for row, column, score in zip(rows, columns, value, strict=True):
        tried[row, column] = True
        if np.isfinite(score):
            pair = (score, best[row, column])
            best[row, column] = np.nanmin(pair) if smaller else np.nanmax(pair)
    top = np.nanmin(best) if smaller else np.nanmax(best)
    with np.errstate(invalid="ignore"):
        near = np.abs(best - top) <= 0.05 * abs(top)
    row, column = np.argwhere(best == top)[0]
    labels = [f"{10 ** ((k + lowest) / PER_DECADE):.1g}" for k in range(shape[0] - none)]
    return RateDecayMap(
        optimizer, problem, 10 ** ((np.arange(shape[1] + 1) + start) / PER_DECADE),
        ["0"] * none + labels, best, tried & np.isnan(best), near, (int(row), int(column)),
        len(part),
    )  # fmt: skip

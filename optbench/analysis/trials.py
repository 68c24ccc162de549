"""The trials of tuned studies: what each scored."""

import math

import pandas as pd

from optbench.analysis.summary import final_values
from optbench.common.metrics import smaller_is_better


def trial_scores(trials: pd.DataFrame, metric: str, pick: str) -> pd.DataFrame:
    """A line per trial: problem, optimizer, lr, score (the worst value where it diverged)."""
    first = trials.groupby("run", observed=True, sort=False).first()
    score = final_values(trials, metric)
    if pick == "best":
        # the untrained model is nobody's best epoch
        by_run = trials[trials["step"] > 0].groupby("run", observed=True, sort=False)[metric]
        best = by_run.min() if smaller_is_better(metric) else by_run.max()
        score = best.reindex(score.index).where(score.abs() < math.inf, score)
    lr = first["optimizer.lr"] if "optimizer.lr" in first else pd.Series(math.nan, first.index)
    return pd.DataFrame(
        {
            "problem": first["problem"].astype(str),
            "optimizer": first["optimizer"].astype(str),
            "lr": pd.to_numeric(lr.astype(object), errors="coerce"),
            "score": score.reindex(first.index).astype(float),
        }
    )

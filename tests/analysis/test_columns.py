"""Filters by config keys."""

from pathlib import Path

import pytest
from made_runs import sweep

from optbench.analysis.columns import filter_runs
from optbench.analysis.table import load_runs
from optbench.common.errors import UserError


def test_where_keeps_the_runs_that_match(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    sweep(tmp_path, ("adam",), 1, lr=0.01, model__batch_norm=True)
    table = load_runs(tmp_path)
    assert filter_runs(table, ["optimizer=adam", "optimizer.lr=1e-3"])["run"].nunique() == 2
    assert filter_runs(table, ["optimizer=adam", "optimizer=sgd"])["run"].nunique() == 5
    assert len(set(filter_runs(table, ["model.batch_norm=True"])["run"])) == 1
    for bad, words in (
        ("optimizer", "KEY=VALUE"),
        ("optimizer=x", "adam, sgd"),
        ("lr=1", "optimizer.lr"),
    ):
        with pytest.raises(UserError, match=words):
            filter_runs(table, [bad])
    with pytest.raises(UserError, match="no run with optimizer = adma; there is: adam, sgd"):
        filter_runs(table, ["optimizer=adam", "optimizer=adma"])

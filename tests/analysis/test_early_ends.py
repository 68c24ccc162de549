"""Runs that ended early are named where they are compared with runs that did not."""

import pytest
from made_runs import make_run

from optbench.analysis.caveats import caveats
from optbench.analysis.comparison import Comparison
from optbench.analysis.table import load_runs

STOPPED = {"stopped": {"by": "early_stopping", "step": 108}, "status": "completed"}


def told(folder) -> str:
    return "\n".join(caveats(Comparison(load_runs(folder))))


@pytest.fixture
def runs(tmp_path):
    for seed in range(3):
        make_run(tmp_path / f"sgd{seed}", "sgd", seed, epochs=3)
        make_run(tmp_path / f"adam{seed}", "adam", seed, epochs=3, record=STOPPED)
    return tmp_path


def test_runs_that_stopped_are_counted_beside_those_that_did_not(runs):
    text = told(runs)
    assert (
        "3 of 6 runs ended early for lack of progress (early_stopping) (adam 3), and others used "
        "up their budget of steps"
    ) in text
    assert load_runs(runs).groupby("optimizer", observed=True)["stopped"].count().to_dict() == {
        "adam": 12, "sgd": 0,
    }  # fmt: skip


def test_runs_to_the_end_have_no_such_caveat(tmp_path):
    for name in ("sgd", "adam"):
        make_run(tmp_path / name, name, epochs=3)
    assert "ended early" not in told(tmp_path)
    assert "target of stop_at" not in told(tmp_path)


def test_missed_targets_and_seconds_are_told(tmp_path):
    reached = {"stopped": {"by": "stop_at", "step": 108}, "target_reached": True}
    for name, record in (("sgd", {"target_reached": False}), ("adam", reached)):
        keys = {"stop_at__value": 0.5, "stop_at__metric": "val_loss", "budget_seconds": 60}
        make_run(tmp_path / name, name, epochs=3, record=record, **keys)
    text = told(tmp_path)
    assert "1 of 2 runs did not reach the target of stop_at (sgd 1)" in text
    assert "runs with a budget of seconds are not repeatable bit for bit" in text


def test_a_run_cannot_have_stopped_after_its_last_row(tmp_path):
    make_run(tmp_path / "a", epochs=3)
    late = {"stopped": {"by": "early_stopping", "step": 500}}
    make_run(tmp_path / "b", epochs=3, seed=1, record=late)
    with pytest.warns(UserWarning, match="the run stopped at 500"):
        assert load_runs(tmp_path)["seed"].unique().tolist() == [0]


def test_older_runs_and_runs_with_a_recipes_defaults_are_one_series(tmp_path):
    make_run(tmp_path / "old", seed=0)
    keys = {"clip_norm": None, "accumulate": 1, "averaging__kind": None, "averaging__start": 0.75}
    make_run(tmp_path / "new", seed=1, averaging__decay=0.999, **keys)
    assert Comparison(load_runs(tmp_path)).plan.runs["variant"].nunique() == 1
    make_run(tmp_path / "clipped", seed=2, clip_norm=1.0)
    assert Comparison(load_runs(tmp_path)).plan.runs["variant"].nunique() == 2

"""Panels and series: what belongs together, and what is never mixed."""

from pathlib import Path

import pytest
from made_runs import make_run, sweep

from optbench.analysis.pairing import by_seed
from optbench.analysis.series import assign_series
from optbench.analysis.table import load_runs
from optbench.common.errors import UserError
from optbench.figures.curves import curves
from optbench.figures.panels import TooManyPanels
from optbench.stats.pairwise import compare


def test_problems_get_panels_by_what_differs(tmp_path: Path) -> None:
    for norm in (False, True):
        for name in ("default", "he"):
            # gain goes with the name: it must not become a third key
            keys = {"initializer__name": name, "initializer__gain": len(name)}
            sweep(tmp_path, ("adam", "sgd"), 1, model__batch_norm=norm, **keys)
    plan = assign_series(load_runs(tmp_path))
    assert sorted(plan.facet) == ["initializer.name", "model.batch_norm"]
    assert len(set(plan.runs["panel"])) == 4
    assert set(plan.runs["series"]) == {"adam", "sgd"}


def test_mixing_problems_is_refused(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam",), 2)
    sweep(tmp_path, ("adam",), 2, model__batch_norm=True)
    sweep(tmp_path, ("adam",), 2, batch_size=32)
    table = load_runs(tmp_path)
    with pytest.raises(UserError, match="batch_size"):
        assign_series(table, ["model.batch_norm"])
    sweep(tmp_path / "x", ("adam",), 1, data_digest="d1")
    with pytest.raises(UserError, match="data_digest"):
        assign_series(load_runs(tmp_path))


def test_lines_may_be_a_problem_key(tmp_path: Path) -> None:
    for size in (1, 32, "full"):
        sweep(tmp_path, ("adam",), 2, batch_size=size)
    plan = assign_series(load_runs(tmp_path), lines="batch_size")
    assert plan.facet == []
    assert set(plan.runs["series"]) == {"batch_size=1", "batch_size=32", "batch_size=full"}
    sweep(tmp_path, ("sgd",), 2, batch_size=32)
    plan = assign_series(load_runs(tmp_path), facet=["optimizer.name"], lines="batch_size")
    assert plan.facet == ["optimizer"]
    assert set(plan.runs["series"]) == {"batch_size=1", "batch_size=32", "batch_size=full"}


def test_settings_are_in_the_label(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam",), 2, lr=0.01)
    sweep(tmp_path, ("adam", "sgd"), 2, lr=0.001)
    plan = assign_series(load_runs(tmp_path))
    assert set(plan.runs["series"]) == {"adam lr=0.01", "adam lr=0.001", "sgd"}


def test_many_series_become_panels_by_optimizer(tmp_path: Path) -> None:
    for lr in (0.1, 0.01, 0.001, 0.0001):
        sweep(tmp_path, ("adam", "sgd", "rmsprop"), 1, lr=lr)
    plan = assign_series(load_runs(tmp_path))
    assert plan.facet == ["optimizer"]
    assert plan.sequential
    assert set(plan.runs["series"]) == {"lr=0.1", "lr=0.01", "lr=0.001", "lr=0.0001"}


def test_same_seed_twice_is_never_a_sample(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", extra="x")
    make_run(tmp_path / "c", extra="y")
    assert assign_series(load_runs(tmp_path)).runs["series"].nunique() == 3
    make_run(tmp_path / "d", record={"run_id": "another"})
    with pytest.raises(UserError, match="told apart"):
        assign_series(load_runs(tmp_path))


def test_too_many_panels_are_refused(tmp_path: Path) -> None:
    for size in range(25):
        make_run(tmp_path / str(size), batch_size=size)
    table = load_runs(tmp_path)
    assert len(set(assign_series(table).runs["panel"])) == 25  # a table has no panels
    with pytest.raises(TooManyPanels, match="--facet"):
        curves(table)


def test_problems_of_several_folders_are_compared_only_if_asked_for(tmp_path: Path) -> None:
    sweep(tmp_path / "a", ("adam",), 2, data__subset=300)
    sweep(tmp_path / "b", ("sgd",), 2, data__subset=400)
    table = load_runs(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match=r"what differs: data\.subset.*--facet data\.subset"):
        by_seed(table)
    assert assign_series(table, ["data.subset"]).facet == ["data.subset"]
    assert assign_series(table, lines="data.subset").facet == ["optimizer"]
    with pytest.raises(UserError, match="nothing to pair"):
        compare(by_seed(table, facet=["data.subset"]))
    # one sweep asks for its own panels
    assert assign_series(load_runs(tmp_path)).facet == ["data.subset"]


@pytest.mark.parametrize("facet", ["optimizer", "optimizer.lr", "seed", "run_id"])
def test_a_facet_of_the_optimizers_hides_no_difference_of_problems(tmp_path: Path, facet: str):
    sweep(tmp_path / "a", ("adam",), 1, lr=0.1, data__subset=300)
    make_run(tmp_path / "b", "sgd", 1, lr=0.01, data__subset=900)
    table = load_runs(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match=r"different problems \(what differs: data\.subset\)"):
        by_seed(table, facet=[facet])

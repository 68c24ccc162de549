"""Summaries and intervals: against scipy, and with diverged runs counted in."""

import math
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run, sweep
from scipy import stats as reference

from optbench.analysis.pairing import by_seed
from optbench.analysis.table import load_runs
from optbench.analysis.time_to_target import times
from optbench.common.errors import UserError
from optbench.stats import bootstrap, describe, describe_all, iqm, mean, sd
from optbench.stats.pairwise import compare

VALUES = np.random.default_rng(0).normal(3, 1, 12)


def test_estimates_are_those_of_scipy_and_numpy() -> None:
    assert iqm(VALUES) == pytest.approx(np.sort(VALUES)[3:9].mean())
    assert sd(VALUES) == pytest.approx(np.std(VALUES, ddof=1))
    found = bootstrap(VALUES, "mean", method="bca", resamples=5000, seed=1)
    other = reference.bootstrap((VALUES,), np.mean, n_resamples=5000, rng=2).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.03)
    found = bootstrap(VALUES, "median", resamples=5000)
    other = reference.bootstrap(
        (VALUES,), np.median, method="percentile", n_resamples=5000, rng=2
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.1)
    assert found.n == 12


def test_bootstrap_is_seeded_and_stratified() -> None:
    assert bootstrap(VALUES, seed=3) == bootstrap(VALUES, seed=3)
    # two problems of very different scale: resampled together, their mix would vary as well
    values = np.concatenate([VALUES, 1000 + VALUES])
    strata = ["a"] * 12 + ["b"] * 12
    apart, mixed = (bootstrap(values, "mean", s) for s in (strata, None))
    assert apart.high - apart.low < 2 < 100 < mixed.high - mixed.low
    bca = bootstrap(values, "mean", strata, "bca")
    assert bca.high - bca.low < 2


def test_divergence_is_never_averaged_away() -> None:
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, math.inf])
    assert mean(values) == math.inf
    assert sd(values) == math.inf
    assert iqm(values) == 4.5  # without the two lowest and the two highest
    assert iqm(np.array([1.0, math.inf, math.inf, math.inf])) == math.inf
    line = describe(values)
    assert (line["n"], line["diverged"], line["median"]) == (8, 1, 4.5)
    assert line["mean_high"] == math.inf
    assert 1 <= line["mean_low"] < math.inf
    for method in ("bca", "percentile"):
        assert bootstrap(-values, "median", method=method).value == -4.5


def test_degenerate_samples_have_an_answer_or_are_refused() -> None:
    assert bootstrap([2.0, 2.0, 2.0], "mean")[:3] == (2, 2, 2)
    assert math.isnan(bootstrap([2.0], "mean").low)
    assert math.isnan(sd(np.array([2.0])))
    with pytest.raises(UserError, match="percentile, bca"):
        bootstrap(VALUES, method="t")
    with pytest.raises(UserError, match="NaN"):
        bootstrap([1.0, math.nan])
    with pytest.raises(UserError, match="median, mean, iqm"):
        bootstrap(VALUES, "mode")


def test_by_seed_pairs_the_runs_of_the_table(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 3)
    make_run(tmp_path / "x", "sgd", 3, diverged_at=90)
    for seed in range(2):
        make_run(tmp_path / f"y{seed}", "adam", seed, dataset__name="fashion_mnist")
    table = load_runs(tmp_path)
    frame = by_seed(table, "val_loss")
    assert list(frame) == ["adam", "sgd"]
    assert frame.shape == (6, 2)
    small = frame.loc["dataset=mnist_5k"]
    assert small.loc[3, "sgd"] == math.inf
    assert math.isnan(small.loc[3, "adam"])
    last = table[(table["epoch"] == 10) & (table["optimizer"] == "adam")]
    last = last[(last["seed"] == 1) & (last["dataset.name"] == "mnist_5k")]
    assert small.loc[1, "adam"] == last["val_loss"].item()
    assert by_seed(table, "val_accuracy").loc["dataset=mnist_5k"].loc[3, "sgd"] == -math.inf
    lines = describe_all(frame)
    assert lines["dataset=mnist_5k", "sgd"]["n"] == 4
    assert ("fashion_mnist", "sgd") not in lines
    with pytest.raises(UserError, match="no logged column"):
        by_seed(table, "loss")


def test_runs_of_different_problems_are_paired_within_each_or_refused(tmp_path: Path) -> None:
    for size in (32, 128):
        sweep(tmp_path, ("adam", "sgd"), 3, batch_size=size)
    table = load_runs(tmp_path)
    lines = compare(by_seed(table))
    sizes = {(f"batch_size={size}", 3) for size in (32, 128)}
    assert {(row.problem, row.n) for row in lines.itertuples()} == sizes
    for function in (by_seed, lambda table, facet: times(table, "val_loss", 0.1, facet=facet)):
        with pytest.raises(UserError, match="what differs: batch_size"):
            function(table, facet=["model.name"])
    make_run(tmp_path / "other", "sgd", data_digest="d1")
    with pytest.raises(UserError, match="data_digest"):
        by_seed(load_runs(tmp_path))

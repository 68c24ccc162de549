"""Scores: the closed form against the trapezoid, other benchmarks' rules, times to target."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import sub_command
from made_runs import make_run, sweep

from optbench.analysis.over_problems import time_matrix
from optbench.analysis.pairing import by_seed
from optbench.analysis.table import load_runs
from optbench.analysis.targets import (
    baseline_targets,
    quantile_targets,
)
from optbench.analysis.time_to_target import (
    run_times,
    times,
)
from optbench.common.errors import UserError
from optbench.stats.algoperf import (
    closed_form,
    held_out,
    over_studies,
    profile,
    read_times,
    speed_up,
    trapezoid,
)
from optbench.stats.external_scores import adam_steps, deepobs_overhead, deepobs_speed, track3

main = sub_command("score")

INF = math.inf
TIMES = pd.DataFrame(
    [[10.0, 20.0, INF, INF], [20.0, 10.0, 30.0, INF], [50.0, 15.0, INF, INF]],
    index=["a", "b", "c"],
    columns=["w", "x", "y", "z"],
)
matrix = st.integers(1, 5).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(1, 100) | st.just(INF), min_size=n, max_size=n), min_size=2, max_size=5
    )
)


def test_profile_and_score_are_those_by_hand() -> None:
    shares = profile(TIMES, [1, 1.5, 2, 4, 5])
    assert shares.loc["a"].tolist() == [0.25, 0.25, 0.5, 0.5, 0.5]
    assert shares.loc["c"].tolist() == [0, 0.25, 0.25, 0.25, 0.5]
    # ratios of b: 2, 1, 1, inf
    assert closed_form(TIMES)["b"] == pytest.approx((2 / 3 + 1 + 1) / 4)
    assert closed_form(TIMES)["c"] == pytest.approx((2.5 / 3) / 4)  # 5 times the fastest: nothing
    # AlgoPerf's 100 points: np.trapezoid of the step at 2, by hand from the grid
    grid = np.linspace(1, 4, 100)
    by_hand = np.trapezoid((grid >= 2) * 0.25 + 0.5, grid) / 3
    assert trapezoid(TIMES)["b"] == pytest.approx(by_hand)


@given(matrix)
@settings(max_examples=80, deadline=None)
def test_closed_form_is_the_trapezoid_up_to_its_grid(rows: list[list[float]]) -> None:
    frame = pd.DataFrame(rows, [f"o{i}" for i in range(len(rows))])
    exact, theirs = closed_form(frame), trapezoid(frame)
    assert (exact - theirs).abs().max() <= 0.5 / 99 + 1e-12
    assert (exact - trapezoid(frame, points=20_001)).abs().max() < 1e-4
    pd.testing.assert_series_equal(closed_form(frame[::-1]), exact[::-1])
    pd.testing.assert_series_equal(closed_form(frame * 8), exact)


def test_the_command_prints_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "times.csv"
    TIMES.to_csv(path, na_rep="inf")
    pd.testing.assert_frame_equal(read_times(path), TIMES)
    main([str(path)])
    out = capsys.readouterr().out
    assert out.splitlines()[1].startswith("b")
    assert "0.6667" in out
    assert "n = 4 workloads" in out
    ran = subprocess.run(
        [sys.executable, "-m", "optbench", "score", str(path)],
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0
    assert ran.stdout.decode() == out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no times"),
        ("name,w\n", "holds no times"),
        ("name,w\na,\n", "'' is not a number"),
        ("name,w\na,fast\n", "'fast' is not a number"),
        ("name,w,x\na,1\n", "a has 1 time for 2 workloads"),
        ("name,w,w\na,1,2\n", "two have the same"),
        ("name,w\na,1\na,2\n", "two have the same"),
        ("name,w\na,0\n", "0 is not a time"),
        ("name,w\na,-1\n", "-1 is not a time"),
        ("name,w\na,nan\n", "nan is not a time"),
    ],
)
def test_what_is_no_table_of_times_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "times.csv"
    path.write_text(text)
    assert main([str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "optimizers", "workloads"),
    [
        (",v,w\na,10,20\nb,20,inf\n", "ab", "vw"),
        ("optimizer,1,2\n3,10,20\n4,20,inf\n", "34", "12"),
        ("10,20\n20,inf\n", "12", "12"),
        ("a,10,20\nb,20,inf\n", "ab", "12"),
        ("v,w\n10,20\n20,inf\n", "12", "vw"),
        ("submission,v,w\na,10,20\nb,20,inf\n", "ab", "vw"),
    ],
)
def test_names_may_be_missing(tmp_path: Path, text: str, optimizers: str, workloads: str) -> None:
    (tmp_path / "times.csv").write_text(text)
    times = pd.DataFrame([[10.0, 20.0], [20.0, INF]], [*optimizers], [*workloads])
    pd.testing.assert_frame_equal(read_times(tmp_path / "times.csv"), times)


@pytest.mark.parametrize("form", [np.array, list, pd.DataFrame])
def test_matrices_may_be_of_any_kind(form: Any) -> None:
    times = form([[10.0, 20.0], [20.0, INF]])
    assert closed_form(times).tolist() == [1.0, pytest.approx(1 / 3)]
    assert profile(times, [1.0])[1.0].tolist() == [1.0, 0.0]


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_times(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_times(tmp_path / "binary.csv")


def test_a_study_counts_its_best_trial_and_a_workload_the_median() -> None:
    rows = [("a", "w", s, t) for s, ts in enumerate([(5, 3), (INF, 9), (INF, INF)]) for t in ts]
    trials = pd.DataFrame(rows, columns=["optimizer", "workload", "study", "time"])
    assert over_studies(trials).loc["a", "w"] == 9  # of 3, 9, inf
    with pytest.raises(UserError, match="above 0"):
        over_studies(trials.assign(time=trials["time"].where(trials["time"] != 9)))
    more = pd.DataFrame([("b", "w", 0, 1.0)], columns=trials.columns)
    with pytest.raises(UserError, match="studies: 1 to 3"):
        over_studies(pd.concat([trials, more]))
    with pytest.raises(UserError, match="lack"):
        over_studies(trials.drop(columns="study"))


def test_a_missed_variant_voids_its_workload() -> None:
    frame = pd.DataFrame(
        [[10.0, 10, 7], [12, INF, 7], [50, 2, 7], [15, 50, 7]],
        index=["good", "fails variant", "slow", "slow on variant"],
        columns=["w", "w_variant", "other"],
    )
    counted = held_out(frame, {"w": "w_variant"})
    assert list(counted) == ["w", "other"]
    # "slow" missed 4 x the fastest, so its time on the variant is no yardstick for the others
    assert counted["w"].tolist() == [10, INF, INF, INF]
    with pytest.raises(UserError, match="no workload v"):
        held_out(frame, {"w": "v"})


def test_speed_up_is_the_geometric_mean_of_shared_workloads() -> None:
    frame = TIMES[["w", "x"]]
    assert speed_up(frame, "b", "c") == pytest.approx((math.sqrt(2.5 * 1.5), 2))
    assert speed_up(TIMES[["w", "x", "y"]], "a", "b") == (0.0, 2)
    assert math.isnan(speed_up(TIMES, "a", "b")[0])


def test_deepobs_scores_are_those_by_hand() -> None:
    curves = [[2.0, 1.5, 0.9, 0.8], [2.0, 1.0, 1.2, 0.7], [2.0, 2, 2, 2]]
    # epochs 2 and 1, and a miss in 3 epochs: 4
    assert deepobs_speed(curves, 1.0) == pytest.approx((2 + 1 + 4) / 3)
    assert deepobs_speed(-np.array(curves), -1.0, smaller=False) == pytest.approx(7 / 3)
    assert deepobs_overhead([2.0, 3], [1.0, 1]) == (2.5, 2.0, 3.0, 2)


def test_track3_passes_the_published_record() -> None:
    # the published record of 3148 steps: mean 3.2786 over 16 seeds gives 0.0056
    assert track3([3.2786] * 16).statistic == pytest.approx(0.0056)
    assert track3([3.2786] * 16).passes
    assert track3([3.278] * 4).passes
    assert not track3([3.2781] * 4).passes
    assert not track3([3.2, math.inf]).passes


def test_losses_become_steps_of_adam() -> None:
    steps = [0, 10, 20, 30]
    adam = [[4.0, 3, 1, 2], [4.0, 2, 2, math.inf]]
    found = adam_steps([4.0, 3, 2, 1.5, 1, 0.5, math.inf, math.nan], steps, adam)
    assert found.tolist() == [0, 5, 10, 15, 20, INF, 0, 0]
    assert adam_steps([0.5], steps, adam, strict=False) == 30
    smooth = adam_steps([3.0], steps, adam, decay=0.5)
    assert 5 < smooth[0] < 30
    with pytest.raises(UserError, match="increasing"):
        adam_steps([1.0], [0, 0], [[1.0, 2]])


def test_times_to_target_are_the_first_steps_below_it(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 3)
    make_run(tmp_path / "x", "sgd", 3, diverged_at=200)
    table = load_runs(tmp_path)
    frame = times(table, "val_loss", 0.5)
    for (_, seed), row in frame.iterrows():
        for name in ("adam", "sgd"):
            part = table[(table["seed"] == seed) & (table["optimizer"] == name)]
            hit = part[part["val_loss"] <= 0.5]["step"]
            wanted = INF if seed == 3 or not len(hit) else hit.iloc[0]
            if len(part):
                assert row[name] == wanted
    assert frame["sgd"].iloc[3] == INF  # diverged
    assert math.isnan(frame["adam"].iloc[3])  # not run
    epochs = times(table, "val_loss", 0.5, "epoch")
    pd.testing.assert_frame_equal(epochs * 36, frame)
    assert (times(table, "val_accuracy", 0.5) < INF)["adam"].sum() == 3
    assert (run_times(table, "val_loss", -1) == INF).all()
    scores = closed_form(time_matrix(frame))
    assert scores["adam"] == 1
    with pytest.raises(UserError, match="clock"):
        run_times(table, "val_loss", 1, "hours")
    with pytest.raises(UserError, match="no target"):
        times(table, "val_loss", {"elsewhere": 1.0})


def test_half_of_an_even_number_of_seeds_reaches_the_target() -> None:
    index = pd.MultiIndex.from_product([["p"], range(4)], names=["problem", "seed"])
    frame = pd.DataFrame({"sgd": [4.0, 1.0, 2.0, 3.0]}, index)
    assert baseline_targets(frame, "sgd") == {"p": 3.0}
    assert baseline_targets(frame, "sgd", smaller=False) == {"p": 2.0}


def test_target_rules_are_those_by_hand(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd", "adagrad"), 3)
    frame = by_seed(load_runs(tmp_path), "val_loss")
    (problem,) = frame.index.get_level_values("problem").unique()
    finals = frame.median()
    assert baseline_targets(frame, "sgd") == {problem: finals["sgd"]}
    every = np.sort(frame.to_numpy().ravel())
    assert quantile_targets(frame, 1 / 3) == {problem: every[2]}
    assert quantile_targets(-frame, 1 / 3, smaller=False) == {problem: -every[2]}
    two = frame.rename(columns={"sgd": "adam lr=0.1"})
    two.attrs["owners"] = {"adam lr=0.1": "adam"}
    assert baseline_targets(two, "adam")[problem] == min(finals["sgd"], finals["adam"])
    with pytest.raises(UserError, match="no run of the baseline"):
        baseline_targets(frame, "lion")
    with pytest.raises(UserError, match="quantile"):
        quantile_targets(frame, 0)

"""The verdict of a tuned study, on runs with made-up values."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from in_process import sub_command
from made_runs import make_run

from optbench.analysis import verdict
from optbench.analysis.comparison import split_trials
from optbench.analysis.table import load_runs
from optbench.analysis.trials import trial_scores
from optbench.common.errors import UserError
from optbench.report import verdict_files


def study(folder: Path, seeds: int = 8) -> Path:
    """sgd and adam, three trials each and `seeds` runs of the tuned setting; adam is faster."""
    for name in ("sgd", "adam"):
        for index, lr in enumerate((1e-4, 3e-3, 1.0)):
            where = folder / "trials" / f"{name}{index}"
            make_run(where, name, seed=0, lr=lr, phase="trials", diverged_at=9 if lr == 1 else None)
        for seed in range(1, seeds + 1):
            make_run(folder / "tuned" / f"{name}{seed}", name, seed, lr=3e-3, phase="tuned")
    manifest = {"tuning": {"metric": "val_loss", "pick": "final"}, "warnings": []}
    (folder / "study.json").write_text(json.dumps(manifest))
    return folder


def test_the_leader_by_validation_is_compared_with_each_other_on_the_test_set(tmp_path):
    text, paths = verdict_files.write(study(tmp_path))
    assert all(path.exists() for path in paths)
    found = pd.read_csv(tmp_path / "verdict.csv")
    (row,) = found.itertuples()
    assert (row.a, row.b, row.n) == ("sgd", "adam", 8)
    table = load_runs(tmp_path / "tuned")
    last = table.groupby("run", observed=True).last()
    finals = last.pivot_table(index="seed", columns="optimizer", values="test_loss")
    gaps = finals["sgd"] - finals["adam"]
    assert gaps.min() <= row.difference <= gaps.max()
    assert row.p == pytest.approx(2 / 2**8)
    assert "worse (n = 8" in text


def test_a_study_none_of_whose_trials_came_to_an_end_says_so(tmp_path):
    for name in ("sgd", "adam"):
        make_run(tmp_path / "trials" / name, name, phase="trials", diverged_at=0)
        make_run(tmp_path / "default" / name, name, phase="default", diverged_at=0)
    manifest = {"tuning": {"metric": "val_loss", "pick": "final"}, "warnings": [], "contenders": []}
    (tmp_path / "study.json").write_text(json.dumps(manifest))
    text, _ = verdict_files.write(tmp_path)
    assert "Tuning: no trial came to an end.\n" in text
    assert "No times to target: no tuned run sets a target.\n" in text


def test_too_few_seeds_cannot_tell_and_say_why(tmp_path):
    text, _ = verdict_files.write(study(tmp_path, seeds=4))
    assert "cannot tell (n = 4" in text
    assert "cannot go below" in text


def test_trials_are_scored_by_validation_and_divergence_is_the_worst(tmp_path):
    trials, _ = split_trials(load_runs(study(tmp_path)))
    final = trial_scores(trials, "val_loss", "final")
    best = trial_scores(trials, "val_loss", "best")
    assert (final["score"] == math.inf).sum() == 2
    assert (best["score"] <= final["score"]).all()
    needs = verdict.tuning_needs(trials, "val_loss", "final")
    assert set(needs["optimizer"]) == {"sgd", "adam"}
    assert needs.groupby("optimizer")["trials"].max().tolist() == [3, 3]


def test_another_folder_is_refused(tmp_path, capsys):
    with pytest.raises(UserError, match="not the folder of a tuned study"):
        verdict_files.write(tmp_path)
    assert sub_command("verdict")([str(tmp_path)]) == 1
    assert "optbench: " in capsys.readouterr().err

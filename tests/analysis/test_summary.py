"""Final values: against numbers by hand, with the diverged runs counted in."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import make_run, sweep

from optbench.analysis.final_values import final_values
from optbench.analysis.summary import summary, to_markdown
from optbench.analysis.table import load_runs


def test_summary_counts_divergence_as_worst(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 3)
    make_run(tmp_path / "x0", "rmsprop", 0)
    make_run(tmp_path / "x1", "rmsprop", 1, diverged_at=70)
    make_run(tmp_path / "x2", "rmsprop", 2, diverged_at=90)
    make_run(tmp_path / "x3", "sgd", 3, diverged_at=90)
    table = load_runs(tmp_path)
    frame = summary(table)
    assert list(frame["optimizer"]) == ["adam", "sgd", "rmsprop"]
    assert list(frame["seeds"]) == [3, 4, 3]
    assert list(frame["diverged"]) == [0, 1, 2]
    last = table[(table["optimizer"] == "adam") & (table["epoch"] == 10)]["train_loss"]
    assert frame["train_loss_median"][0] == last.median()
    assert frame["train_loss_min"][0] == last.min()
    last = table[(table["optimizer"] == "sgd") & (table["epoch"] == 10)]["train_loss"]
    assert frame["train_loss_median"][1] == np.median([*last, math.inf])
    assert frame["train_loss_max"][1] == math.inf
    assert frame["train_loss_median"][2] == math.inf
    assert frame["test_accuracy_median"][2] == -math.inf
    assert summary(table, "test_accuracy")["optimizer"].iloc[-1] == "rmsprop"
    text = to_markdown(frame)
    assert "median [minimum, maximum] over n = 3 to 4 seeds" in text
    assert "diverged" in text.splitlines()[4]
    assert len({line.count("|") for line in text.splitlines() if "|" in line}) == 1


def test_a_run_that_diverged_at_once_counts(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    make_run(tmp_path / "bad", "sgd", 2, diverged_at=0)
    table = load_runs(tmp_path)
    losses = [*final_values(table, "train_loss")[2:4], math.inf]
    frame = summary(table)
    assert list(frame["optimizer"]) == ["adam", "sgd"]
    assert frame["train_loss_median"][1] == np.median(losses)
    assert frame["train_loss_max"][1] == math.inf
    assert frame["val_accuracy_min"][1] == -math.inf
    assert math.isfinite(frame["seconds_per_epoch"][1])  # of the runs that took time
    alone = load_runs(tmp_path / "bad")
    assert final_values(alone, "train_loss").tolist() == [math.inf]
    assert final_values(alone, "val_loss").isna().all()  # it may have no such split


def test_final_values_are_missing_without_a_test_split(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", diverged_at=50) / "epochs.csv"
    table = pd.read_csv(path)
    table["test_accuracy"] = ""
    table.to_csv(path, index=False, na_rep="nan")
    table = load_runs(tmp_path)
    assert final_values(table, "test_accuracy").isna().all()
    assert final_values(table, "train_loss").tolist() == [math.inf]
    assert final_values(table, "val_accuracy").tolist() == [-math.inf]
    assert "n/a" in to_markdown(summary(table))


def test_the_table_gives_mean_deviation_and_an_interval_of_the_iqm(tmp_path):
    sweep(tmp_path, ("adam",), 8)
    frame = summary(load_runs(tmp_path))
    line = frame.iloc[0]
    values = final_values(load_runs(tmp_path), "train_loss").to_numpy(dtype=float)
    assert line["train_loss_mean"] == pytest.approx(values.mean())
    assert line["train_loss_sd"] == pytest.approx(values.std(ddof=1))
    assert line["train_loss_iqm"] == pytest.approx(np.sort(values)[2:-2].mean())
    assert line["train_loss_iqm_low"] < line["train_loss_iqm"] < line["train_loss_iqm_high"]
    assert "interval of the IQM" in to_markdown(frame)

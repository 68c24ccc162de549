"""Reading run folders: right numbers, or a named file, and never a silent mistake.

`make_run` and `sweep` make synthetic run folders; the other plot tests use them too.
"""

import copy
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from optbench.errors import UserError
from optbench.table import (
    COLUMNS,
    check_length,
    final_values,
    layout,
    load_runs,
    read_rows,
    summary,
    to_markdown,
    where,
)

CONFIG: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [256, 128], "activation": "relu", "batch_norm": False},
    "dataset": {"name": "mnist_5k"},
    "preprocessing": "standardize",
    "data": {"val_size": 0.1, "split_seed": 0, "subset": None},
    "loss": {"name": "cross_entropy"},
    "initializer": {"name": "default"},
    "schedule": {"name": "constant"},
    "batch_size": 128,
    "epochs": 10,
    "steps": None,
    "precision": "float32",
    "decay_biases_and_norms": True,
}
PROBLEM = ("model", "dataset", "preprocessing", "data", "loss", "initializer", "batch_size")
PROBLEM += ("epochs", "steps", "precision")
SPEED = {"sgd": 0.25, "momentum": 0.6, "nesterov": 0.65, "adagrad": 0.5, "rmsprop": 0.75}
SPEED |= {"adadelta": 0.55, "adam": 0.9}
SEVEN = tuple(SPEED)


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def set_key(tree: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    for name in path:
        tree = tree.setdefault(name, {})
    tree[last] = value


def make_run(
    folder: Path,
    name: str = "adam",
    seed: int = 0,
    lr: float = 0.001,
    diverged_at: int | None = None,
    every: int = 1,
    data_digest: str = "d0",
    finished: str = "2026-01-01T00:00:00+00:00",
    record: dict[str, Any] | None = None,
    **keys: object,
) -> Path:
    """One run folder with made-up curves. `keys`: config keys with "__" for the dot. `every`:
    a row of steps.csv per that many steps."""
    config = copy.deepcopy(CONFIG) | {"seed": seed}
    config["optimizer"] = {"name": name, "_target_": f"torch.optim.{name}", "lr": lr}
    for key, value in keys.items():
        set_key(config, key.replace("__", "."), value)
    problem = {key: config[key] for key in PROBLEM} | {"data_digest": data_digest}
    epochs, per_epoch = config["epochs"], 36
    random = np.random.default_rng(int(digest([config, problem]), 16))
    speed = SPEED.get(name, 0.4) * math.exp(-0.15 * math.log10(lr / 0.003) ** 2)
    speed *= 1.5 if config["model"]["batch_norm"] else 1.0
    step = np.arange(epochs * per_epoch + 1)
    loss = 2.3 * (1 + step / 6) ** (-speed * 0.9) * np.exp(random.normal(0, 0.04) * step**0.2)
    if diverged_at is not None:
        step = step[: diverged_at + 1]
        loss = loss[: diverged_at + 1] * np.exp(np.maximum(0, step - diverged_at + 40) * 0.4)
        loss[-1] = math.nan
    seconds = step * 0.01 * (1 + random.random() * 0.05)
    rows = [index for index in step if index % per_epoch == 0 or index == step[-1]]
    table = pd.DataFrame(
        {
            "epoch": step[rows] / per_epoch,
            "step": step[rows],
            "train_loss": loss[rows],
            "train_accuracy": 1 - np.clip(loss[rows], 0, 2.3) / 2.6,
            "running_loss": loss[rows] * 1.1,
            "val_loss": loss[rows] + 0.05,
            "val_accuracy": 0.98 - np.clip(loss[rows], 0, 2.3) / 2.6,
            "test_loss": loss[rows] + 0.06,
            "test_accuracy": 0.97 - np.clip(loss[rows], 0, 2.3) / 2.6,
            "seconds": seconds[rows],
            "total_seconds": seconds[rows] * 1.3,
        }
    )
    folder.mkdir(parents=True)
    text = table.to_csv(index=False, na_rep="nan").splitlines()
    cells = text[1].split(",")
    cells[4] = ""  # no running mean before the first step
    text[1] = ",".join(cells)
    (folder / "epochs.csv").write_text("\n".join(text) + "\n")
    noisy = loss * np.exp(random.normal(0, 0.15, len(loss)))
    steps = pd.DataFrame({"step": step, "epoch": step / per_epoch, "train_loss": noisy})
    steps["lr"], steps["seconds"] = lr, seconds
    steps[steps["step"] % every == 0].to_csv(folder / "steps.csv", index=False, na_rep="nan")
    run = {
        "format": 1,
        "run_id": digest([config, problem]),
        "problem_hash": digest(problem),
        "name": name,
        "seed": seed,
        "status": "completed" if diverged_at is None else "diverged",
        "error": None,
        "diverged_at_step": diverged_at,
        "config": config,
        "problem": problem,
        "versions": {},
        "device": "cpu",
        "git_commit": None,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": finished,
        "summary": {},
    }
    (folder / "run.json").write_text(json.dumps(run | (record or {})))
    return folder


def sweep(folder: Path, names: tuple[str, ...] = SEVEN, seeds: int = 3, **keys: Any) -> Path:
    start = sum(1 for _ in folder.glob("*"))
    for index, (name, seed) in enumerate((n, s) for n in names for s in range(seeds)):
        make_run(folder / f"{start + index:03d}", name, seed, **keys)
    return folder


def test_columns_and_values(tmp_path: Path) -> None:
    make_run(tmp_path / "deep" / "er" / "a", seed=4)
    table = load_runs(tmp_path)
    assert list(table.columns[:7]) == [
        "run",
        "run_id",
        "problem",
        "status",
        "seed",
        "optimizer",
        "device",
    ]
    assert list(table.columns[-11:]) == COLUMNS["epochs"]
    first = table.iloc[0]
    assert first["run"] == str(tmp_path / "deep" / "er" / "a")
    assert (first["optimizer"], first["seed"], first["optimizer.lr"]) == ("adam", 4, 0.001)
    assert first["model.hidden"] == "[256, 128]"
    assert first["model.batch_norm"] is False
    assert first["data.subset"] == "null"
    assert first["data_digest"] == "d0"
    assert math.isnan(first["running_loss"])
    direct = pd.read_csv(tmp_path / "deep" / "er" / "a" / "epochs.csv")
    pd.testing.assert_frame_equal(table[COLUMNS["epochs"]], direct[COLUMNS["epochs"]])
    assert table.attrs["problems"] == []
    steps = load_runs(tmp_path / "deep" / "er" / "a", rows="steps")  # a run itself
    assert len(steps) == 361
    assert "test_loss" not in steps


def test_overlapping_folders_count_once(tmp_path: Path) -> None:
    make_run(tmp_path / "s" / "a")
    assert len(load_runs(tmp_path, tmp_path / "s", tmp_path / "s" / "a")) == 11


def test_newest_of_one_run_id_counts(tmp_path: Path) -> None:
    make_run(tmp_path / "a", finished="2026-03-01T00:00:00+01:00")
    make_run(tmp_path / "b", finished="2026-02-01T00:00:00")
    make_run(tmp_path / "c", finished="nonsense")
    make_run(tmp_path / "d", record={"status": "interrupted", "finished": None})
    table = load_runs(tmp_path)
    assert set(table["run"]) == {str(tmp_path / "a")}
    assert table.attrs["problems"] == []
    (tmp_path / "a" / "epochs.csv").write_text("")
    table = load_runs(tmp_path)
    assert set(table["run"]) == {str(tmp_path / "b")}
    assert len(table.attrs["problems"]) == 1


GOOD = "epoch,step,train_loss,train_accuracy,running_loss,val_loss,val_accuracy,"
GOOD += "test_loss,test_accuracy,seconds,total_seconds\n"
ROW = "0,0,2,0.1,,2,0.1,2,0.1,0,0\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        (GOOD, "no rows"),
        (GOOD + ROW + "1,36,1.5,0.2", "middle of its last line"),
        (GOOD + ROW + "1,36,1.5\n", "3 fields instead of 11"),
        (GOOD + ROW + ROW.strip() + ",7\n", "12 fields"),
        (GOOD.replace("train_loss", "train_lozz") + ROW, "lacks the column(s) train_loss"),
        (GOOD.replace("val_loss", "test_loss") + ROW, "lacks the column(s) val_loss"),
        (GOOD + ROW.replace("2", "two"), "not a number"),
        (GOOD + ROW.replace("0.1", "1_0"), "not a number"),
        (GOOD + ROW.replace("0,0,2", "0,0,", 1), "empty cell"),
        (GOOD + ROW + ROW, "count upwards"),
        (GOOD + ROW.replace("0,0,2", "0,0.5,2", 1), "count upwards"),
        (GOOD + ROW.replace("0,0,2", "inf,0,2", 1), "not finite"),
        (GOOD + ROW, "ends at epoch 0 of 10"),
        (b"\xff\xfe" + GOOD.encode(), "UTF-8"),
        (GOOD.encode() + b"0,0,\x00,0.1,,2,0.1,2,0.1,0,0\n", "not a number"),
        ("{}\n", "lacks the column"),
        (None, "directory"),
    ],
)
def test_damaged_csv_is_named(tmp_path: Path, content: str | bytes | None, words: str) -> None:
    make_run(tmp_path / "good")
    path = make_run(tmp_path / "bad", seed=1) / "epochs.csv"
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = load_runs(tmp_path)
    assert set(table["run"]) == {str(tmp_path / "good")}
    (problem,) = table.attrs["problems"]
    assert problem.startswith(f"{path}: ")
    assert words in problem.lower() or words in problem
    assert "\n" not in problem
    with pytest.raises(UserError, match=r"bad.epochs\.csv"):
        load_runs(tmp_path / "bad")


def test_a_file_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a") / "epochs.csv"
    whole = path.read_bytes()
    for end in range(0, len(whole), 3):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError):  # noqa: PT011
            check_length({"config": CONFIG}, read_rows(path, COLUMNS["epochs"]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"[1]", "object"),
        (b"\xff", "UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"format": 1}', "run_id"),
        (b'{"format": 2}', "format 2"),
        (b"{}", "format None"),
    ],
)
def test_damaged_run_json_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    make_run(tmp_path / "good")
    path = make_run(tmp_path / "bad", seed=1) / "run.json"
    path.write_bytes(content)
    (problem,) = load_runs(tmp_path).attrs["problems"]
    assert problem.startswith(f"{path}: ")
    assert words in problem


def test_unfinished_and_failed_are_named(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    make_run(tmp_path / "r", seed=1, record={"status": "running"})
    make_run(tmp_path / "i", seed=2, record={"status": "interrupted"})
    make_run(tmp_path / "f", seed=3, record={"status": "failed", "error": "out of memory"})
    (make_run(tmp_path / "n", seed=4) / "run.json").unlink()
    problems = load_runs(tmp_path).attrs["problems"]
    assert len(problems) == 4
    text = "\n".join(problems)
    assert "status running" in text
    assert "status interrupted" in text
    assert "out of memory" in text
    assert "no run.json" in text


def test_nothing_to_read(tmp_path: Path) -> None:
    for folders in ([], [tmp_path], [tmp_path / "missing"], [Path(__file__)]):
        with pytest.raises(UserError, match=r"run\.json"):
            load_runs(*folders)
    with pytest.raises(UserError, match="epochs, steps"):
        load_runs(tmp_path, rows="hours")


def test_where(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    sweep(tmp_path, ("adam",), 1, lr=0.01, model__batch_norm=True)
    table = load_runs(tmp_path)
    assert where(table, ["optimizer=adam", "optimizer.lr=1e-3"])["run"].nunique() == 2
    assert where(table, ["optimizer=adam", "optimizer=sgd"])["run"].nunique() == 5
    assert len(set(where(table, ["model.batch_norm=True"])["run"])) == 1
    for bad, words in (
        ("optimizer", "KEY=VALUE"),
        ("optimizer=x", "adam, sgd"),
        ("lr=1", "optimizer.lr"),
    ):
        with pytest.raises(UserError, match=words):
            where(table, [bad])


def test_problems_get_panels_by_what_differs(tmp_path: Path) -> None:
    for norm in (False, True):
        for name in ("default", "he"):
            # gain goes with the name: it must not become a third key
            keys = {"initializer__name": name, "initializer__gain": len(name)}
            sweep(tmp_path, ("adam", "sgd"), 1, model__batch_norm=norm, **keys)
    plan = layout(load_runs(tmp_path))
    assert sorted(plan.facet) == ["initializer.name", "model.batch_norm"]
    assert len(set(plan.runs["panel"])) == 4
    assert set(plan.runs["series"]) == {"adam", "sgd"}


def test_mixing_problems_is_refused(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam",), 2)
    sweep(tmp_path, ("adam",), 2, model__batch_norm=True)
    sweep(tmp_path, ("adam",), 2, batch_size=32)
    table = load_runs(tmp_path)
    with pytest.raises(UserError, match="batch_size"):
        layout(table, ["model.batch_norm"])
    sweep(tmp_path / "x", ("adam",), 1, data_digest="d1")
    with pytest.raises(UserError, match="data_digest"):
        layout(load_runs(tmp_path))


def test_lines_may_be_a_problem_key(tmp_path: Path) -> None:
    for size in (1, 32, "full"):
        sweep(tmp_path, ("adam",), 2, batch_size=size)
    plan = layout(load_runs(tmp_path), lines="batch_size")
    assert plan.facet == []
    assert set(plan.runs["series"]) == {"batch_size=1", "batch_size=32", "batch_size=full"}
    sweep(tmp_path, ("sgd",), 2, batch_size=32)
    plan = layout(load_runs(tmp_path), facet=["optimizer.name"], lines="batch_size")
    assert plan.facet == ["optimizer"]
    assert set(plan.runs["series"]) == {"batch_size=1", "batch_size=32", "batch_size=full"}


def test_settings_are_in_the_label(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam",), 2, lr=0.01)
    sweep(tmp_path, ("adam", "sgd"), 2, lr=0.001)
    plan = layout(load_runs(tmp_path))
    assert set(plan.runs["series"]) == {"adam lr=0.01", "adam lr=0.001", "sgd"}


def test_many_series_become_panels_by_optimizer(tmp_path: Path) -> None:
    for lr in (0.1, 0.01, 0.001, 0.0001):
        sweep(tmp_path, ("adam", "sgd", "rmsprop"), 1, lr=lr)
    plan = layout(load_runs(tmp_path))
    assert plan.facet == ["optimizer"]
    assert plan.sequential
    assert set(plan.runs["series"]) == {"lr=0.1", "lr=0.01", "lr=0.001", "lr=0.0001"}


def test_same_seed_twice_is_never_a_sample(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", extra="x")
    make_run(tmp_path / "c", extra="y")
    assert layout(load_runs(tmp_path)).runs["series"].nunique() == 3
    make_run(tmp_path / "d", record={"run_id": "another"})
    with pytest.raises(UserError, match="told apart"):
        layout(load_runs(tmp_path))


def test_too_many_panels(tmp_path: Path) -> None:
    for size in range(25):
        make_run(tmp_path / str(size), batch_size=size)
    with pytest.raises(UserError, match="--facet"):
        layout(load_runs(tmp_path))


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


def test_final_values_without_a_test_split(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", diverged_at=50) / "epochs.csv"
    table = pd.read_csv(path)
    table["test_accuracy"] = ""
    table.to_csv(path, index=False, na_rep="nan")
    table = load_runs(tmp_path)
    assert final_values(table, "test_accuracy").isna().all()
    assert final_values(table, "train_loss").tolist() == [math.inf]
    assert final_values(table, "val_accuracy").tolist() == [-math.inf]
    assert "n/a" in to_markdown(summary(table))

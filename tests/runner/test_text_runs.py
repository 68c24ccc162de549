"""Runs on texts by the program: the files, resumption, sweeps, and mistakes in words."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from in_process import call

from optbench import losses
from optbench.datasets import austen
from optbench.datasets.prepare import prepare
from optbench.formats.groups import config_folder
from optbench.initializers import initialize
from optbench.models import bigram, gpt, lstm
from optbench.problem import Problem
from optbench.report.repeat_command import command
from optbench.sweeps import shared_dataset
from optbench.training.loop import Training

SMALL_TEXT = ["dataset.context=16", "data.subset=60", "data.val_size=8", "batch_size=16"]
SMALL_GPT = ["model.layers=1", "model.width=16", "model.heads=1"]
SMALL = [*SMALL_TEXT, *SMALL_GPT, "epochs=1", "num_threads=1", "quiet=true", "device=cpu"]
TEXT = "It is a truth universally acknowledged, that a single man must be in want.\n" * 40


@pytest.fixture
def program(monkeypatch, capfd, tmp_path):
    """The program in this process: exit status, standard error, and the runs' folders."""
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text(TEXT)

    def run(*words: str) -> tuple[int, str, list[Path]]:
        status = call(monkeypatch, *words)
        found = sorted((tmp_path / "results").rglob("run.json"), key=os.path.getmtime)
        return status, capfd.readouterr().err, [path.parent for path in found]

    return run


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def rows_of(folder: Path, name: str = "epochs") -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def test_a_run_of_austen_gpt_has_bits_per_character(program):
    status, _, (folder,) = program("problem=austen_gpt", *SMALL, "diagnostics=layers")
    assert status == 0
    record, rows = record_of(folder), rows_of(folder)
    assert record["status"] == "completed"
    assert record["metrics"] == ["bits_per_character"]
    for part in ("train", "val"):
        nats, bits = (float(rows[-1][f"{part}_{m}"]) for m in ("loss", "bits_per_character"))
        assert bits == pytest.approx(nats / 0.6931472, rel=1e-4)
    assert record["summary"]["test_bits_per_character"] > 0
    kinds = {row["kind"] for row in rows_of(folder, "layers")}
    assert {"embedding", "layernorm", "linear", "gelu", "all"} <= kinds


@pytest.mark.parametrize(
    "words",
    [
        ["model=lstm", "model.hidden=8", "diagnostics=layers"],
        ["model=lstm", "model.cell=gru", "model.hidden=8", "model.dropout=0.1", "model.layers=2"],
        ["model=bigram", "dataset.unit=bytes"],
        ["model=gpt", *SMALL_GPT, "dataset.unit=bytes", "precision=bfloat16", "optimizer=muon"],
        ["model=gpt", *SMALL_GPT, "initializer=orthogonal", "precision=float64", "batch_size=full"],
    ],
)
def test_a_text_of_ones_own_is_trained_on(program, words):
    chosen = [word for word in SMALL_TEXT if word.split("=")[0] not in str(words)]
    status, err, (folder,) = program(
        "dataset=text", "data.path=mine.txt", *chosen, "epochs=1", "num_threads=1", *words
    )
    assert (status, "Traceback" in err) == (0, False)
    assert record_of(folder)["status"] == "completed"


@pytest.mark.parametrize(
    "words",
    [
        ["problem=modular_addition", "dataset.modulus=5", *SMALL_GPT],
        ["problem=associative_recall", "dataset.train=40", "dataset.test=8", "data.val_size=8"],
        ["problem=deep_linear", "optimizer=sgd", "optimizer.lr=0.1"],
    ],
)
def test_synthetic_problems_run(program, words):
    epochs = "epochs=20" if "deep" in words[0] else "epochs=1"
    status, _, (folder,) = program(*words, epochs, "num_threads=1", "quiet=true")
    assert status == 0
    rows = rows_of(folder)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"]) + 0.1


def test_the_bytes_of_a_text_are_its_identity_and_not_its_path(program, tmp_path):
    words = ["dataset=text", "model=bigram", *SMALL_TEXT, "epochs=1", "num_threads=1", "quiet=true"]
    _, _, (first,) = program(*words, "data.path=mine.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "same.txt").write_text(TEXT)
    _, _, again = program(*words, "data.path=folder")
    assert again == [first]  # known, and not trained again
    (tmp_path / "mine.txt").write_text(TEXT.replace("single", "double"))
    _, _, both = program(*words, "data.path=mine.txt")
    assert len(both) == 2
    assert "path" not in json.dumps(record_of(first)["problem"])
    told = command(record_of(first)["config"], config_folder())
    assert "data.path=mine.txt" in told
    assert "dataset=text" in told


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["dataset=text", "model=gpt"], "data.path=FILE"),
        (["data.path=mine.txt"], "add dataset=csv, text or image_folder"),
        (["model=gpt"], "model=gpt needs tokens"),
        (["dataset=austen"], "take model=gpt, lstm or bigram"),
        (["problem=austen_gpt", "preprocessing=scale"], "preprocessing=integers"),
        (["problem=austen_gpt", "engine=compiled_mlp"], "does not serve this run"),
        (["problem=austen_gpt", "augment.crop=2"], "augment is for images"),
    ],
)
def test_mistakes_are_told_in_words(program, words, named):
    if any(word.startswith("engine=") for word in words):
        pytest.importorskip("optbench.engines", reason="no engines")
    status, err, _ = program(*words, "num_threads=1", "quiet=true")
    assert status != 0
    assert named in err
    assert "Traceback" not in err


def small_problem(factory, **settings):
    data = prepare(austen(16), preprocessing="integers", subset=80, val_size=8)
    return Problem(
        data, factory, losses.cross_entropy, initialize, batch_size=16, epochs=2, **settings
    )


@pytest.mark.parametrize(
    "factory",
    [
        partial(gpt, layers=2, width=16, heads=2, dropout=0.2),
        partial(gpt, layers=1, width=16, heads=1, positions="rotary", norm="rmsnorm"),
        partial(lstm, hidden=8, layers=2, dropout=0.2),
        partial(lstm, hidden=8, cell="gru"),
        bigram,
    ],
)
@pytest.mark.parametrize("layers", [False, True])
def test_a_run_resumes_bit_for_bit(factory, layers):
    problem, build = small_problem(factory), partial(torch.optim.Adam, lr=0.01)

    def made():
        return Training(problem, build, seed=1, layers=layers, log_every=1)

    whole = made()
    rows = [update.epoch for update in whole.updates() if update.epoch]
    first = made()
    list(first.updates(stop=lambda: first.step >= 0))
    assert 0 < first.step < problem.total_steps
    rest = made()
    rest.load_state_dict(first.state_dict())
    last = list(rest.updates())[-1].epoch
    assert {k: v for k, v in last.items() if "seconds" not in k} == {
        k: v for k, v in rows[-1].items() if "seconds" not in k
    }
    for a, b in zip(rest.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_shared_text_trains_like_an_own_one():
    problem = small_problem(partial(gpt, layers=1, width=16, heads=1))
    kept = shared_dataset.share(problem.dataset)
    shared = shared_dataset.find(shared_dataset.place(kept))
    again = Problem(
        shared, problem.model, problem.loss, problem.initializer, batch_size=16, epochs=2
    )
    ends = []
    for each in (problem, again):
        last = list(Training(each, partial(torch.optim.Adam, lr=0.01)).updates())[-1].epoch
        ends.append({k: v for k, v in last.items() if "seconds" not in k})
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_sweep_in_two_processes_has_a_figure_and_a_verdict(program, tmp_path):
    status, _, folders = program(
        "-m", "problem=austen_gpt", *SMALL, "optimizer=sgd,adam", "optimizer.lr=0.01",
        "seed=range(6)", "hydra/launcher=workers", "hydra.launcher.workers=2", "name=s",
        "candidate=adam", "figure.y=val_bits_per_character",
    )  # fmt: skip
    assert status == 0
    assert len(folders) == 12
    made = {path.name for path in (tmp_path / "results").rglob("*") if path.is_file()}
    assert {"verdict.json", "summary.csv", "val_bits_per_character-epoch.png"} <= made
    one, _, known = program(
        "problem=austen_gpt", *SMALL, "optimizer=adam", "optimizer.lr=0.01", "force=true"
    )
    assert one == 0
    same = [f for f in folders if record_of(f)["run_id"] == record_of(known[-1])["run_id"]]
    assert rows_of(same[0]) == rows_of(known[-1])


@pytest.mark.slow
def test_a_tuned_study_of_a_text_ends_in_a_verdict(program, tmp_path):
    status, err, _ = program(
        "-m", "problem=austen_gpt", *SMALL, "hydra/sweeper=tuned", "optimizer=sgd,adam",
        "tuning.trials=2", "tuning.repeats=1", "tuning.widenings=0", "seeds=1",
        "tuning.metric=val_bits_per_character", "hydra/launcher=basic", "name=t",
    )  # fmt: skip
    assert (status, "Traceback" in err) == (0, False)
    assert list((tmp_path / "results").rglob("study.json"))


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path):
    words = [
        sys.executable, "-m", "optbench", "problem=austen_gpt", *SMALL, "epochs=40", "log.steps=1",
        "model.dropout=0.1", "checkpoint_seconds=0", "seed=3",
    ]  # fmt: skip
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        for _ in range(2 if folder.name == "killed" else 0):
            process = subprocess.Popen([*words, f"results_dir={folder}"])
            until = time.monotonic() + 60
            while not list(folder.rglob("*.pt")) and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(0.3)
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run([*words, f"results_dir={folder}"], check=True)
    runs = [path.parent for folder in folders for path in folder.rglob("run.json")]
    assert len(runs) == 2
    for name in ("epochs", "steps"):
        assert rows_of(runs[0], name) == rows_of(runs[1], name)

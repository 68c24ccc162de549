"""The problems of sequences, lines, clips and two outputs, by the command line, from end to end."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from composed import resolved
from in_process import call

from optbench.analysis.table import load_runs
from optbench.config import build
from optbench.runner import run as experiment

# the data's sizes are changed by subset alone, so that each problem stays what its YAML says
SMALL = ["data.subset=40", "batch_size=12", "epochs=2", "num_threads=1", "log.steps=1"]
METRICS = {
    "digit_lines_ctc": "label_error_rate",
    "moving_digits_cnn3d": "accuracy",
    "rows_lstm": "accuracy",
    "adding_lstm": "rmse",
    "digit_and_parity": "parity_accuracy",
}
SIZES = {
    "digit_lines_ctc": [
        *["dataset.train=40", "dataset.test=40", "dataset.longest=4"],
        *["model.channels=[2,2,2]", "model.hidden=4"],
    ],
    "moving_digits_cnn3d": [
        *["dataset.train=40", "dataset.test=40", "dataset.frames=4", "dataset.size=16"],
        "model.channels=[2,3]",
    ],
    "rows_lstm": ["model.hidden=6"],
    "adding_lstm": ["model.hidden=6"],
    "digit_and_parity": ["model.hidden=[8]"],
}


def words(problem, folder):
    return [f"problem={problem}", *SMALL, *SIZES[problem], f"results_dir={folder}", "quiet=true"]


def rows(run: Path) -> list[dict[str, str]]:
    found = []
    for path in sorted(run.glob("*.csv")):
        with path.open(newline="") as file:
            found += [
                {k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)
            ]
    return found


@pytest.mark.parametrize("problem", METRICS)
def test_a_problem_is_trained_resumed_and_read(problem, tmp_path, monkeypatch):
    config = resolved(*words(problem, tmp_path / "parts"))
    planned = experiment.plan(config, tmp_path / "parts" / "runs")
    monkeypatch.setattr("optbench.training.loop.SYNC_EVERY", 1)
    steps = iter(range(1, 99))
    stopped = experiment.complete(planned, lambda update: None, lambda: next(steps) >= 5)
    assert stopped.status == "interrupted"
    resumed = experiment.run(config, tmp_path / "parts" / "runs")
    assert resumed.folder == stopped.folder
    whole = experiment.run(
        resolved(*words(problem, tmp_path / "whole")), tmp_path / "whole" / "runs"
    )
    assert rows(resumed.folder) == rows(whole.folder)
    table = load_runs(whole.folder)
    assert table[f"test_{METRICS[problem]}"].notna().all()
    assert list(table["epoch"]) == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("problem", METRICS)
def test_one_command_sweeps_draws_and_judges(problem, tmp_path, monkeypatch):
    asked = [*words(problem, tmp_path), "epochs=1", "name=made", "hydra/launcher=basic"]
    asked += ["optimizer=sgd,adam", "seed=range(6)", "candidate=adam"]
    assert call(monkeypatch, "-m", *asked) == 0
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert {"summary.csv", "train_loss-epoch.png", "verdict.json"} <= names
    head = (tmp_path / "made" / "summary.csv").read_text("utf-8").splitlines()[0]
    if problem != "digit_and_parity":  # whose summary has the mean accuracy
        assert f"test_{METRICS[problem]}_median" in head
        assert f"test_{METRICS[problem]}-epoch.png" in names
    assert "adam" in (tmp_path / "made" / "verdict.json").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["digit_lines_ctc", "moving_digits_cnn3d", "rows_lstm"])
def test_a_killed_command_resumes_bit_for_bit_within_the_memory(problem, tmp_path):
    """A SIGKILL after the first row; the same command ends as an undisturbed one, in 1.5 GiB."""
    asked = [w for w in words(problem, tmp_path / "ended") if w != "quiet=true"]
    asked += ["epochs=6", "checkpoint_seconds=0"]
    command = [sys.executable, "-m", "optbench", *asked]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 2" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL
    measured = [sys.executable, "-c", MEASURED, *asked]
    done = subprocess.run(measured, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.splitlines()[-1]) < 1.5 * 2**20  # KiB
    whole = [w.replace("/ended", "/whole") for w in asked]
    subprocess.run([sys.executable, "-m", "optbench", *whole], env=environment, check=True)
    (killed,) = (tmp_path / "ended" / "runs").iterdir()
    (other,) = (tmp_path / "whole" / "runs").iterdir()
    assert json.loads((killed / "run.json").read_text())["resumed"]
    assert rows(killed) == rows(other)


MEASURED = """
import resource, sys
from optbench import __main__ as cli
try:
    cli.main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["problem=digit_lines_ctc", "model.channels=[2,2,2,2,2,2]"], "outputs have 2. Let the"),
        (["problem=rows_lstm", "dataset=mnist_5k"], r"needs tokens .time,., or sequences"),
        (["problem=digit_lines_ctc", "dataset=mnist_rows"], "needs images of lines"),
        (["problem=moving_digits_cnn3d", "dataset=mnist_5k"], "needs clips"),
        (["problem=adding_lstm", "loss=cross_entropy"], "the targets are real numbers"),
        (["problem=digit_and_parity", "loss=mse"], "loss=mse is for other targets.*several"),
        (["problem=digit_and_parity", "loss.losses=[mse]"], "has 1 losses"),
        (["problem=digit_and_parity", "loss.losses=[mse,no]"], "loss.losses must be one of"),
    ],
)
def test_what_does_not_fit_is_said_before_a_run(changes, words, tmp_path, monkeypatch, capsys):
    asked = ["data.subset=40", f"results_dir={tmp_path}", "num_threads=1", *changes]
    assert call(monkeypatch, *asked) == 1
    assert re.search(words, " ".join(capsys.readouterr().err.split()))
    assert not list(tmp_path.glob("runs/*/run.json"))


def test_losses_of_parts_are_named_on_the_command_line(tmp_path):
    words = ["problem=digit_and_parity", "loss.losses=[cross_entropy,nll]", *SMALL]
    config = resolved(*words, "model.hidden=[4]")
    problem = build.build_problem(config, build.load_dataset(config))
    usual = build.build_problem(
        config | {"loss": resolved("loss=several")["loss"]}, problem.dataset
    )
    outputs = {"digit": problem.dataset.train_x[:9, 0, :1, 4:14].flatten(1)}
    outputs["parity"] = outputs["digit"][:, :2]
    y = problem.dataset.train_y[:9].plain()
    assert problem.loss(outputs, y).item() == pytest.approx(usual.loss(outputs, y).item())

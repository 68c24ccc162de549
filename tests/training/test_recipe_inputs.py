"""Wrong recipes are refused before anything is trained, with what is allowed."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from composed import configuration
from in_process import call
from torch.optim import LBFGS, SGD

from optbench import load_runs, losses
from optbench.common.errors import UserError
from optbench.config import validate
from optbench.datasets import prepare
from optbench.initializers import initialize
from optbench.models import mlp
from optbench.problem import Problem
from optbench.training.loop import Training
from optbench.training.recipes import Recipe
from optbench.training.recipes.endings import EarlyStopping, StopAt

SMALL = (
    "dataset=wine", "model.hidden=[4]", "epochs=3", "batch_size=16", "log.steps=1", "engine=plain",
    "quiet=true",
)  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The program with small settings: its exit status, and its words on both streams."""
    monkeypatch.chdir(tmp_path)

    def call_it(*words: str) -> tuple[int, str]:
        code = call(monkeypatch, *SMALL, *words)
        told = capsys.readouterr()
        return code, told.out + told.err

    return call_it


def record() -> dict:
    paths = sorted(Path("results").rglob("run.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(paths[-1].read_text("utf-8"))


WRONG = {
    "clip_norm=0": "clip_norm must be a number above 0, or null (None) for none, not 0",
    "clip_value=-1": "clip_value must be a number above 0, or null (None) for none, not -1",
    "accumulate=0": "accumulate must be a whole number of at least 1",
    "averaging.kind=mean": "averaging.kind must be one of ema, tail, swa, not 'mean'",
    "averaging=ema": "averaging is a group of keys such as averaging.kind, not 'ema'",
    "averaging.decay=1": "averaging.decay=1 would keep the first weights for ever",
    "averaging.decay=1.0": "averaging.decay=1 would keep the first weights for ever",
    "averaging.start=1.5": "averaging.start must be at least 0 and below 1",
    "early_stopping.patience=0": "early_stopping.patience must be a whole number of at least 1",
    "stop_at.value=low": "stop_at.value must be a number, or null, not 'low'",
    "budget_seconds=0": "budget_seconds must be a number above 0",
    "augment.crop=-1": "augment.crop must be a whole number of pixels",
    "augment.flip=1": "augment.flip must be true or false, not 1",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_values_are_refused_with_what_is_allowed(words):
    with pytest.raises(UserError) as error:
        validate.check(configuration(words))
    assert WRONG[words] in str(error.value)


MISFITS = {
    "accumulate=3": "accumulate=3 does not divide the batch of 16 examples",
    "early_stopping.patience=2 data.val_size=0": "early_stopping.metric is val_loss, and there is "
    "no validation set: set data.val_size above 0, or take train_loss",
    "early_stopping.patience=2 early_stopping.metric=test_loss": "the test set may not decide",
    "early_stopping.patience=2 early_stopping.metric=averaged_val_loss": "no weights are averaged",
    "stop_at.value=90 stop_at.metric=val_accuracy": "90 % is stop_at.value=0.9",
    "stop_at.value=1 stop_at.metric=val_los": "Did you mean val_loss?",
    "stop_at.value=1 data.val_size=0": "stop_at.metric is val_loss, and there is no validation set",
    "budget_seconds=5 steps=10 epochs=null": "budget_seconds=5 stands beside steps=10",
    "augment.flip=true": "augment is for images",
    "precision=float16 device=cpu": "precision=float16 scales the loss for GPUs",
    "engine=compiled_mlp clip_norm=1": "gradients are clipped",
    "engine=compiled_mlp averaging.kind=ema": "weights are averaged after a step",
    "engine=compiled_gradients accumulate=2": "accumulate has micro-batches",
}


@pytest.mark.parametrize("words", MISFITS)
def test_misfits_are_refused_before_any_training(words, run):
    if "engine=" in words:
        pytest.importorskip("optbench.engines", reason="no engines")
    code, told = run(*words.split())
    assert code == 1
    assert MISFITS[words] in told.replace("\n", " ")
    assert "Traceback" not in told
    assert not list(Path("results").rglob("epochs.csv"))


def test_a_sweep_names_the_run_that_does_not_fit_and_trains_the_other(run):
    code, told = run("-m", "accumulate=1,3")
    assert code == 1
    assert "accumulate=3 does not divide the batch" in told
    assert len(list(Path("results").rglob("epochs.csv"))) == 1


def test_lbfgs_has_no_loss_scale(make_problem, monkeypatch):
    monkeypatch.setattr("optbench.training.recipes.check_float16", lambda *_, **__: None)
    training = Training(make_problem(precision="float16"), LBFGS)
    with pytest.raises(UserError, match="LBFGS evaluates the loss itself"):
        list(training.updates())


def test_without_classes_there_is_no_accuracy():
    x, y = torch.rand(20, 4), torch.arange(20) % 2
    raw = prepare.RawDataset(x, y, x[:5], y[:5])
    data = prepare.prepare(raw, preprocessing="none", val_size=0.2, targets="inputs")
    mse = losses.as_function(torch.nn.MSELoss())
    problem = Problem(data, partial(mlp, hidden=[4]), mse, initialize, batch_size=4)
    for recipe in (
        Recipe(stop_at=StopAt("val_accuracy", 0.5)),
        Recipe(early_stopping=EarlyStopping(1, "train_accuracy")),
    ):
        with pytest.raises(UserError, match="these targets have none: take one of loss"):
            Training(problem, partial(SGD, lr=0.1), recipe=recipe)


def test_a_run_that_stopped_early_is_read_and_reused(run):
    words = ("early_stopping.patience=1", "optimizer.lr=0.5", "epochs=50", "quiet=false")
    code, told = run(*words)
    assert code == 0
    found = record()
    assert found["stopped"]["by"] == "early_stopping"
    assert f"stopped at step {found['stopped']['step']}" in told
    for rows in ("epochs", "steps"):
        table = load_runs("results", rows=rows)
        assert set(table["stopped"]) == {"early_stopping"}
        assert table["step"].max() == found["stopped"]["step"]
    assert "already done" in run(*words)[1]


@pytest.mark.parametrize(("value", "reached"), [(10, True), (1e-9, False)])
def test_whether_the_target_was_reached_is_told_and_recorded(run, value, reached):
    code, told = run(f"stop_at.value={value}", "quiet=false")
    assert code == 0
    assert record()["target_reached"] is reached
    assert ("was not reached" in told) is not reached
    assert ("reached its target" in told) is reached


def test_a_budget_of_seconds_is_told_to_be_unrepeatable(run):
    code, told = run("budget_seconds=1e-6", "quiet=false")
    assert code == 0
    assert record()["stopped"] == {"by": "budget_seconds", "step": 1}
    assert "not repeatable bit for bit" in told
    code, told = run("budget_seconds=1000", "quiet=false")
    assert "before its budget of 1000 seconds" in told


def test_averages_are_columns_of_their_own(run):
    assert run("averaging.kind=tail", "log.eval_epochs=1")[0] == 0
    table = load_runs("results")
    assert table["averaged_val_loss"].isna().tolist() == [True, True, True, False]
    assert record()["summary"]["averaged_test_accuracy"] > 0
    assert record()["summary"]["best_averaged_val_loss"] > 0


def test_defaults_of_a_recipe_leave_the_identity_of_a_run(run):
    run()
    first = record()
    run("clip_norm=1")
    assert record()["run_id"] != first["run_id"]
    assert record()["problem_hash"] == first["problem_hash"]
    run("stop_at.value=1e-9")
    assert record()["problem_hash"] != first["problem_hash"]

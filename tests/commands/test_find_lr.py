"""The learning-rate finder: its ramp, its files and its words."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from composed import configuration
from in_process import call, sub_command

from optbench.common.errors import UserError
from optbench.optimizers import build
from optbench.problem import build_model
from optbench.runner import lr_finder
from optbench.runner.planning import arguments, plan
from optbench.training.batches import Batches, examples_of

SMALL = ("dataset=wine", "model.hidden=[6]", "batch_size=16", "optimizer=sgd")
main = sub_command("find_lr")


def test_the_ramp_is_a_plain_loop_with_a_rising_rate(tmp_path):
    config = configuration(*SMALL, f"results_dir={tmp_path}")
    ramp = lr_finder.find(config, 1e-4, 1e-1, 20)
    np.testing.assert_allclose(ramp.lr, np.geomspace(1e-4, 1e-1, 20), rtol=1e-12)
    asked = arguments(plan(config, tmp_path))
    problem = asked["problem"]
    model = build_model(problem, 0)
    optimizer, batches, losses = build(asked["optimizer"], model), Batches(problem, 0), []
    for rate, batch in zip(ramp.lr, [b for _ in range(3) for b in batches.epoch()], strict=False):
        optimizer.param_groups[0]["lr"] = float(rate)
        x, y = examples_of(problem.dataset, batch)
        optimizer.zero_grad()
        loss = problem.loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(ramp.loss, losses, rtol=1e-6)


def test_the_ramp_ends_where_the_loss_grows(tmp_path):
    config = configuration(*SMALL, f"results_dir={tmp_path}")
    ramp = lr_finder.find(config, 1e-3, 1e6, 200)
    assert len(ramp.lr) < 200
    assert np.isfinite(ramp.loss).all()
    assert (ramp.smoothed <= 4 * np.minimum.accumulate(ramp.smoothed)).all()
    assert ramp.lr[0] < ramp.steepest < ramp.least < 1e6


def test_the_steepest_descent_of_a_known_curve():
    lr = np.geomspace(1e-4, 1, 81)
    loss = 1 - 1 / (1 + np.exp(-3 * np.log(lr / 1e-2)))
    ramp = lr_finder.Ramp(lr, loss, loss)
    assert ramp.steepest == pytest.approx(1e-2, rel=1e-6)
    with pytest.raises(UserError, match="the loss never fell"):
        _ = lr_finder.Ramp(lr, -loss, -loss).steepest


def test_the_command_writes_table_and_picture_and_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "find_lr", *SMALL, "clip_norm=1", "--steps", "30", "--high", "1") == 0
    told = capsys.readouterr().out
    folder = Path("results/find_lr/sgd-wine")
    table = pd.read_csv(folder / "lr_finder.csv")
    assert list(table) == ["step", "lr", "loss", "smoothed"]
    assert len(table) <= 30
    assert (folder / "lr_finder.png").stat().st_size > 1000
    assert "steepest descent at a learning rate of" in told
    assert "no tuned rate" in told
    assert not list(tmp_path.rglob("run.json"))


def test_classes_and_choices_of_ones_own_are_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_sgd.py").write_text("import torch\n\nclass Own(torch.optim.SGD):\n    pass\n")
    words = [*SMALL[:-1], "optimizer._target_=own_sgd.Own", "optimizer.name=own", "--steps", "30"]
    assert main(words) == 0, capsys.readouterr().err
    choice = tmp_path / "mine" / "optimizer" / "own.yaml"
    choice.parent.mkdir(parents=True)
    choice.write_text("name: own\n_target_: own_sgd.Own\n_partial_: true\nlr: 0.1\n")
    words = ["--config-dir", "mine", *SMALL[:-1], "optimizer=own", "--steps", "30"]
    assert main(words) == 0, capsys.readouterr().err
    (tmp_path / "beside_sgd.py").write_text("from torch.optim import SGD as Beside\n")
    choice.write_text("name: own\n_target_: beside_sgd.Beside\n_partial_: true\nlr: 0.1\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    words[1] = str(tmp_path / "mine")
    assert main(words) == 0, capsys.readouterr().err


WRONG = {
    "--low 0": "--low must be above 0",
    "--low 2 --high 1": "below --high",
    "--steps 3": "--steps must be at least 10",
    "epoch=3": "Did you mean epochs=3?",
    "accumulate=5": "accumulate=5 does not divide the batch of 16",
    "optimizer=sgd,adam": "names several values",
    "optimizer=mine.Sgd": "a class of your own is named by optimizer._target_=mine.Sgd",
    "optimizer.lr=0,1": "A decimal takes a point: 0.1",
    "--low 1e20 --high 1e25": "loss",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_words_are_refused(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, *words.split()]) == 1
    assert WRONG[words] in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(5))
def test_noise_on_the_plateau_is_no_descent(seed):
    lr = np.geomspace(1e-6, 1, 181)
    noise = np.random.default_rng(seed).normal(0, 0.02, len(lr))
    loss = 1 / (1 + lr / 0.03) + noise * (lr < 0.3)  # in log lr steepest at 0.03
    assert 0.01 < lr_finder.Ramp(lr, loss, loss).steepest < 0.1

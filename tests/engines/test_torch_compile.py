"""`compile=true` gives the numbers of plain steps within rounding, or is refused in words."""

import json
from functools import partial

import in_process
import pandas as pd
import pytest
import torch
from exact_runs import Run, check_near, plain_run, weights_of

from optbench import engines, models
from optbench.common.errors import UserError
from optbench.training.loop import Training

NORMED = partial(models.mlp, hidden=[12], activation="gelu", batch_norm=True, dropout=0.3)
COMPILED = partial(engines.select, "torch_compile")
QUICK = ["data.subset=200", "model.hidden=[8]", "steps=3", "device=cpu", "quiet=true"]


class KeepsGradients(torch.optim.SGD):
    def zero_grad(self, set_to_none=True):
        pass


@pytest.fixture
def program(monkeypatch, capfd, tmp_path):
    """`python -m optbench` in this process; gives its status and what it wrote to stderr."""
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))

    def run(*words: str) -> tuple[int, str]:
        return in_process.call(monkeypatch, *QUICK, *words), capfd.readouterr().err

    return run


@pytest.mark.slow
def test_compiled_steps_are_as_near_to_float64_as_plain_ones(make_problem):
    problem = make_problem(model=NORMED, n=72, batch_size=32, epochs=4)
    adam = partial(torch.optim.Adam, lr=0.01)
    training = Training(problem, adam, log_every=1, engine=COMPILED, layers=True, layers_every=5)
    rows = [row for update in training.updates() for row in update.steps]
    own = Run(torch.tensor([row["train_loss"] for row in rows]), weights_of(training.model))
    exact = plain_run(problem, adam, torch.float64)
    check_near(own, plain_run(problem, adam, torch.float32), exact)
    assert training.engine._sizes == {32, 26}
    assert training.seconds < 1  # the clock stood while two sizes of batch were compiled


@pytest.mark.slow
def test_compiled_run_is_recorded_and_known_again(program, tmp_path):
    assert program("compile=true", "name=a") == (0, "")
    assert program("engine=plain", "name=b") == (0, "")
    assert program("engine=plain", "name=c", "force=true") == (0, "")
    made, reused, plain = (
        json.loads(next(tmp_path.glob(f"{n}/*/run.json")).read_text()) for n in "abc"
    )
    assert made["config"]["compile"] is True
    assert [r["engine"] for r in (made, reused, plain)] == ["torch_compile"] * 2 + ["plain"]
    assert made["run_id"] == plain["run_id"]
    assert made["summary"]["train_loss"] == pytest.approx(plain["summary"]["train_loss"], rel=1e-5)


@pytest.mark.slow
def test_a_compiled_gpt_has_the_losses_of_a_plain_one(monkeypatch, tmp_path):
    """Its attention takes another kernel, where products are oneDNN's, in plain steps alone."""
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    words = ["problem=austen_gpt", "epochs=null", "steps=3", "deterministic=true", "quiet=true"]
    words += ["data.subset=800", "data.val_size=64", "log.steps=1", "device=cpu"]
    losses = []
    for name, word in (("a", "compile=true"), ("c", "compile=true"), ("b", "engine=plain")):
        assert in_process.call(monkeypatch, *words, word, f"name={name}", "force=true") == 0
        losses.append(pd.read_csv(next(tmp_path.glob(f"{name}/*/steps.csv")))["train_loss"])
    assert len(losses[0]) == 3
    for compiled in losses[:2]:  # the second one from the cache of compiled steps
        assert list(compiled) == pytest.approx(list(losses[2]), rel=1e-5)


def test_compile_beside_another_engine_is_refused(program, tmp_path):
    status, said = program("compile=true", "engine=compiled_mlp")
    assert status == 1
    assert "compile=true compiles plain steps, and engine=compiled_mlp takes others" in said
    assert not list(tmp_path.rglob("run.json"))


def test_compile_without_a_compiler_is_refused(program, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    status, said = program("compile=true")
    assert status == 1
    assert "compile=true does not serve this run: torch.compile needs a C++ compiler" in said
    assert not list(tmp_path.rglob("run.json"))


def test_compile_with_a_zero_grad_of_ones_own_is_refused(make_problem):
    with pytest.raises(UserError, match=r"compile=true does not serve this run: .* zero_grad"):
        Training(make_problem(), partial(KeepsGradients, lr=0.1), engine=COMPILED)

"""Weights perturbed one at a time: gradient descent's steps, for n + 1 evaluations each."""

from functools import partial

import pytest
import torch
from composed import resolved
from torch import nn

from optbench import models
from optbench.common.errors import UserError
from optbench.perturbation import MAX_WEIGHTS, WeightPerturbation
from optbench.runner import run as experiment
from optbench.training.loop import Training
from optbench.trajectories.descent import run_optimizer
from optbench.trajectories.functions import ravine

SMALL = partial(models.mlp, hidden=[4], activation="tanh")


def trained(problem, optimizer, **given):
    training = Training(problem, optimizer, seed=2, **given)
    rows = [u.epoch for u in training.updates() if u.epoch]
    return training, rows


def weights(training):
    return torch.cat([p.detach().flatten() for p in training.model.parameters()])


def test_in_float64_the_steps_are_those_of_gradient_descent(make_problem):
    problem = make_problem(SMALL, precision="float64", epochs=1)
    ours, _ = trained(problem, partial(WeightPerturbation, lr=0.3, delta=1e-7))
    plain, _ = trained(problem, partial(torch.optim.SGD, lr=0.3))
    assert torch.allclose(weights(ours), weights(plain), atol=1e-6)


def test_in_float32_the_loss_comes_as_far(make_problem):
    problem = make_problem(SMALL, epochs=3)
    _, ours = trained(problem, partial(WeightPerturbation, lr=0.3))
    _, plain = trained(problem, partial(torch.optim.SGD, lr=0.3))
    assert ours[-1]["train_loss"] == pytest.approx(plain[-1]["train_loss"], rel=0.02)
    assert ours[-1]["train_loss"] < 0.7 * ours[0]["train_loss"]


def test_a_step_evaluates_once_and_once_more_for_each_weight():
    theta = [nn.Parameter(torch.randn(2, 3)), nn.Parameter(torch.tensor(1.5))]
    calls = []

    def closure():
        calls.append([p.detach().clone() for p in theta])
        return sum((p**2).sum() for p in theta)

    opt = WeightPerturbation(theta, lr=0.0, delta=0.5)
    loss = opt.step(closure)
    assert len(calls) == opt.evaluations == 1 + 7
    start = calls[0]
    assert loss == sum((p**2).sum() for p in start)
    for moved in calls[1:]:  # one weight each, and the others back to the last bit
        changed = [(a != b).sum().item() for a, b in zip(moved, start, strict=True)]
        assert sum(changed) == 1
    assert all(map(torch.equal, theta, start))


def test_slopes_are_taken_from_one_point():
    x, y = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(2.0))
    for p in (x, y):
        p.data = p.data.double()
    opt = WeightPerturbation([x, y], lr=0.1, delta=1e-6)
    opt.step(lambda: x * y)
    assert x.item() == pytest.approx(1 - 0.1 * 2, abs=1e-5)
    assert y.item() == pytest.approx(2 - 0.1 * 1, abs=1e-5)


def test_a_function_of_two_variables_takes_three_evaluations():
    made = []

    def build(params):
        made.append(WeightPerturbation(params, lr=0.2, delta=1e-4))
        return made[-1]

    path = run_optimizer(ravine(), build, steps=40)
    assert path.losses[-1] < 0.05 * path.losses[0]
    assert made[-1].evaluations == 40 * 3


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [("textbook/weight_perturbation", 43), ("sgd", 1), ("textbook/nesterov", 1)],
)
def test_evaluations_are_counted_in_the_curves(tmp_path, optimizer, expected):
    from optbench.analysis.table import load_runs

    words = ("dataset=wine", "model=logreg", f"optimizer={optimizer}", "steps=3", "quiet=true")
    config = resolved(*words, "engine=plain", f"results_dir={tmp_path}")
    folder = experiment.run(config, tmp_path / "runs").folder
    assert folder.exists()
    assert load_runs(tmp_path)["forwards"].max() == 3 * expected


def test_a_run_resumes_with_its_count(make_problem):
    problem = make_problem(SMALL, epochs=3)
    build = partial(WeightPerturbation, lr=0.3)
    whole, _ = trained(problem, build)
    first = Training(problem, build, seed=2)
    list(first.updates(stop=lambda: first.step >= 0))
    rest = Training(problem, build, seed=2)
    rest.load_state_dict(first.state_dict())
    list(rest.updates())
    assert torch.equal(weights(rest), weights(whole))
    per_step = 1 + sum(p.numel() for p in whole.parameters)
    assert rest.optimizer.evaluations == whole.optimizer.evaluations
    assert whole.optimizer.evaluations == per_step * problem.total_steps


def test_models_that_take_too_long_are_refused():
    with pytest.raises(UserError, match=rf"10,001 times in each step .* at most {MAX_WEIGHTS:,}"):
        WeightPerturbation([nn.Parameter(torch.zeros(MAX_WEIGHTS + 1))])


@pytest.mark.parametrize("delta", [0, -1, "small", None])
def test_delta_must_be_above_zero(delta):
    with pytest.raises(UserError, match="WeightPerturbation: delta must be"):
        WeightPerturbation([nn.Parameter(torch.zeros(2))], delta=delta)


def test_a_step_needs_a_closure():
    with pytest.raises(UserError, match="needs a closure"):
        WeightPerturbation([nn.Parameter(torch.zeros(2))]).step()

"""Compiled gradients give any optimizer the numbers of plain ones within float32's rounding."""

import random
from functools import partial

import pytest
import torch
from exact_runs import Run, check_near, plain_run, weights_of
from torch import nn

from optbench import engines, models, textbook
from optbench.engines.compiled_mlp import mlp
from optbench.training.loop import Training

pytestmark = pytest.mark.skipif(not mlp.available(), reason="no C++ compiler")
GRADIENTS = partial(engines.select, "compiled_gradients")
AUTO = partial(engines.select, "auto")
NORMED = partial(
    models.mlp, hidden=[40, 30], activation="gelu", batch_norm=True, dropout=0.3, input_dropout=0.1
)
NORMED_AFTER = partial(
    models.mlp, hidden=[40, 30], activation="silu", batch_norm=True, batch_norm_place="after"
)


class SignSgd(torch.optim.Optimizer):
    """A user's optimizer, which keeps the gradients of the step before."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})
        self.before = None

    def step(self, closure=None):
        loss = None if closure is None else closure()
        found = [p.grad for group in self.param_groups for p in group["params"]]
        with torch.no_grad():
            for k, group in enumerate(self.param_groups):
                for j, p in enumerate(group["params"]):
                    seen = p.grad if self.before is None else p.grad + 0.5 * self.before[j + k]
                    p.sub_(seen / (seen.abs() + 0.1), alpha=group["lr"])
        self.before = found
        return loss


class Sam(SignSgd):
    """Evaluates the model a second time in each step."""

    def step(self, closure):
        loss = closure()
        own = [p for group in self.param_groups for p in group["params"]]
        moves = [0.01 * p.grad for p in own]
        with torch.no_grad():
            for p, move in zip(own, moves, strict=True):
                p.add_(move)
        closure()
        with torch.no_grad():
            for p, move in zip(own, moves, strict=True):
                p.sub_(move)
                p.sub_(p.grad, alpha=self.param_groups[0]["lr"])
        return loss


class Drawing(SignSgd):
    """Evaluates the model first, and takes steps of random lengths."""

    def step(self, closure):
        for group in self.param_groups:
            group["lr"] = 0.01 + 0.005 * (torch.rand(()).item() + random.random())
        return super().step(closure)


OPTIMIZERS = {
    "torch's": partial(torch.optim.Adam, lr=0.01),
    "RAdam, without a compiled rule": partial(torch.optim.RAdam, lr=0.01),
    "LBFGS": partial(torch.optim.LBFGS, lr=0.1, max_iter=3),
    "a textbook's Nesterov": partial(textbook.Nesterov, lr=0.01),
    "a user's": SignSgd,
    "a user's with a closure": Sam,
}


def follow(problem, optimizer, engine, **arguments):
    training = Training(problem, optimizer, log_every=1, engine=engine, **arguments)
    found = [row["train_loss"] for update in training.updates() for row in update.steps]
    return Run(torch.tensor(found), weights_of(training.model)), training


@pytest.mark.parametrize("model", [NORMED, NORMED_AFTER], ids=["before", "after"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_gradients_are_as_near_to_float64_as_plain_ones(make_problem, optimizer, model):
    problem = make_problem(model=model, n=200, batch_size=32)
    own, training = follow(problem, optimizer, GRADIENTS)
    assert training.engine.name == "compiled_gradients"
    assert training.engine._network is not None
    runs = (plain_run(problem, optimizer, kind) for kind in (torch.float32, torch.float64))
    check_near(own, *runs)


def test_random_steps_are_those_of_plain_runs(make_problem):
    """Their lengths are drawn beside the masks of dropout, which stay the model's."""
    problem = make_problem(model=NORMED, n=200, batch_size=32, epochs=3)
    plain = follow(problem, Drawing, None)[1]
    own = follow(problem, Drawing, GRADIENTS)[1]
    assert own.engine.name == "compiled_gradients"
    rates = [each.optimizer.param_groups[0]["lr"] for each in (plain, own)]
    assert rates[0] == rates[1]
    left, right = (each.stepper.draws.state_dict() for each in (plain, own))
    assert torch.equal(left.pop("torch"), right.pop("torch"))
    assert left == right
    for one, other in zip(weights_of(plain.model), weights_of(own.model), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_each_step_gives_new_gradients(make_problem):
    problem = make_problem(n=200, batch_size=32)
    _, training = follow(problem, SignSgd, GRADIENTS)
    before = training.optimizer.before
    assert all(p.grad is not None for p in training.parameters)
    assert [id(g) for g in before] == [id(p.grad) for p in training.parameters]


def test_auto_takes_gradients_for_optimizers_without_a_compiled_rule(make_problem):
    problem = make_problem(n=200, batch_size=32)
    engine = partial(Training, problem, engine=AUTO)
    assert engine(OPTIMIZERS["torch's"]).engine.name == "compiled_mlp"
    assert engine(SignSgd).engine.name == "compiled_gradients"


@pytest.mark.parametrize("engine", [GRADIENTS, partial(engines.select, "compiled_mlp")])
def test_dropout_and_batch_norm_resume_bit_for_bit_within_an_epoch(make_problem, engine):
    problem = make_problem(model=NORMED, n=200, batch_size=32, epochs=3)
    made = partial(Training, problem, OPTIMIZERS["torch's"], log_every=1, engine=engine)
    whole, first, rest = made(), made(), made()
    undisturbed = [row["train_loss"] for update in whole.updates() for row in update.steps]
    found = []
    stops = iter([False] * 3 + [True] * 100)
    for update in first.updates(lambda: next(stops)):
        found += [row["train_loss"] for row in update.steps]
    assert 0 < first.step < problem.total_steps
    rest.load_state_dict(first.state_dict())
    found += [row["train_loss"] for update in rest.updates() for row in update.steps]
    assert found == undisturbed
    assert all(map(torch.equal, weights_of(rest.model), weights_of(whole.model)))
    counts = [m.num_batches_tracked.item() for m in rest.model if isinstance(m, nn.BatchNorm1d)]
    assert counts == [problem.total_steps] * 2


def test_watched_steps_are_torchs(make_problem):
    problem = make_problem(model=NORMED, n=200, batch_size=32)
    training = Training(problem, SignSgd, layers=True, layers_every=2, engine=GRADIENTS)
    rows = [row for update in training.updates() for row in update.layers]
    assert any(row.get("activation_std") for row in rows)


def test_running_statistics_that_are_new_tensors_are_found(make_problem):
    """A watched step restores them so, after it has measured the noise of the gradient."""
    problem = make_problem(model=NORMED, n=200, batch_size=32, epochs=4)
    whole = partial(engines.select, "compiled_mlp")
    followed = {"layers": True, "layers_every": 4}
    own, training = follow(problem, OPTIMIZERS["torch's"], whole, **followed)
    plain, other = follow(problem, OPTIMIZERS["torch's"], None, **followed)
    assert training.engine.name == "compiled_mlp"
    assert torch.allclose(own.losses, plain.losses, rtol=1e-4)
    for a, b in zip(training.model.buffers(), other.model.buffers(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)
    assert own.losses.isfinite().all()


class Hooking(SignSgd):
    """Registers a hook on the model in its first step, as K-FAC does."""

    def step(self, closure=None):
        if self.before is None:
            self.layers[0].register_full_backward_hook(lambda *_: self.seen.append(1))
        return super().step(closure)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_a_model_that_an_optimizer_changes_is_torchs_from_then_on(make_problem):
    problem = make_problem(n=200, batch_size=32)
    training = Training(problem, Hooking, engine=GRADIENTS)
    training.optimizer.layers = [m for m in training.model if isinstance(m, nn.Linear)]
    training.optimizer.seen = []
    for _ in training.updates():
        pass
    assert len(training.optimizer.seen) == problem.total_steps - 1


class Changing(SignSgd):
    """Changes what torch does with its parameters in the tenth step."""

    def __init__(self, params, change):
        super().__init__(params)
        self.change, self.taken = change, 0

    def step(self, closure=None):
        loss = None if closure is None else closure()
        self.taken += 1
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.sub_(p.grad, alpha=0.05)
        if self.taken == 10:
            self.change(self.param_groups[0]["params"])
        return loss


def cleared(parameter):
    parameter.grad.zero_()


CHANGES = {
    "a hook": lambda params: params[0].register_hook(lambda gradient: 3 * gradient),
    "a hook of accumulation": lambda ps: ps[0].register_post_accumulate_grad_hook(cleared),
    "a frozen weight": lambda params: params.pop(0).requires_grad_(False),
    "another layout": lambda params: setattr(params[0], "data", params[0].data.t().clone().t()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_within_a_step_counts_from_the_next_one(make_problem, change):
    problem = make_problem(n=200, batch_size=32, epochs=4)  # 20 steps
    make = partial(Changing, change=change)
    own, training = follow(problem, make, GRADIENTS)
    plain, _ = follow(problem, make, None)
    assert training.engine.name == "compiled_gradients"
    assert torch.allclose(own.losses, plain.losses, rtol=1e-5)


class KeepsGradients(SignSgd):
    def zero_grad(self, set_to_none=True):
        pass


def layer_normed(shape, classes):
    return nn.Sequential(nn.Linear(*shape, 8), nn.LayerNorm(8), nn.Linear(8, classes))


@pytest.mark.parametrize(
    ("model", "optimizer", "why"),
    [
        (layer_normed, SignSgd, "no chain"),
        (None, KeepsGradients, "zero_grad"),
    ],
)
def test_what_is_not_served_is_said(make_problem, model, optimizer, why):
    problem = make_problem(model=model, n=200, batch_size=32)
    training = Training(problem, optimizer)
    found = engines.refusal("compiled_gradients", problem, training.model, training.optimizer)
    assert why in found

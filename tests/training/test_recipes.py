"""Each part of a recipe does what a short loop of plain torch does, bit for bit."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from optbench import models, optimizers
from optbench.problem import Problem, build_model
from optbench.training.batches import Batches, examples_of
from optbench.training.loop import Training
from optbench.training.recipes import Recipe
from optbench.training.recipes.averaging import Averaging
from optbench.training.recipes.gradients import micro_batches

MOMENTUM = partial(SGD, lr=0.1, momentum=0.9)
SEED = 3


def trained(problem: Problem, recipe: Recipe, optimizer: Callable = MOMENTUM, **settings):
    """A training at its end, and its rows of epochs.csv."""
    training = Training(problem, optimizer, seed=SEED, log_every=1, recipe=recipe, **settings)
    rows = [update.epoch for update in training.updates() if update.epoch]
    return training, rows


def plain_loop(
    problem: Problem,
    step: Callable[[nn.Module, torch.optim.Optimizer, torch.Tensor, torch.Tensor], object],
    optimizer: Callable = MOMENTUM,
    after: Callable[[nn.Module, int], object] = lambda model, step: None,
) -> nn.Module:
    model = build_model(problem, SEED).train()
    optimizer = optimizers.build(optimizer, model)
    batches, number = Batches(problem, SEED), 0
    while number < problem.total_steps:
        for batch in batches.epoch():
            number += 1
            step(model, optimizer, *examples_of(problem.dataset, batch))
            after(model, number)
    return model


def one_step(problem: Problem, before: Callable[[nn.Module], object] = lambda model: None):
    def step(model, optimizer, x, y):
        optimizer.zero_grad()
        problem.loss(model(x), y).backward()
        before(model)
        optimizer.step()

    return step


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for one, other in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def clip(model: nn.Module, norm: float | None, value: float | None) -> None:
    if value is not None:
        nn.utils.clip_grad_value_(model.parameters(), value)
    if norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), norm)


@pytest.mark.parametrize(("norm", "value"), [(0.3, None), (None, 0.02), (0.1, 0.05)])
def test_clipping_equals_a_plain_loop(make_problem, norm, value):
    problem = make_problem()
    ours, _ = trained(problem, Recipe(clip_norm=norm, clip_value=value))
    step = one_step(problem, lambda model: clip(model, norm, value))
    assert_same(ours.model, plain_loop(problem, step))
    unclipped, _ = trained(problem, Recipe())
    assert not torch.equal(unclipped.parameters[0], ours.parameters[0])


def test_each_gradient_of_a_closure_is_clipped(make_problem):
    problem, make = make_problem(), partial(LBFGS, lr=0.5, max_iter=5)

    def step(model, optimizer, x, y):
        def closure():
            optimizer.zero_grad()
            loss = problem.loss(model(x), y)
            loss.backward()
            clip(model, 0.2, None)
            return loss

        optimizer.step(closure)

    ours, _ = trained(problem, Recipe(clip_norm=0.2), make)
    assert_same(ours.model, plain_loop(problem, step, make))


class Extragradient(torch.optim.Optimizer):
    """One's own class, which asks for the gradient at a second place."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})
        self.norms = []

    def step(self, closure):
        group = self.param_groups[0]["params"]
        before = [p.detach().clone() for p in group]
        with torch.no_grad():
            for p in group:
                p.sub_(0.1 * p.grad)
        closure()
        self.norms += [nn.utils.get_total_norm([p.grad for p in group]).item()]
        with torch.no_grad():
            for p, old in zip(group, before, strict=True):
                p.copy_(old - 0.1 * p.grad)


def test_the_second_gradient_of_ones_own_class_is_clipped(make_problem):
    ours, _ = trained(make_problem(), Recipe(clip_norm=0.05), Extragradient)
    assert max(ours.optimizer.norms) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_equals_a_plain_loop(make_problem, accumulate):
    problem = make_problem()

    def step(model, optimizer, x, y):
        optimizer.zero_grad()
        size = 16 // accumulate
        for xb, yb in zip(x.split(size), y.split(size), strict=True):
            (problem.loss(model(xb), yb) * (len(xb) / len(x))).backward()
        optimizer.step()

    ours, _ = trained(problem, Recipe(accumulate=accumulate))
    assert_same(ours.model, plain_loop(problem, step))


@pytest.mark.parametrize("batch_size", [16, "full"])
def test_accumulation_has_the_curve_of_the_large_batch(make_problem, batch_size):
    problem = make_problem(batch_size=batch_size, precision="float64", weight_penalty=0.01)
    many, rows = trained(problem, Recipe(accumulate=4))
    one, expected = trained(problem, Recipe())
    for row, wanted in zip(rows[1:], expected[1:], strict=True):
        for name in ("train_loss", "val_loss", "running_loss"):
            assert row[name] == pytest.approx(wanted[name], rel=1e-12)
    for a, b in zip(many.parameters, one.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_micro_batches_cover_the_batch_and_leave_no_lone_example():
    for examples in range(1, 40):
        for size in range(1, 12):
            parts = list(micro_batches(examples, size))
            assert [k for part in parts for k in range(examples)[part]] == list(range(examples))
            assert examples == 1 or size == 1 or min(p.stop - p.start for p in parts) > 1


NORMED = partial(models.mlp, hidden=[8], batch_norm=True)


def averaged_in_a_plain_loop(problem: Problem, kind: str) -> nn.Module:
    """The averaged model of four epochs with `averaging.start=0.5` and `decay=0.8`."""
    found: list[AveragedModel] = []
    total, per_epoch = problem.total_steps, problem.steps_per_epoch

    def after(model, number):
        if not found:
            function = get_ema_multi_avg_fn(0.8) if kind == "ema" else None
            found.append(AveragedModel(model, multi_avg_fn=function, use_buffers=kind == "ema"))
        late, ends = number > total / 2, number % per_epoch == 0
        if {"ema": True, "tail": late, "swa": late and ends}[kind]:
            found[0].update_parameters(model)

    plain_loop(problem, one_step(problem), after=after)
    if kind != "ema":
        update_bn(problem.dataset.train_x.split(16), found[0].module)
    return found[0].module.eval()


@pytest.mark.parametrize("kind", ["ema", "tail", "swa"])
def test_averaged_weights_equal_a_plain_loop_and_leave_the_raw_ones(make_problem, kind):
    problem = make_problem(NORMED, epochs=4)
    ours, rows = trained(problem, Recipe(averaging=Averaging(kind, decay=0.8, start=0.5)))
    expected = averaged_in_a_plain_loop(problem, kind)
    assert_same(ours.applied.averaged.averaged.module, expected)
    data = problem.dataset
    with torch.no_grad():
        for part, x, y in (("train", data.train_x, data.train_y), ("val", data.val_x, data.val_y)):
            loss = problem.loss(expected(x), y).item()
            assert rows[-1][f"averaged_{part}_loss"] == pytest.approx(loss, rel=1e-6)
    raw, raw_rows = trained(problem, Recipe())
    assert_same(ours.model, raw.model)
    for row, wanted in zip(rows, raw_rows, strict=True):
        assert {k: row[k] for k in wanted if "seconds" not in k} == {
            k: v for k, v in wanted.items() if "seconds" not in k
        }
    begun = ["averaged_train_loss" in row for row in rows]
    assert begun == ([False] + [True] * 4 if kind == "ema" else [False] * 3 + [True] * 2)


def test_a_mean_of_constant_weights_is_these_weights(make_problem):
    frozen, rows = trained(
        make_problem(), Recipe(averaging=Averaging("tail", start=0)), partial(SGD, lr=1e-30)
    )
    assert_same(frozen.model, frozen.applied.averaged.averaged.module)
    assert rows[-1]["averaged_val_loss"] == rows[-1]["val_loss"]


def test_dropout_draws_nothing_for_the_average(make_problem):
    """Batch norm's statistics are computed with masks of their own, the same at each evaluation."""
    problem = make_problem(partial(models.mlp, hidden=[8], batch_norm=True, dropout=0.3), epochs=3)
    with_average, rows = trained(problem, Recipe(averaging=Averaging("swa", start=0)))
    without, _ = trained(problem, Recipe())
    assert_same(with_average.model, without.model)
    again = with_average._scores(tested=True)
    assert again["averaged_val_loss"] == rows[-1]["averaged_val_loss"]


class Uncopyable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self.lines = (line for line in "ab")

    def forward(self, x):
        return self.layer(x)


def test_a_model_that_cannot_be_copied_is_refused_in_words(make_problem):
    problem = make_problem(lambda shape, classes: Uncopyable())
    with pytest.raises(Exception, match="averaging copies the model"):
        Training(problem, MOMENTUM, recipe=Recipe(averaging=Averaging("ema")))

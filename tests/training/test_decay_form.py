"""The form of weight decay, beside torch's own optimizers and formulas in float64."""

from functools import partial

import pytest
import torch
from torch import nn

from optbench import train
from optbench.common.errors import UserError
from optbench.training.recipes import Recipe
from optbench.training.recipes.decay import Decay


def trained(make, form=None, rates=(0.1,) * 5):
    """The weights after steps on fixed gradients, at the rates of a schedule."""
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(6, dtype=torch.float64))
    optimizer = make([p])
    decay = Decay(form, optimizer) if form else None
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        p.grad = torch.sin(torch.arange(6, dtype=torch.float64)) + p.detach()
        if decay:
            decay.apply(optimizer)
        optimizer.step()
    return p.detach()


def adam(**rest):
    return lambda params: torch.optim.Adam(params, lr=0.1, **rest)


def test_coupled_decay_is_that_of_torchs_adam_and_sgd():
    assert torch.equal(trained(adam(weight_decay=0.3), "coupled"), trained(adam(weight_decay=0.3)))
    sgd = lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.3)  # noqa: E731
    assert torch.allclose(trained(sgd, "coupled"), trained(sgd), rtol=1e-15)


def test_decoupled_decay_makes_adamw_of_adam_and_coupled_adam_of_adamw():
    adamw = lambda params: torch.optim.AdamW(params, lr=0.1, weight_decay=0.3)  # noqa: E731
    assert torch.equal(trained(adam(weight_decay=0.3), "decoupled"), trained(adamw))
    assert torch.equal(trained(adamw, "coupled"), trained(adam(weight_decay=0.3)))


def test_independent_decay_follows_the_schedule_and_not_the_rate():
    def plain(params):
        return torch.optim.SGD(params, lr=0.0, weight_decay=0.3)

    torch.manual_seed(0)
    start = torch.randn(6, dtype=torch.float64)

    def make(lr):
        return lambda params: torch.optim.SGD(params, lr=lr, weight_decay=0.3)

    tiny = trained(make(1e-12), "independent", rates=(1e-12, 5e-13))
    assert torch.allclose(tiny, start * (1 - 0.3) * (1 - 0.15), atol=1e-10)
    assert torch.equal(trained(plain, "independent", rates=(0.0, 0.0)), start)


def test_groups_keep_their_own_amounts():
    a, b = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    groups = [{"params": [a]}, {"params": [b], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5)
    decay = Decay("independent", optimizer)
    a.grad, b.grad = torch.zeros_like(a), torch.zeros_like(b)
    decay.apply(optimizer)
    optimizer.step()
    assert a.tolist() == [0.5, 0.5]
    assert b.tolist() == [1.0, 1.0]


def test_forms_that_mean_nothing_are_refused():
    with pytest.raises(UserError, match="decay_form must be one of coupled, decoupled"):
        Recipe(decay_form="decupled")
    with pytest.raises(UserError, match="Rprop has none"):
        Decay("coupled", torch.optim.Rprop([nn.Parameter(torch.ones(1))]))


class EvaluatesFirst(torch.optim.SGD):
    """Asks for the loss itself, as Lion and Adan of pytorch_optimizer do; `calls` times."""

    calls = 1

    def step(self, closure):
        for _ in range(self.calls):
            with torch.enable_grad():
                loss = closure()
        super().step()
        return loss


class EvaluatesTwice(EvaluatesFirst):
    calls = 2


def losses_of(problem, build, form):
    rows = [
        update.epoch for update in train(problem, build, seed=1, recipe=Recipe(decay_form=form))
    ]
    return [row["train_loss"] for row in rows if row]


@pytest.mark.parametrize("form", ["coupled", "decoupled", "independent"])
def test_an_optimizer_that_evaluates_the_loss_itself_decays_alike(make_problem, form):
    problem = make_problem(epochs=3)
    plain = losses_of(problem, partial(torch.optim.SGD, lr=0.1, weight_decay=0.2), form)
    own = losses_of(problem, partial(EvaluatesFirst, lr=0.1, weight_decay=0.2), form)
    without = losses_of(problem, partial(EvaluatesFirst, lr=0.1), None)
    assert own == pytest.approx(plain, rel=1e-6)
    assert own[-1] != pytest.approx(without[-1], rel=1e-3)


def test_an_optimizer_that_evaluates_twice_is_refused(make_problem):
    build = partial(EvaluatesTwice, lr=0.1, weight_decay=0.2)
    with pytest.raises(UserError, match="evaluates the loss several times in a step"):
        losses_of(make_problem(epochs=1), build, "decoupled")


def test_an_optimizer_with_weights_or_a_step_size_of_its_own_is_refused():
    group = {"params": [nn.Parameter(torch.ones(1))], "weight_decay": 0.1, "d": 1e-6}
    with pytest.raises(UserError, match="finds its own step size"):
        Decay("decoupled", torch.optim.SGD([group], lr=1.0))

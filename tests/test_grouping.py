"""Which runs can be trained together, and where that is faster."""

from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from optbench import dense, grouping, losses, models
from optbench.grouping import group_key
from optbench.initializers import initialize
from optbench.textbook import Nesterov

SGD = partial(torch.optim.SGD, lr=0.1)


class Replaces(torch.optim.SGD):
    """Puts new tensors in the place of its weights."""

    def step(self, closure=None):
        closure()
        for p in self.param_groups[0]["params"]:
            p.data = p.data - 0.1 * p.grad


class Branches(nn.Linear):
    """Asks for a value of its output: nothing that can be vectorised."""

    def forward(self, x):
        y = super().forward(x)
        return y if y.mean() > 0 else 2 * y


class Draws(nn.Linear):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.5, self.training)


def test_what_has_to_run_alone(make_problem):
    problem = make_problem()
    base = {"problem": problem, "optimizer": SGD}
    assert group_key(base) is not None
    alone = [
        {"optimizer": partial(torch.optim.LBFGS, lr=1.0)},
        {"optimizer": partial(Nesterov, lr=0.1)},
        {"optimizer": partial(Replaces, lr=0.1)},
        {"optimizer": partial(torch.optim.SGD, lr=-1.0)},
        {"layers": True},
        {"problem": make_problem(lambda shape, classes: Branches(*shape, classes))},
        {"problem": make_problem(lambda shape, classes: Draws(*shape, classes))},
        {"problem": make_problem(models.cnn)},  # not images
    ]
    for changes in alone:
        assert group_key(base | changes) is None, changes


def test_a_model_is_not_made_to_see_that_it_is_too_large(make_problem):
    made = []

    def huge(shape, classes):
        made.append(nn.Linear(*shape, 10**7))
        return made[-1]

    asked = {"problem": make_problem(huge), "optimizer": SGD}
    assert not grouping.is_faster(asked, 8)
    assert made[0].weight.is_meta
    assert not grouping.is_faster(asked, 2)
    assert len(made) == 1


def test_where_a_cohort_is_faster(make_problem):
    def arguments(model, **changes):
        return {"problem": make_problem(model, **changes), "optimizer": SGD}

    gelu = partial(models.mlp, hidden=[8], activation="gelu")
    small = arguments(gelu)
    assert grouping.is_faster(small, 8)
    compiled = arguments(None)  # alone it is as fast, where there is a compiler
    assert grouping.is_faster(compiled, 8) == (not dense.available())
    assert grouping.is_faster(compiled | {"record": False}, 8)
    assert not grouping.is_faster(small, 2)
    assert grouping.is_faster(small | {"device": "cuda"}, 2)
    assert not grouping.is_faster(small | {"record": True}, 8)  # recorded steps are as fast alone
    long = arguments(gelu, epochs=None, steps=2000)
    assert not grouping.is_faster(long, 8)
    assert grouping.is_faster(long | {"record": False}, 8)
    wide = arguments(partial(models.mlp, hidden=[512, 256], activation="gelu"))
    assert not grouping.is_faster(wide, 8)
    assert grouping.is_faster(wide | {"device": "cuda"}, 8)


def test_what_cannot_be_grouped_with_each_other(make_problem):
    problem = make_problem()

    def key(optimizer=SGD, **changes):
        return group_key({"problem": replace(problem, **changes), "optimizer": optimizer})

    same = key()
    assert key(partial(torch.optim.Adam, lr=0.01)) == same
    assert key(model=partial(models.mlp, hidden=[8])) == same
    assert key(initializer=partial(initialize, bias=1.0)) == same
    for changes in (
        {"dataset": make_problem().dataset},
        {"model": partial(models.mlp, hidden=[9])},
        {"model": partial(models.mlp, hidden=[8], dropout=0.1)},
        {"loss": partial(losses.cross_entropy, label_smoothing=0.1)},
        {"batch_size": 8},
        {"epochs": 3},
        {"shuffle": "fixed_order"},
        {"drop_last": True},
        {"weight_penalty": 0.1},
    ):
        assert key(**changes) not in (None, same), changes
    assert group_key({"problem": problem, "optimizer": SGD, "log_every": 3}) != same

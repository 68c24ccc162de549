"""Runs trained together, of generated models and optimizers, against plain float32 and float64."""

from functools import partial
from typing import Any

import pytest
import torch
from exact_runs import Run, check_near, plain_run, weights_of
from hypothesis import given, settings
from hypothesis import strategies as st

from optbench import losses, models, schedules
from optbench.datasets import prepare
from optbench.engines.cohort import train
from optbench.engines.cohort.eligibility import group_key
from optbench.initializers import initialize
from optbench.problem import Problem
from optbench.textbook import Momentum
from optbench.training.loop import Training

STEPS = 300
# tame, as in test_dense_property: rates that contract, an eps that noise does not reach
RULES = [
    *(partial(torch.optim.SGD, momentum=momentum) for momentum in (0.0, 0.9)),
    *(partial(cls, eps=0.01) for cls in (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam)),
    *(partial(cls, eps=0.01) for cls in (torch.optim.RMSprop, torch.optim.Adagrad)),
    partial(torch.optim.Adam, eps=0.01, amsgrad=True),
]
SCHEDULES = [None, schedules.cosine, partial(schedules.step, gamma=0.5)]


@st.composite
def members(draw) -> list[dict[str, Any]]:
    """Runs of one problem: some of one rule, with rates of their own, and some of others."""
    x = torch.randn(60, 7, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    y = (x @ x[:3].T).argmax(dim=1)
    dataset = prepare.prepare((x, y, x[:9], y[:9]), val_size=0.2)
    model = partial(
        models.mlp,
        hidden=draw(st.lists(st.integers(1, 20), max_size=2)),
        activation=draw(st.sampled_from(["tanh", "sigmoid", "elu", "gelu", "silu", "relu"])),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        batch_norm=draw(st.booleans()),
    )
    problem = Problem(
        dataset, model, draw(st.sampled_from([SMOOTHED, losses.mse, losses.bce])), initialize,
        draw(st.sampled_from([5, 16, 48])), epochs=None, steps=STEPS,
        weight_penalty=draw(st.sampled_from([0.0, 0.01])),
    )  # fmt: skip
    rules = [draw(st.sampled_from(RULES))] * 3 + draw(st.lists(st.sampled_from(RULES), max_size=1))
    same = draw(st.booleans())
    found = []
    for place, rule in enumerate([*rules, partial(Momentum, gamma=0.8)]):
        lr = draw(st.sampled_from([0.001, 0.003, 0.01]))
        decay = (
            {} if rule.func is Momentum else {"weight_decay": draw(st.sampled_from([0.0, 0.01]))}
        )
        optimizer = partial(rule, lr=0.003 if same else lr, **({} if same else decay))
        schedule = draw(st.sampled_from(SCHEDULES))
        found.append(
            {"problem": problem, "optimizer": optimizer, "seed": place % 2, "schedule": schedule}
        )
    return found


SMOOTHED = partial(losses.cross_entropy, label_smoothing=0.1)


def check_members(given_: list[dict[str, Any]]) -> None:
    """Hold each member's losses, weights and running statistics to the rule of `exact_runs`."""
    assert len({group_key(m) for m in given_} - {None}) == 1
    asked = [m | {"log_every": 1} for m in given_]
    made = [
        train.Member(i, Training(**m, compile_steps=False), m["seed"]) for i, m in enumerate(asked)
    ]
    found: list[list[float]] = [[] for _ in made]
    for index, update in train.Cohort(made).updates(lambda: False):
        assert not isinstance(update, Exception), update
        found[index] += [row["train_loss"] for row in update.steps]
    for own, member, arguments in zip(found, made, given_, strict=True):
        plain, exact = (plain_run(dtype=d, **arguments) for d in (torch.float32, torch.float64))
        check_near(Run(torch.tensor(own), weights_of(member.training.model)), plain, exact)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(members())
def test_runs_together_are_as_near_to_float64_as_plain_ones(made):
    check_members(made)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(members())
def test_hundreds_of_runs_together_are_as_near_to_float64(made):
    check_members(made)

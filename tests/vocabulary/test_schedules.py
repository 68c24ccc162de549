"""Schedules against closed forms written out here and against torch's own."""

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.optim import lr_scheduler

from optbench import losses, schedules
from optbench.common.errors import UserError
from optbench.optimizers import MuonWithAdamW
from optbench.textbook import Nesterov

CONF = Path(__file__).parents[2] / "conf" / "schedule"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "authors")  # a word


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def load(name: str) -> Callable[..., Any]:
    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert config.pop("name") == name
    return instantiate(config, _convert_="all")


def factors(schedule: Callable[..., Any], total: int, lr: float = 1.0, **settings: Any) -> Any:
    """The lr of each of `total` steps, and after the last, all over `lr`."""
    p = torch.zeros(1, requires_grad=True)
    opt = torch.optim.SGD([p], lr=lr)
    scheduler = schedule(opt, total, **settings)
    rates = [opt.param_groups[0]["lr"] / lr]
    for _ in range(total):
        opt.step()
        if scheduler is not None:
            scheduler.step()
        rates.append(opt.param_groups[0]["lr"] / lr)
    return pytest.approx(rates[:-1], abs=1e-12), rates[-1]


def half_cosine(t: float) -> float:
    return (1 + math.cos(math.pi * t)) / 2


def test_constant_costs_nothing() -> None:
    assert schedules.constant(torch.optim.SGD([torch.zeros(1)], lr=0.1), 10) is None


def test_inverse_sqrt_follows_its_formula() -> None:
    rates, _ = factors(schedules.inverse_sqrt, 9)
    assert [1 / math.sqrt(t) for t in range(1, 10)] == rates
    rates, _ = factors(schedules.inverse_sqrt, 9, constant_steps=4)
    assert [1, 1, 1, 1, *(math.sqrt(4 / t) for t in range(5, 10))] == rates


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_inverse_sqrt_refuses_steps_that_are_no_count(steps: Any) -> None:
    with pytest.raises(UserError, match="constant_steps"):
        factors(schedules.inverse_sqrt, 9, constant_steps=steps)


def test_step_follows_its_formula() -> None:
    rates, _ = factors(schedules.step, 30, milestones=[0.1, 0.5], gamma=0.2)
    assert rates == [1] * 3 + [0.2] * 12 + [0.04] * 15
    rates, _ = factors(schedules.step, 5, milestones=[], gamma=0.2)
    assert rates == [1] * 5


def test_exponential_follows_its_formula() -> None:
    rates, after = factors(schedules.exponential, 8, final=0.1)
    assert rates == [0.1 ** (k / 8) for k in range(8)]
    assert after == pytest.approx(0.1)


def test_cosine_follows_its_formula() -> None:
    rates, after = factors(schedules.cosine, 10, final=0.1)
    assert rates == [0.1 + 0.9 * half_cosine(k / 10) for k in range(10)]
    assert after == pytest.approx(0.1)


def test_warmup_cosine_follows_its_formula() -> None:
    rates, after = factors(schedules.warmup_cosine, 10, warmup=0.3)
    assert rates == [1 / 4, 2 / 4, 3 / 4] + [half_cosine(k / 7) for k in range(7)]
    assert after == 0


def test_warmup_constant_follows_its_formula() -> None:
    rates, after = factors(schedules.warmup_constant, 10, warmup=0.3)
    assert rates == [1 / 4, 2 / 4, 3 / 4] + [1] * 7
    assert after == 1


def test_trapezoid_follows_its_formula() -> None:
    rates, after = factors(schedules.trapezoid, 10, warmup=0.2, cooldown=0.4)
    assert rates == [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4]
    assert after == 0
    rates, _ = factors(schedules.trapezoid, 4, warmup=0, cooldown=1, final=0.2)
    assert rates == [1, 0.8, 0.6, 0.4]


@pytest.mark.parametrize("total", [10, 37, 100])
def test_schedules_are_those_of_torch(total: int) -> None:
    def same(ours: Any, theirs: Callable[[Any], Any], **settings: Any) -> None:
        rates, _ = factors(ours, total, lr=0.3, **settings)
        expected, _ = factors(lambda opt, n: theirs(opt), total, lr=0.3)
        assert rates.expected == expected

    same(schedules.cosine, lambda opt: lr_scheduler.CosineAnnealingLR(opt, total))
    same(
        schedules.exponential,
        lambda opt: lr_scheduler.ExponentialLR(opt, 0.01 ** (1 / total)),
        final=0.01,
    )
    same(
        schedules.step,
        lambda opt: lr_scheduler.MultiStepLR(
            opt, [math.ceil(total / 2), math.ceil(3 * total / 4)], 0.1
        ),
    )
    same(
        schedules.one_cycle,
        lambda opt: lr_scheduler.OneCycleLR(opt, 0.3, total, cycle_momentum=False),
    )


def test_one_cycle_leaves_momentum_alone() -> None:
    opt = torch.optim.Adam([torch.zeros(1, requires_grad=True)], betas=(0.8, 0.9))
    schedules.one_cycle(opt, 10)
    assert opt.param_groups[0]["betas"] == (0.8, 0.9)


def optimizers() -> list[torch.optim.Optimizer]:
    def weights() -> list[torch.Tensor]:
        return [torch.ones(3, 2, requires_grad=True), torch.ones(3, requires_grad=True)]

    a, b = weights()
    return [
        torch.optim.SGD([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.01}]),
        torch.optim.LBFGS(weights(), line_search_fn="strong_wolfe", max_iter=3),
        MuonWithAdamW(weights()),
        Nesterov(weights()),
    ]


@pytest.mark.parametrize("total", [1, 2, 3, 10])
@pytest.mark.parametrize("name", NAMES)
def test_every_yaml_scales_every_kind_of_optimizer(name: str, total: int) -> None:
    for opt in optimizers():
        bases = [group["lr"] for group in opt.param_groups]
        scheduler = load(name)(opt, total)
        params = [p for group in opt.param_groups for p in group["params"]]

        def closure(opt: Any = opt, params: Any = params) -> torch.Tensor:
            opt.zero_grad()
            loss = sum(((p - 0.3) ** 2 + p**4).sum() for p in params)
            loss.backward()
            return loss

        for _ in range(total):
            ratios = [g["lr"] / base for g, base in zip(opt.param_groups, bases, strict=True)]
            assert 0 < ratios[0] <= 1
            assert ratios == pytest.approx([ratios[0]] * len(ratios))
            opt.step(closure)
            if scheduler is not None:
                scheduler.step()
                scheduler.get_last_lr()
        assert all(p.isfinite().all() for p in params)
    if total == 1:
        assert factors(load(name), total)[0] == [1]


@pytest.mark.parametrize(
    ("schedule", "settings", "words"),
    [
        (schedules.warmup_cosine, {"warmup": 5}, "schedule.warmup .* between 0 and 1, not 5"),
        (schedules.warmup_constant, {"warmup": -0.1}, "schedule.warmup"),
        (schedules.warmup_constant, {"warmup": None}, "schedule.warmup"),
        (schedules.one_cycle, {"warmup": "0.3"}, "schedule.warmup"),
        (schedules.one_cycle, {"start": 0}, "schedule.start .* above 0"),
        (schedules.trapezoid, {"cooldown": 1.5}, "schedule.cooldown"),
        (schedules.trapezoid, {"warmup": 0.5, "cooldown": 0.6}, "together .* 0.5 \\+ 0.6"),
        (schedules.cosine, {"final": -1}, "schedule.final"),
        (schedules.exponential, {"final": 0}, "schedule.final .* above 0"),
        (schedules.step, {"milestones": 0.5}, "schedule.milestones must be a list"),
        (schedules.step, {"milestones": [30, 60]}, "schedule.milestones: each must be a fraction"),
        (schedules.step, {"gamma": 10}, "schedule.gamma"),
    ],
)
def test_wrong_settings_are_named(schedule: Any, settings: dict[str, Any], words: str) -> None:
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(UserError, match=words):
        schedule(opt, 100, **settings)


@pytest.mark.parametrize("wrong", [losses.mse, lambda optimizer, steps: steps])
def test_what_is_no_schedule_is_refused(wrong: Any) -> None:
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(UserError, match="schedule"):
        schedules.build(wrong, opt, 100)

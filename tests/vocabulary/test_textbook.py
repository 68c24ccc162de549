"""The textbook formulas against torch.optim: equal where the maps are, else shown to differ."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench import textbook
from optbench.common.errors import UserError

STEPS = 200
Loss = Callable[[list[Tensor]], Tensor]


def bumpy() -> tuple[list[Tensor], Loss]:
    """A small function with many minima and unequal curvatures."""
    start = torch.tensor([1.3, -0.7, 2.1, 0.4], dtype=torch.float64)
    curvature = torch.tensor([0.1, 1.0, 3.0, 10.0], dtype=torch.float64)
    return [start], lambda p: (curvature * p[0] ** 2 / 2 + torch.cos(3 * p[0])).sum()


def mlp() -> tuple[list[Tensor], Loss]:
    """A 4-8-3 network with tanh on 20 random examples."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, y = normal(20, 4), torch.arange(20) % 3

    def loss(p: list[Tensor]) -> Tensor:
        logits = torch.tanh(x @ p[0] + p[1]) @ p[2] + p[3]
        return nn.functional.cross_entropy(logits, y)

    return [normal(4, 8) / 2, normal(8) / 10, normal(8, 3) / 2, normal(3) / 10], loss


problems = pytest.mark.parametrize("problem", [bumpy, mlp])


def trajectory(
    problem: Callable[[], tuple[list[Tensor], Loss]],
    cls: Callable[..., Optimizer],
    *,
    each_step: Callable[[Optimizer, int], object] = lambda opt, k: None,
    read: Callable[[Optimizer, Tensor], Tensor] = lambda opt, p: p,
    **settings: Any,
) -> Tensor:
    """The parameters after each of STEPS steps, `(STEPS, parameters)`."""
    start, loss = problem()
    params = [p.clone().requires_grad_() for p in start]
    opt = cls(params, **settings)

    def closure() -> Tensor:
        opt.zero_grad()
        value = loss(params)
        value.backward()
        return value

    rows = []
    for k in range(STEPS):
        each_step(opt, k)
        opt.step(closure)
        rows.append(torch.cat([read(opt, p).detach().clone().flatten() for p in params]))
    return torch.stack(rows)


def assert_equal(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    assert a.isfinite().all()
    assert (a[-1] - a[0]).abs().max() > 1e-3  # it went somewhere
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def halve(opt: Optimizer, k: int) -> None:
    """A schedule: half the lr after half of the run."""
    if k == STEPS // 2:
        for group in opt.param_groups:
            group["lr"] /= 2


SAME: dict[str, tuple[Any, dict[str, Any], Any, dict[str, Any]]] = {
    "gradient_descent": (textbook.GradientDescent, {"lr": 0.02}, torch.optim.SGD, {"lr": 0.02}),
    "adagrad": (
        textbook.Adagrad,
        {"lr": 0.1, "eps": 0.1},
        torch.optim.Adagrad,
        {"lr": 0.1, "eps": 0.0, "initial_accumulator_value": 0.1},
    ),
    "adadelta": (
        textbook.Adadelta,
        {"lr": 1.0, "rho": 0.95, "eps": 1e-3},
        torch.optim.Adadelta,
        {"lr": 1.0, "rho": 0.95, "eps": 1e-3},
    ),
    "adam": (
        textbook.Adam,
        {"lr": 0.01, "betas": [0.9, 0.99], "eps": 1e-3},
        torch.optim.Adam,
        {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-3},
    ),
    "rprop": (
        textbook.Rprop,
        {"lr": 0.01, "backtracking": False},
        torch.optim.Rprop,
        {"lr": 0.01},
    ),
}


@problems
@pytest.mark.parametrize("schedule", [lambda opt, k: None, halve], ids=["constant", "halved"])
@pytest.mark.parametrize("case", SAME)
def test_the_rules_are_those_of_torch(case: str, schedule: Any, problem: Any) -> None:
    ours, settings, theirs, torch_settings = SAME[case]
    a = trajectory(problem, ours, each_step=schedule, **settings)
    assert_equal(a, trajectory(problem, theirs, each_step=schedule, **torch_settings))


@problems
def test_momentum_is_torch_while_lr_is_constant(problem: Any) -> None:
    ours = {"cls": textbook.Momentum, "lr": 0.01, "gamma": 0.9}
    theirs = {"cls": torch.optim.SGD, "lr": 0.01, "momentum": 0.9}
    assert_equal(trajectory(problem, **ours), trajectory(problem, **theirs))
    v = trajectory(problem, **ours, read=lambda opt, p: opt.state[p]["v"])
    buffer = trajectory(problem, **theirs, read=lambda opt, p: opt.state[p]["momentum_buffer"])
    torch.testing.assert_close(v, 0.01 * buffer, rtol=1e-9, atol=1e-9)


@problems
def test_momentum_differs_from_torch_once_lr_changes(problem: Any) -> None:
    settings = {"lr": 0.01, "each_step": halve}
    ours = trajectory(problem, textbook.Momentum, gamma=0.9, **settings)
    theirs = trajectory(problem, torch.optim.SGD, momentum=0.9, **settings)
    before = STEPS // 2
    assert_equal(ours[:before], theirs[:before])
    assert (ours[before:] - theirs[before:]).abs().max() > 1e-6


@problems
def test_nesterov_torch_iterates_at_the_look_ahead_point(problem: Any) -> None:
    def look_ahead(opt: Optimizer, p: Tensor) -> Tensor:
        return p - 0.9 * opt.state[p]["v"]

    theirs = trajectory(problem, torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True)
    ours = trajectory(problem, textbook.Nesterov, lr=0.01, gamma=0.9, read=look_ahead)
    assert_equal(ours, theirs)
    iterates = trajectory(problem, textbook.Nesterov, lr=0.01, gamma=0.9)
    assert (iterates - theirs).abs().max() > 1e-3


@problems
@pytest.mark.parametrize(
    ("ours", "theirs", "settings", "torch_settings"),
    [
        (textbook.Adagrad, torch.optim.Adagrad, {"lr": 0.1}, {"lr": 0.1}),
        (
            textbook.RMSProp,
            torch.optim.RMSprop,
            {"lr": 0.01, "gamma": 0.9},
            {"lr": 0.01, "alpha": 0.9},
        ),
    ],
    ids=["adagrad", "rmsprop"],
)
def test_epsilon_stands_inside_the_root_unlike_torchs(
    ours: Any, theirs: Any, settings: Any, torch_settings: Any, problem: Any
) -> None:
    large = trajectory(problem, ours, **settings, eps=0.1)
    assert (large - trajectory(problem, theirs, **torch_settings, eps=0.1)).abs().max() > 1e-3
    small = trajectory(problem, ours, **settings, eps=1e-40)
    theirs_small = trajectory(problem, theirs, **torch_settings, eps=1e-20)
    # without eps, RMSProp's steps keep their length at a minimum, and rounding grows from there
    assert_equal(small, theirs_small, tolerance=1e-6)


@problems
def test_adam_without_bias_correction_is_torch_with_lr_and_eps_rescaled(problem: Any) -> None:
    lr, eps, (beta1, beta2) = 0.01, 1e-3, (0.9, 0.99)

    def undo_correction(opt: Optimizer, k: int) -> None:
        root = (1 - beta2 ** (k + 1)) ** 0.5
        opt.param_groups[0]["lr"] = lr * (1 - beta1 ** (k + 1)) / root
        opt.param_groups[0]["eps"] = eps / root

    settings = {"lr": lr, "betas": (beta1, beta2), "eps": eps}
    ours = trajectory(problem, textbook.Adam, bias_correction=False, **settings)
    assert_equal(ours, trajectory(problem, torch.optim.Adam, each_step=undo_correction, **settings))
    assert (ours - trajectory(problem, torch.optim.Adam, **settings)).abs().max() > 1e-3


def test_first_step_of_adam_without_bias_correction_is_longer() -> None:
    steps = {}
    for correction in (True, False):
        theta = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        theta.grad = torch.ones_like(theta)
        textbook.Adam([theta], lr=1.0, bias_correction=correction).step()
        steps[correction] = -theta.item()
    assert steps[False] / steps[True] == pytest.approx(0.1 / 0.001**0.5)


def test_rprop_goes_the_way_computed_by_hand() -> None:
    """Signs + + - +: grows, jumps, is taken back (or rests), then goes on with the old Delta."""

    def path(backtracking: bool) -> list[float]:
        theta = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        opt = textbook.Rprop([theta], lr=0.1, backtracking=backtracking)
        values = []
        for g in (1.0, 2.0, -3.0, 1.0):
            theta.grad = torch.full_like(theta, g)
            opt.step()
            values.append(theta.item())
        return values

    assert path(True) == pytest.approx([-0.1, -0.22, -0.1, -0.16])
    assert path(False) == pytest.approx([-0.1, -0.22, -0.22, -0.28])


RULES = [
    textbook.GradientDescent,
    textbook.Momentum,
    textbook.Nesterov,
    textbook.Adagrad,
    textbook.RMSProp,
    textbook.Adadelta,
    textbook.Adam,
    textbook.Rprop,
]


@pytest.mark.parametrize("rule", RULES)
def test_parameters_without_a_gradient_rest(rule: Any) -> None:
    a, b, unused = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    opt = rule([{"params": [a, unused], "lr": 0.02}, {"params": [b], "lr": 0.0}])

    def closure() -> Tensor:
        opt.zero_grad()
        loss = (a**2 + b**2).sum()
        loss.backward()
        return loss

    assert opt.step(closure).item() == 6
    opt.step(closure)
    assert (a < 1).all()
    assert (unused == 1).all()
    if rule is not textbook.Rprop:  # its lr is clamped to the smallest step size
        assert (b == 1).all()


def test_nesterov_needs_a_closure_and_restores_exactly() -> None:
    theta = torch.tensor([0.1, 1e-9, 1e9], requires_grad=True)
    opt = textbook.Nesterov([theta], lr=1e-3)
    with pytest.raises(UserError, match="closure"):
        opt.step()
    seen = []

    def closure() -> Tensor:
        opt.zero_grad()
        seen.append(theta.detach().clone())
        loss = (theta**2).sum()
        loss.backward()
        return loss

    opt.step(closure)
    before = theta.detach().clone()
    v = opt.state[theta]["v"].clone()
    loss = opt.step(closure)
    assert torch.equal(seen[1], before - 0.9 * v)
    assert torch.equal(loss.detach(), (seen[1] ** 2).sum())
    assert torch.equal(theta.detach(), before - opt.state[theta]["v"])

    def failing() -> Tensor:
        raise RuntimeError("no gradient")

    before = theta.detach().clone()
    with pytest.raises(RuntimeError, match="no gradient"):
        opt.step(failing)
    assert torch.equal(theta.detach(), before)


@pytest.mark.parametrize(
    ("rule", "settings", "words"),
    [
        (textbook.GradientDescent, {"lr": -0.1}, "GradientDescent: lr .* at least 0, not -0.1"),
        (textbook.GradientDescent, {"lr": float("nan")}, "lr"),
        (textbook.GradientDescent, {"lr": "0.1"}, "lr must be a number"),
        (textbook.Momentum, {"gamma": 1.0}, "gamma must be .* below 1"),
        (textbook.RMSProp, {"gamma": -0.1}, "gamma"),
        (textbook.Adagrad, {"eps": -1e-8}, "eps"),
        (textbook.Adadelta, {"rho": 1}, "rho"),
        (textbook.Adam, {"betas": [0.9, 1.0]}, "second of betas"),
        (textbook.Adam, {"betas": 0.9}, "betas must be two numbers"),
        (textbook.Rprop, {"etas": [0.5, 0.9]}, "second of etas must be .* at least 1"),
        (textbook.Rprop, {"step_sizes": [1.0, 0.1]}, "second of step_sizes"),
    ],
)
def test_settings_out_of_range_are_named(rule: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        rule([torch.ones(1, requires_grad=True)], **settings)

"""Run an optimizer on a function of two variables, and measure its trajectory."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench import optimizers
from optbench.problem import stream
from optbench.training.object_state.global_state import kept
from optbench.trajectories.functions import Function, Point

LEARNING_RATES = [10 ** (k / 4) for k in range(-16, 5)]  # 1e-4 to 10, for lr=best


DIVERGED = 1e6  # times the first loss, or 1: a path that ends higher is lost, though still finite


class Trajectory(NamedTuple):
    """The path of an optimizer; it ends before the first value that is not finite."""

    label: str
    name: str  # of the optimizer
    points: np.ndarray  # (steps + 1, 2), the start first
    losses: np.ndarray  # (steps + 1,), without noise
    gradients: np.ndarray | None = None  # (steps, 2), with noise, as the optimizer saw them


def run_optimizer(
    function: Function,
    optimizer: Callable[..., Optimizer],
    *,
    steps: int = 200,
    start: Point | None = None,
    noise: float | None = None,
    seed: int = 0,
) -> Trajectory:
    """Take `steps` steps from `start`, in float64.

    noise: standard deviation of a normal vector that is added to each step's gradient; None is the
    function's own. All optimizers with one seed see the same vectors.
    """
    module = nn.Module()
    theta = nn.Parameter(torch.tensor(start or function.start, dtype=torch.float64))
    module.register_parameter("theta", theta)
    noise = function.noise if noise is None else noise
    generator = stream(seed, "noise")
    points, gradients = [theta.detach().clone()], []
    with kept(optimizer):
        factory = optimizers.with_budget(optimizer, {"total_steps": steps})
        opt = optimizers.build(factory, module)
        for _ in range(steps):
            push = noise * torch.randn(2, generator=generator, dtype=torch.float64)

            @torch.enable_grad()  # as in training: `step` may be without gradients
            def closure(push: Tensor = push) -> Tensor:
                opt.zero_grad()
                loss = function.value(theta[0], theta[1]) + push @ theta
                loss.backward()
                return loss

            opt.step(closure)  # type: ignore[arg-type]  # the stubs want a float
            point = theta.detach().clone()
            if not (point.isfinite().all() and function.value(point[0], point[1]).isfinite()):
                break
            points.append(point)
            gradients.append(theta.grad.clone() if theta.grad is not None else torch.zeros(2))
    path = torch.stack(points)
    losses = function.value(path[:, 0], path[:, 1])
    seen = torch.stack(gradients).numpy() if gradients else None
    return Trajectory("", "", path.numpy(), losses.numpy(), seen)


def follow_best(
    function: Function,
    optimizer: Callable[..., Optimizer],
    *,
    steps: int = 200,
    start: Point | None = None,
    noise: float | None = None,
    seed: int = 0,
) -> tuple[Trajectory, float]:
    """Return the trajectory of the best of `LEARNING_RATES`, and that rate.

    The best rate settles at a minimum first. If none does, the best rate ends lowest. The arguments
    are those of `run_optimizer`.
    """
    found = []
    for lr in LEARNING_RATES:
        path = run_optimizer(
            function, partial(optimizer, lr=lr), steps=steps, start=start, noise=noise, seed=seed
        )
        row = measure(function, path, steps)
        found.append((row["steps_settled"], row["diverged"], row["loss"], lr, path))
    *_, lr, path = min(found, key=lambda entry: entry[:4])
    return path, lr


def measure(
    function: Function, path: Trajectory, steps: int, tolerance: float = 0.05
) -> dict[str, Any]:
    """Return the measures of a trajectory, a row of the table.

    steps_to_minimum: the first step within `tolerance` of a global minimum, inf without one;
    steps_settled: the first after which it stays there. distance: length of the whole path;
    straight: of the line from start to end. overshoot: how far the path went beyond the minimum
    nearest to its end, in the direction from start to minimum. last_to_first_step: quotient of the
    lengths of these steps; effective_step: the same quotient after each was divided by the length
    of its gradient (1 for gradient descent).
    """
    points = path.points
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    minima = np.array(function.minima)
    away = np.linalg.norm(points[:, None] - minima, axis=2)  # (steps + 1, minima)
    near = away.min(axis=1) <= tolerance
    grown = path.losses[-1] > DIVERGED * max(abs(path.losses[0]), 1.0)
    diverged = len(points) < steps + 1 or bool(grown)
    target = minima[away[-1].argmin()]
    direction = (target - points[0]) / max(float(np.linalg.norm(target - points[0])), 1e-300)
    left = np.flatnonzero(~near)
    settled = 0 if not len(left) else int(left[-1]) + 1
    return {
        "function": function.name,
        "optimizer": path.label,
        "steps_to_minimum": int(near.argmax()) if near.any() else math.inf,
        "steps_settled": settled if near[-1] and not diverged else math.inf,
        "distance": float(lengths.sum()),
        "straight": float(np.linalg.norm(points[-1] - points[0])),
        "overshoot": max(float(((points - target) @ direction).max()), 0.0),
        **step_shrinkage(lengths, path.gradients),
        "x": float(points[-1, 0]),
        "y": float(points[-1, 1]),
        "loss": float(path.losses[-1]),
        "diverged": diverged,
    }


def step_shrinkage(lengths: np.ndarray, gradients: np.ndarray | None) -> dict[str, float]:
    """Return the last step's length over the first's, plain and per gradient length.

    lengths: (steps,), of the steps. A gradient below 1e-6 of the first does not count for
    effective_step: its step is lost in the rounding of the point. NaN without steps.
    """
    if gradients is None or not len(lengths) or not lengths[0]:
        return {"last_to_first_step": math.nan, "effective_step": math.nan}
    sizes = np.linalg.norm(gradients, axis=1)
    factors = (lengths / np.maximum(sizes, 1e-300))[sizes > 1e-6 * sizes[0]]
    effective = float(factors[-1] / factors[0]) if len(factors) else math.nan
    return {"last_to_first_step": float(lengths[-1] / lengths[0]), "effective_step": effective}

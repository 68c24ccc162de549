"""Plain loops of torch, in float32 and in float64, against which faster ways are held.

Two ways that round differently are both compared with the same run in float64: the distance of the
faster one is at most twice that of plain float32, plus 1e-6.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from optbench import optimizers, schedules
from optbench.batches import Batches
from optbench.problem import Problem, build_model, stream, weight_penalty


class Run(NamedTuple):
    """Losses (steps,), parameters and buffers after the last one, in the model's order."""

    losses: Tensor
    weights: list[Tensor]


def plain_run(
    problem: Problem,
    optimizer: Callable[..., torch.optim.Optimizer],
    dtype: torch.dtype,
    *,
    seed: int = 0,
    schedule: Callable[..., Any] | None = None,
    decay_biases_and_norms: bool = True,
    **_: Any,
) -> Run:
    """Train by the loop that everybody writes, from the weights that float32 begins with."""
    data, model = problem.dataset, build_model(problem, seed).to(dtype)
    generator = stream(seed, "dropout")
    for module in model.modules():
        if hasattr(module, "generator"):
            vars(module)["generator"] = generator
    opt = optimizers.build(optimizer, model, decay_biases_and_norms=decay_biases_and_norms)
    scheduler = schedules.build(schedule, opt, problem.total_steps) if schedule else None
    batches, losses = Batches(problem, seed), []
    while len(losses) < problem.total_steps:
        for batch in batches.epoch()[: problem.total_steps - len(losses)]:
            chosen = slice(None) if isinstance(batch, range) else batch
            x, y = data.train_x[chosen].to(dtype), data.train_y[chosen]

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                opt.zero_grad()
                loss = problem.loss(model(x), y)
                if problem.weight_penalty:
                    loss = loss + weight_penalty(problem, model)
                loss.backward()
                return loss

            losses.append(opt.step(closure).detach())
            if scheduler is not None:
                scheduler.step()
    return Run(torch.stack(losses), weights_of(model))


def weights_of(model: nn.Module) -> list[Tensor]:
    return [t.detach().clone() for t in (*model.parameters(), *model.buffers())]


def distance(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The size of the difference as a share of the exact one's."""
    a, b = (torch.cat([t.double().flatten() for t in tensors]) for tensors in (found, exact))
    return ((a - b).norm() / b.norm()).item()


def check_near(own: Run, plain: Run, exact: Run) -> None:
    for name, found, usual, right in (
        ("losses", [own.losses], [plain.losses], [exact.losses]),
        ("weights", own.weights, plain.weights, exact.weights),
    ):
        allowed = 2 * distance(usual, right) + 1e-6
        assert distance(found, right) <= allowed, (name, distance(found, right), allowed)

"""Plain loops of torch, in float32 and in float64, against which faster ways are held.

Two ways that round differently are both compared with the same run in float64: the distance of the
faster one is at most twice that of plain float32, plus 1e-6.

Where the input of a ReLU comes so near to 0 that a rounding decides on its slope, either way may
take the other side, and from there on their distances are luck: there the comparison ends.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from optbench import optimizers, schedules
from optbench.problem import Problem, build_model, stream, weight_penalty
from optbench.training.batches import Batches

KINKED = (nn.ReLU, nn.LeakyReLU, nn.ELU)  # but for nn.ELU(alpha=1)
NEAR_KINK = 1e-5  # ten times what float32 is off after 1,000 steps, of inputs of size 1


class Run(NamedTuple):
    """Losses (steps,), parameters and buffers after the last one, in the model's order.

    smooth: the steps before the first one that came near a kink.
    """

    losses: Tensor
    weights: list[Tensor]
    smooth: float = inf


class Kinks:
    """How near the inputs of a model's kinked activations come to 0."""

    def __init__(self, model: nn.Module) -> None:
        self.steps, self.smooth = 0, inf
        for module in model.modules():
            if type(module) in KINKED and getattr(module, "alpha", 0.0) != 1.0:
                module.register_forward_pre_hook(self._see)

    def _see(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        if self.smooth == inf and inputs[0].detach().abs().min() < NEAR_KINK:
            self.smooth = self.steps


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
    kinks, batches, losses = Kinks(model), Batches(problem, seed), []
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
            kinks.steps += 1
            if scheduler is not None:
                scheduler.step()
    return Run(torch.stack(losses), weights_of(model), kinks.smooth)


def weights_of(model: nn.Module) -> list[Tensor]:
    tensors = (*model.parameters(), *model.buffers())
    return [t.detach().clone() for t in tensors if t.is_floating_point()]  # no counters


def distance(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The size of the difference as a share of the exact one's."""
    a, b = (torch.cat([t.double().flatten() for t in tensors]) for tensors in (found, exact))
    return ((a - b).norm() / b.norm()).item()


def check_near(own: Run, plain: Run, exact: Run, nudged: Sequence[Run] = ()) -> None:
    """Hold a run to the rule above, as far as the exact one is smooth.

    nudged: further plain runs in float32, from weights that differ by their last bit. Where a run
    amplifies rounding, how far one of them comes is luck, and the farthest counts.
    """
    steps = int(min(exact.smooth + 1, len(exact.losses)))  # the loss itself has no jump
    usual = [plain, *nudged]
    parts = [("losses", *([run.losses[:steps]] for run in (own, exact, *usual)))]
    if exact.smooth >= len(exact.losses):
        parts.append(("weights", *(run.weights for run in (own, exact, *usual))))
    for name, found, right, *others in parts:
        allowed = 2 * max(distance(other, right) for other in others) + 1e-6
        assert distance(found, right) <= allowed, (name, distance(found, right), allowed)

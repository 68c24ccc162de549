"""The update that the training loop yields, and the type `Engine`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench.problem import Problem
from optbench.training.evaluation import Row
from optbench.training.recipes import Recipe

LayerRow = dict[str, float | str | None]  # of layers.csv, by column


@dataclass
class Update:
    """What happened since the last update.

    steps: rows of steps.csv. layers: rows of layers.csv. epoch: a row of epochs.csv, or None
    between evaluations. loss: of the last mini-batch.
    status: "running", and in the last update "completed", "diverged" or "interrupted".
    stopped: why a completed run ended before its budget of steps: "early_stopping", "stop_at" (its
    target was reached) or "budget_seconds". None: the run took all steps.
    """

    step: int
    total_steps: int
    steps: list[Row] = field(default_factory=list)
    layers: list[LayerRow] = field(default_factory=list)
    epoch: Row | None = None
    loss: float | None = None
    status: str = "running"
    stopped: str | None = None


@runtime_checkable
class StepEngine(Protocol):
    """A way to take many training steps in a call, with the results of plain steps.

    The results are equal within the rounding of float32. name: written to run.json.
    """

    name: str

    def steps(
        self, x: Tensor, y: Tensor, batches: Sequence[Tensor], lrs: Sequence[Sequence[float]]
    ) -> Tensor:
        """Take a step with each batch, and return the batches' losses (k,).

        x, y: all examples and labels. batches: indices into x and y, all of one size.
        lrs: the lr of each group at each step. The optimizer has taken a plain step before.
        """

    def rebind(self) -> None:
        """Find the weights and the optimizer's state again, after both were restored."""


@runtime_checkable
class GradientEngine(Protocol):
    """A way to compute a batch's gradients, which any optimizer may use.

    The gradients equal torch's within the rounding of float32.
    name: written to run.json. paused: seconds that calls spent on compilation, during which the
    clock stops; the caller resets them. draws: whether calls may use the global generators.
    """

    name: str
    paused: float
    draws: bool

    def gradients(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Put the gradients of a batch's loss into `p.grad`, and return the scalar loss.

        Return None, and change nothing, for a batch or a model that the engine does not serve.
        """


Engine = StepEngine | GradientEngine

# makes the engine of a new training; None for plain steps
EngineFactory = Callable[[Problem, nn.Module, Optimizer, LRScheduler | None, Recipe], Engine | None]


def next_lrs(optimizer: Optimizer, scheduler: LRScheduler | None, steps: int) -> list[list[float]]:
    """Return the lr of each group at each of the next steps, and advance the schedule."""
    lrs = []
    for _ in range(steps):
        lrs.append([float(group["lr"]) for group in optimizer.param_groups])
        if scheduler is not None:
            scheduler.step()
    return lrs

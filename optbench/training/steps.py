"""What the loop tells of its steps, and the type of what takes many of them in a call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench.problem import Problem
from optbench.training.evaluation import Row
from optbench.training.layer_stats import LayerRow


@dataclass
class Update:
    """What happened since the last update.

    steps: rows of steps.csv. layers: rows of layers.csv. epoch: a row of epochs.csv, or None
    between evaluations. loss: of the last mini-batch.
    status: "running", and in the last update "completed", "diverged" or "interrupted".
    """

    step: int
    total_steps: int
    steps: list[Row] = field(default_factory=list)
    layers: list[LayerRow] = field(default_factory=list)
    epoch: Row | None = None
    loss: float | None = None
    status: str = "running"


class Engine(Protocol):
    """Takes many training steps in a call, with the results of plain steps.

    name: written to run.json. exact: bit for bit, or within the rounding of float32.
    """

    name: str
    exact: bool

    def steps(
        self, x: Tensor, y: Tensor, batches: Sequence[Tensor], lrs: Sequence[Sequence[float]]
    ) -> Tensor:
        """Take a step with each batch, and return their losses (k,).

        x, y: the examples and labels of which the batches, all of one size, are indices.
        lrs: of each step, the lr of each group. The optimizer has taken a step of its own before.
        """

    def rebind(self) -> None:
        """Look again where weights and state lie, after they were restored."""


# of a new training: its engine, or None for plain steps
EngineFactory = Callable[[Problem, nn.Module, Optimizer, LRScheduler | None], Engine | None]


def next_lrs(optimizer: Optimizer, scheduler: LRScheduler | None, steps: int) -> list[list[float]]:
    """Return the lr of each group at each of the next steps; the schedule moves on by these."""
    lrs = []
    for _ in range(steps):
        lrs.append([float(group["lr"]) for group in optimizer.param_groups])
        if scheduler is not None:
            scheduler.step()
    return lrs

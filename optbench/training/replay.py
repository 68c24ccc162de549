"""Compiled steps of one training, many in a call, as long as they give what plain steps give."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

# of the examples, the labels, the indices of each batch and each step's lr of each group: losses
Steps = Callable[[Tensor, Tensor, Sequence[Tensor], Sequence[Sequence[float]]], Tensor]


class Replay:
    """Takes compiled steps, and moves the schedule on with them.

    bind: makes the steps, once the optimizer has taken a step of its own, so that its state exists.
    """

    def __init__(
        self, bind: Callable[[], Steps], optimizer: Optimizer, scheduler: LRScheduler | None
    ) -> None:
        self._bind, self.optimizer, self.scheduler = bind, optimizer, scheduler
        self._steps: Steps | None = None

    def forget(self) -> None:
        """Bind the steps again: the optimizer's state lies elsewhere now."""
        self._steps = None

    def take(self, x: Tensor, y: Tensor, batches: Sequence[Tensor]) -> tuple[Tensor, list[float]]:
        """Take a step with each batch, of equal sizes: losses (k,) and learning rates.

        x, y: the examples and labels of which the batches are indices.
        """
        if self._steps is None:
            self._steps = self._bind()
        rates = self._rates(len(batches))
        return self._steps(x, y, batches, rates), [row[0] for row in rates]

    def _rates(self, steps: int) -> list[list[float]]:
        """Of each of the next steps, the lr of each group; the schedule moves on."""
        rates = []
        for _ in range(steps):
            rates.append([float(group["lr"]) for group in self.optimizer.param_groups])
            if self.scheduler is not None:
                self.scheduler.step()
        return rates

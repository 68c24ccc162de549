"""Count the forward and backward passes of training steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass
class Spent:
    """The passes of all steps so far.

    forwards: passes of a batch through the model. gradients: backward passes; a product of the
    Hessian with a vector counts as one.
    """

    forwards: int = 0
    gradients: int = 0

    def add_gradient(self) -> None:
        """Count a pass through the model and back."""
        self.forwards += 1
        self.gradients += 1

    @property
    def passes(self) -> tuple[int, int]:
        """Return the passes forward and back."""
        return self.forwards, self.gradients

    def count_products(self, parameters: Sequence[nn.Parameter]) -> None:
        """Count the Hessian-vector products that the optimizer's next step computes."""
        first = next((p.grad for p in parameters if p.grad is not None), None)
        if first is not None and first.requires_grad:
            first.register_hook(self._count_product)

    def _count_product(self, _: Tensor) -> None:
        self.gradients += 1


def wants_graph_now(optimizer: Optimizer) -> bool:
    """Return whether the next step uses the gradients' graph; True if not known.

    Classes of pytorch_optimizer (AdaHessian, SophiaH) use it in every `update_period`-th step.
    """
    period = getattr(optimizer, "update_period", None)
    taken = optimizer.param_groups[0].get("step", 0)
    counted = isinstance(period, int) and isinstance(taken, int) and period > 0
    return not counted or taken % period == 0

"""What steps compute, counted: passes through the model, and passes back."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass
class Spent:
    """The passes of all steps so far.

    forwards: passes of a batch through the model. gradients: passes back, of which a product of
    the Hessian with a vector is one.
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
        """Count the products with the Hessian that an optimizer takes of the gradients' graph."""
        first = next((p.grad for p in parameters if p.grad is not None), None)
        if first is not None and first.requires_grad:
            first.register_hook(self._count_product)

    def _count_product(self, _: Tensor) -> None:
        self.gradients += 1


def wants_graph_now(optimizer: Optimizer) -> bool:
    """Return whether the next step uses the gradients' graph, where that is known.

    Classes of pytorch_optimizer (AdaHessian, SophiaH) do so in every `update_period`-th step.
    """
    period = getattr(optimizer, "update_period", None)
    taken = optimizer.param_groups[0].get("step", 0)
    counted = isinstance(period, int) and isinstance(taken, int) and period > 0
    return not counted or taken % period == 0

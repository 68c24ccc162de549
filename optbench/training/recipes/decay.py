"""Apply weight decay in a chosen form: coupled, decoupled or independent."""

import torch
from torch.optim import Optimizer

from optbench.common.errors import UserError
from optbench.torch_internals import add_each, multiply_each

FORMS = ("coupled", "decoupled", "independent")


class Decay:
    """Weight decay of one form, in place of the optimizer's own.

    coupled: adds weight_decay * w to the gradient (L2 regularization). decoupled: w becomes
    (1 - lr * weight_decay) * w before a step (Loshchilov & Hutter 2019, as torch's AdamW).
    independent: (1 - factor * weight_decay) * w, where the factor is the schedule's alone, so that
    lr changes nothing (Wortsman et al. 2023).
    """

    def __init__(self, form: str, optimizer: Optimizer) -> None:
        """Take weight_decay from the optimizer's groups, and set it to 0 there.

        Raises `UserError` if no group has one, and for schedule-free optimizers and those whose
        group has a step size "d" (Prodigy), since a form would not mean what it says.
        """
        if not any("weight_decay" in group for group in optimizer.param_groups):
            raise UserError(
                f"decay_form={form} needs an optimizer with weight_decay, and "
                f"{type(optimizer).__name__} has none: set decay_form=null or choose another"
            )
        if callable(getattr(optimizer, "train", None)) or "d" in optimizer.param_groups[0]:
            raise UserError(
                f"decay_form={form} moves the weights by the learning rate, and "
                f"{type(optimizer).__name__} keeps other weights beside them, or finds its own "
                f"step size: set decay_form=null, and its own weight_decay applies"
            )
        self.form = form
        self.amounts = [float(group.get("weight_decay", 0.0)) for group in optimizer.param_groups]
        self.rates = [float(group.get("lr", 1.0)) for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            if "weight_decay" in group:
                group["weight_decay"] = 0.0

    @torch.no_grad()
    def apply(self, optimizer: Optimizer) -> None:
        """Decay the weights, or add to the gradients, before a step of the optimizer."""
        for group, amount, first in zip(
            optimizer.param_groups, self.amounts, self.rates, strict=True
        ):
            if not amount:
                continue
            weights = [p for p in group["params"] if p.grad is not None]
            if self.form == "coupled":
                add_each([p.grad for p in weights if p.grad is not None], weights, amount)
                continue
            rate = float(group.get("lr", 1.0))
            scale = rate if self.form == "decoupled" else rate / first if first else 0.0
            multiply_each(weights, 1 - scale * amount)

"""Learn without backpropagation, by perturbing one weight at a time.

This is what backpropagation replaced (Hinton 2012, lecture 3d). The direction is the same, but it
takes as many evaluations of the loss as there are weights.
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optbench.common.errors import UserError
from optbench.textbook import Closure, Textbook

MAX_WEIGHTS = 10_000  # a step then takes seconds


class WeightPerturbation(Textbook):
    """g_i = (L(theta + delta e_i) - L(theta)) / delta;  theta -= eta g.

    A step evaluates the loss once where it is, and once more for each weight: n + 1 times with n
    weights, where the gradient takes one evaluation and one backward pass. delta: how far a weight
    is moved. The error of g_i is about delta / 2 times the second derivative. Below a delta of 1e-3
    the rounding of a float32 loss dominates. The model must have no dropout or noise, which would
    change the loss from one evaluation to the next. evaluations: of the loss, in all steps so far.
    """

    def __init__(self, params: ParamsT, lr: float = 0.1, delta: float = 0.01) -> None:
        self.check("delta", delta)
        if not delta:
            raise UserError("WeightPerturbation: delta must be above 0, not 0")
        super().__init__(params, lr, delta=delta)
        self.evaluations = 0
        weights = sum(p.numel() for group in self.param_groups for p in group["params"])
        if weights > MAX_WEIGHTS:
            raise UserError(
                f"WeightPerturbation evaluates the loss once for each weight, {weights:,} times in "
                f"each step of this model, and is for at most {MAX_WEIGHTS:,}: choose a smaller "
                f"model, such as model=logreg dataset=wine, or another optimizer"
            )

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Take one step; return the closure's loss where the weights are."""
        if closure is None:
            raise UserError(
                "WeightPerturbation evaluates the loss for each weight, so step needs a closure: "
                "define closure() with the forward pass and `return loss`, and call "
                "optimizer.step(closure)"
            )
        here = self._evaluate(closure)
        slopes: list[tuple[Tensor, Tensor, float]] = []
        for group in self.param_groups:
            for theta in group["params"]:
                found = self._slopes(theta, group["delta"], closure, here)
                slopes.append((theta, found, group["lr"]))
        for theta, g, lr in slopes:  # when all are known, from one point
            theta -= lr * g
        return here

    def _slopes(self, theta: Tensor, delta: float, closure: Closure, here: Any) -> Tensor:
        """Return the difference quotient of each weight of a parameter."""
        found = torch.empty_like(theta)
        for place in product(*map(range, theta.shape)):
            before = theta[place].clone()
            theta[place] += delta
            found[place] = (self._evaluate(closure) - here) / (theta[place] - before)
            theta[place] = before  # subtracting delta would not restore the last bits
        return found

    def _evaluate(self, closure: Closure) -> Tensor:
        self.evaluations += 1
        with torch.enable_grad():
            loss = closure()
        return torch.as_tensor(loss).detach()

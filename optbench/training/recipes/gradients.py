"""Compute a step's gradients: in micro-batches, of a scaled loss, and clipped."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from optbench.problem import Problem
from optbench.training.recipes.decay import Decay


class Gradients:
    """The gradients of one optimizer's steps, by the recipe of a training.

    scaler: scales the loss at precision=float16, where small gradients would otherwise underflow to
    0. None at the other precisions.
    """

    def __init__(
        self,
        *,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        batch_examples: int = 1,
        scaler: GradScaler | None = None,
    ) -> None:
        """Prepare the gradients. batch_examples: of a whole batch."""
        self.decay: Decay | None = None  # before each step
        self.clip_norm, self.clip_value, self.scaler = clip_norm, clip_value, scaler
        self.micro_examples = batch_examples // accumulate if accumulate > 1 else None

    def backward(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        graph_of: Sequence[nn.Parameter] | None = None,
    ) -> Tensor:
        """Add the gradients of a batch's loss to `p.grad`, and return the loss.

        graph_of: parameters whose gradients are to be differentiated again. With micro-batches, the
        loss is the mean over the examples of their losses, as a mean over the whole batch would be.
        Batch norm and dropout see each micro-batch by itself.
        """
        # the fast kernels of attention have no second derivative
        around = sdpa_kernel(SDPBackend.MATH) if graph_of is not None else nullcontext()
        with around:
            return self._backward(loss, x, y, graph_of)

    def _backward(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        graph_of: Sequence[nn.Parameter] | None,
    ) -> Tensor:
        if self.micro_examples is None or len(x) <= self.micro_examples:
            value = loss(x, y)
            self._differentiate(value, graph_of)
            return value
        total: Tensor | None = None
        for part in micro_batches(len(x), self.micro_examples):
            value = loss(x[part], y[part]) * ((part.stop - part.start) / len(x))
            self._differentiate(value, graph_of)
            total = value.detach() if total is None else total + value.detach()
        assert total is not None
        return total

    def finish(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        """Undo the scale of the gradients in `p.grad`, then clip by value and by norm."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        if self.clip_value is not None:
            clip_grad_value_(parameters, self.clip_value)
        if self.clip_norm is not None:
            clip_grad_norm_(parameters, self.clip_norm)

    def step(self, optimizer: Optimizer, take: Callable[[], object]) -> None:
        """Let the optimizer step; with a scale, only if all gradients are finite.

        take: takes the step, with its closure, if there is no scale.
        """
        if self.decay is not None:
            self.decay.apply(optimizer)
        if self.scaler is None:
            take()
        else:  # torch's scaler takes no closure
            self.scaler.step(optimizer)
            self.scaler.update()

    def _differentiate(self, loss: Tensor, graph_of: Sequence[nn.Parameter] | None) -> None:
        if graph_of is None:
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            return
        # not by `backward(create_graph=True)`, which warns of a cycle that the next step breaks
        found = torch.autograd.grad(loss, graph_of, create_graph=True, allow_unused=True)
        for p, gradient in zip(graph_of, found, strict=True):
            if gradient is not None:
                # a clone, since clipping changes the gradient in place; torch 2.13 crashed if that
                # gradient was a view of the graph
                p.grad = gradient.clone() if p.grad is None else p.grad + gradient


def micro_batches(examples: int, size: int) -> Iterator[slice]:
    """Yield the slices of a batch; a lone last example joins the slice before it.

    Batch norm has no variance of one example, and `Batches` treats a lone example alike.
    """
    starts = list(range(0, examples, size))
    if size > 1 and examples % size == 1 and len(starts) > 1:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], examples], strict=True):
        yield slice(start, stop)


def scaler_of(problem: Problem, device: torch.device) -> GradScaler | None:
    """Return the loss scaler of precision=float16, None at the other precisions."""
    return GradScaler(device.type) if problem.precision == "float16" else None

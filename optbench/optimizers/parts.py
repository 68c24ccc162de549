"""Several optimizers as one, each with parameters of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Parted(Optimizer):
    """Optimizers that step together, each on its own parameter groups.

    The parts share groups and state with this optimizer, so that one schedule and one checkpoint
    serve all. `flat` says of each part whether it sees kernels as matrices: a parameter of shape
    (out, in, height, width) as (out, in * height * width).
    """

    def __init__(
        self,
        parts: Sequence[Optimizer],
        flat: Sequence[bool] = (),
        defaults: dict[str, Any] | None = None,
    ) -> None:
        """Take the parts with their groups. defaults: what a new group would have."""
        self.parts = list(parts)
        self.flat = [*flat] or [False] * len(self.parts)
        groups = [group for part in self.parts for group in part.param_groups]
        super().__init__(groups, defaults or {})
        self._share()

    def _share(self) -> None:
        """Let the parts use this optimizer's own groups and state."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"parts": self.parts, "flat": self.flat}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # also at the end of load_state_dict, with new groups
        self._share()

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Let each part take a step with the gradients that are there."""
        for part, flat in zip(self.parts, self.flat, strict=True):
            if flat:
                with flattened(parameters_of(part)):
                    part.step()
            else:
                part.step()


class PartedWithModes(Parted):
    """Parts of which some have other weights for evaluation than for training."""

    def train(self) -> None:
        """Switch the parts that have modes to training."""
        self._switch("train")

    def eval(self) -> None:
        """Switch the parts that have modes to evaluation."""
        self._switch("eval")

    def _switch(self, name: str) -> None:
        for part in self.parts:
            if callable(switch := getattr(part, name, None)):
                switch()


def joined(parts: Sequence[Optimizer], flat: Sequence[bool]) -> Parted:
    """Return the parts as one optimizer, with modes if a part has modes."""
    modes = any(callable(getattr(part, "eval", None)) for part in parts)
    return (PartedWithModes if modes else Parted)(parts, flat)


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return the parameters of all groups."""
    return [p for group in optimizer.param_groups for p in group["params"]]


@contextmanager
def flattened(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Show parameters of more than two dimensions, and their gradients, as matrices.

    Within the block a kernel's `data` is a matrix of the same numbers. After it, the kernel has its
    shape and layout back, with the numbers that the block left.
    """
    kept: list[tuple[nn.Parameter, Tensor, Tensor | None]] = []
    for p in parameters:
        if p.ndim > 2:
            kept.append((p, p.data, p.grad))
            gradient, p.grad = p.grad, None
            p.data = p.data.flatten(1)  # a view, or a copy of channels-last weights
            if gradient is not None:
                p.grad = gradient.detach().flatten(1)
    try:
        yield
    finally:
        for p, data, gradient in kept:
            matrix, p.grad = p.data, None
            p.data = data
            if matrix.data_ptr() != data.data_ptr():
                data.copy_(matrix.view(data.shape))
            p.grad = gradient

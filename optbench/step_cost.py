"""What a step of an optimizer costs: its time and its memory, beside every count of steps."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class StepCost(NamedTuple):
    """Of one `step()`, without the forward and backward pass."""

    milliseconds: float  # the median of `steps` calls
    low: float  # the fastest and the slowest call
    high: float
    steps: int
    state_bytes: int
    parameters: int

    @property
    def bytes_per_parameter(self) -> float:
        """Optimizer state for each trained number; Adam in float32: 8."""
        return self.state_bytes / self.parameters


def step_cost(
    build: Callable[[Iterable[nn.Parameter]], Optimizer],
    parameters: Iterable[nn.Parameter] | nn.Module,
    steps: int = 20,
    warmup: int = 3,
    seed: int = 0,
) -> StepCost:
    """Time `step()` and count the state of a configured optimizer.

    build: parameters to optimizer (an `optimizer` partial of a config). parameters: a module or
    its parameters, of which copies are stepped, so that the module is left as it was. Gradients
    are random normal numbers, the same before each step. State is every tensor in
    `optimizer.state`, counted once however often it is referred to. An optimizer that calls its
    closure is given one that returns a constant: its time is that of its own arithmetic.
    """
    given = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    copies = [nn.Parameter(p.detach().clone()) for p in given if p.requires_grad]
    if not copies:
        raise ValueError("there is no parameter that is trained")
    device = copies[0].device
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(p.shape, generator=generator).to(p) for p in copies]
    optimizer = build(copies)
    loss: Any = torch.zeros((), device=device)
    times = []
    for index in range(warmup + steps):
        for parameter, grad in zip(copies, grads, strict=True):
            parameter.grad = grad.clone()
        synchronize(device)
        start = time.perf_counter()
        optimizer.step(lambda: loss)
        synchronize(device)
        if index >= warmup:
            times.append(1000 * (time.perf_counter() - start))
    times.sort()
    middle = (times[(steps - 1) // 2] + times[steps // 2]) / 2
    count = sum(p.numel() for p in copies)
    return StepCost(middle, times[0], times[-1], steps, state_bytes(optimizer), count)


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state, shared storage counted once."""
    sizes: dict[tuple[str, int], int] = {}
    for tensor in tensors(list(optimizer.state.values())):
        storage = tensor.untyped_storage()
        sizes[str(tensor.device), storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def tensors(tree: Any) -> Iterable[Tensor]:
    """All tensors in nested dictionaries, lists and tuples."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from tensors(list(tree.values()))
    elif isinstance(tree, (list, tuple)):
        for part in tree:
            yield from tensors(part)


def synchronize(device: torch.device) -> None:
    """Wait for what was sent to a GPU: its kernels run after the call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

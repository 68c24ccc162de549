"""Training steps as a CUDA graph: captured once, then one launch for each step.

A small step on a GPU waits for the launches of its operations, one after another, from Python. Of
a graph all are launched at once (`torch.cuda.CUDAGraph`).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench.optimizers import memory
from optbench.recorded import (
    NoNumbers,
    Unrecordable,
    generators,
    numbers,
    repeats,
    tensors,
    unchanged,
)
from optbench.replay import Steps


def capture_steps(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
) -> Steps:
    """`steps(X, Y, batches, rates)` as of `recorded.record_steps`, on the CUDA device of `x`.

    Its losses and weights are those of plain steps within the rounding of float32.
    The optimizer is set to count on the device ("capturable"), where its class can. Nothing else
    is changed by the capture.

    Raises `Unrecordable`.
    """
    x, y = x.clone(), y.clone()
    groups = optimizer.param_groups
    rates = [torch.tensor(float(group["lr"]), device=x.device) for group in groups]
    _count_on(x.device, optimizer)
    graph = torch.cuda.CUDAGraph()
    for generator in generators(model):
        graph.register_generator_state(generator)

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss(x, y)
        value.backward()
        optimizer.step(lambda: value)  # type: ignore[arg-type, return-value]  # the stubs: a float
        return value.detach()

    try:
        with unchanged(model, optimizer), NoNumbers():
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
            before, remembered = numbers(optimizer), memory(optimizer)
            side = torch.cuda.Stream(x.device)  # what is set up at a first call is not captured
            side.wait_stream(torch.cuda.current_stream(x.device))
            with torch.cuda.stream(side):
                step()
            torch.cuda.current_stream(x.device).wait_stream(side)
            with torch.cuda.graph(graph):
                value = step()
            if numbers(optimizer) != before or memory(optimizer) != remembered:
                raise Unrecordable("the optimizer counts in Python")
    except Unrecordable:
        raise
    except Exception as error:  # such as a step that waits for the device: take plain steps
        raise Unrecordable(f"{type(error).__name__}: {error}".splitlines()[0][:160]) from error

    @torch.no_grad()
    def steps(
        inputs: Tensor, labels: Tensor, batches: Sequence[Tensor], wanted: Sequence[Sequence[float]]
    ) -> Tensor:
        losses = torch.empty(len(batches), dtype=value.dtype, device=x.device)
        for i, batch in enumerate(batches):
            torch.index_select(inputs, 0, batch, out=x)
            torch.index_select(labels, 0, batch, out=y)
            for rate, number in zip(rates, wanted[i], strict=True):
                rate.fill_(number)
            graph.replay()
            losses[i].copy_(value)
        return losses

    # its lr is a tensor, of float32, and so not bit for bit that of plain steps
    if not repeats(steps, model, loss, optimizer, x.clone(), y.clone(), near=1e-5):
        raise Unrecordable("the graph does not repeat the step")
    return steps


def _count_on(device: torch.device, optimizer: Optimizer) -> None:
    """Move an optimizer's counters to the device: a graph holds nothing of what a CPU does."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
            for p in group["params"]:
                state = optimizer.state.get(p, {})
                if isinstance(state.get("step"), Tensor):
                    state["step"] = state["step"].to(device)
    if any(tensor.device != device for tensor in tensors(list(optimizer.state.values()))):
        raise Unrecordable("the optimizer keeps tensors on the CPU")

"""What a step of an optimizer costs: its time and its memory, beside every count of steps."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench import optimizers
from optbench.problem import Problem, build_model
from optbench.streams import Stream

LEAST_SECONDS = 0.03  # of steps counted in a run's measurement, as far as MOST_SECONDS allows
MOST_SECONDS = 0.3  # after it no further step is begun, but for the first four
HIGH_QUANTILE = 0.9  # the end of the spread: one step in ten may be another process's fault
clock = time.perf_counter


class StepCost(NamedTuple):
    """Of one `step()`, without the forward and backward pass."""

    milliseconds: float  # the median of `steps` calls
    low: float  # the fastest and the slowest call
    high: float
    steps: int  # counted, without those that warm up
    state_bytes: int
    parameters: int
    quantile: float = math.nan  # 9 of 10 calls took no longer

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
    cost, _ = timed(build(copies), copies, steps, warmup, seed)
    return cost


def cost_of_run(
    problem: Problem,
    optimizer: Callable[..., Optimizer],
    *,
    seed: int,
    decay_biases_and_norms: bool,
    device: torch.device,
) -> dict[str, float] | None:
    """What `run.json` keeps as `cost`: the optimizer's step on a model of its own, timed for
    at least 20 calls and 30 ms after three that warm up; nothing that the run itself uses is
    touched, the global generator included.

    None for an optimizer that calls its closure several times in a step (lbfgs): its state and
    time depend on the losses that it is given. None as well where the step cannot be taken on
    gradients alone: then the run itself says what is wrong.
    """
    try:
        model = build_model(problem, seed).to(device).train()
        with Stream(seed, "cost", device):
            opt = optimizers.build(optimizer, model, decay_biases_and_norms=decay_biases_and_norms)
            if callable(switch := getattr(opt, "train", None)):
                switch()  # schedule-free optimizers refuse to step otherwise
            trained = [p for p in model.parameters() if p.requires_grad]
            cost, calls = timed(opt, trained, least=LEAST_SECONDS, most=MOST_SECONDS)
    except Exception:  # of any package's optimizer: a measurement never costs a run
        return None
    if calls > 1:
        return None
    return {
        "step_ms": cost.milliseconds,
        "step_ms_min": cost.low,
        "step_ms_high": cost.quantile,
        "step_ms_max": cost.high,
        "steps": cost.steps,
        "state_bytes": cost.state_bytes,
        "parameters": cost.parameters,
    }


def timed(
    optimizer: Optimizer,
    parameters: Sequence[nn.Parameter],
    steps: int = 20,
    warmup: int = 3,
    seed: int = 0,
    least: float = 0.0,
    most: float = math.inf,
) -> tuple[StepCost, float]:
    """Step the optimizer's own `parameters`; also how often a step called its closure (mean).

    steps: so many are counted at least, and more until they took `least` seconds together. most:
    seconds after which no further step is begun, but for the first one and three that are counted.
    """
    device = parameters[0].device
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    loss: Any = torch.zeros((), device=device)
    calls = 0

    def closure() -> Any:
        nonlocal calls
        calls += 1
        return loss

    warming: list[float] = []
    times: list[float] = []
    begun = clock()
    while len(times) < steps or 1e-3 * sum(times) < least:
        late = clock() - begun > most
        if late and len(times) >= 3:
            break
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.clone()
        synchronize(device)
        start = clock()
        optimizer.step(closure)
        synchronize(device)
        warms_up = len(warming) < warmup and not (late and warming)
        (warming if warms_up else times).append(1000 * (clock() - start))
    mean_calls = calls / (len(warming) + len(times))
    times = sorted(times)
    count = len(times)
    middle, quantile = median(times), times[math.ceil(HIGH_QUANTILE * count) - 1]
    size = sum(p.numel() for p in parameters)
    cost = StepCost(middle, times[0], times[-1], count, state_bytes(optimizer), size, quantile)
    return cost, mean_calls


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

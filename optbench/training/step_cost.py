"""The cost of an optimizer's step: its time, and the memory of its state."""

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
from optbench.training.closures import step_function
from optbench.training.object_state.global_state import kept
from optbench.training.setup import budget_of

MIN_TIMED_SECONDS = 0.03  # that the timed steps of a run's measurement take together
MAX_TIMED_SECONDS = 0.3  # of a run's measurement; its first four steps are taken in any case
HIGH_QUANTILE = 0.9  # the spread ends here, since another process may slow one step in ten
clock = time.perf_counter


class StepCost(NamedTuple):
    """The cost of one `step()`, without the forward and backward pass."""

    milliseconds: float  # the median of `steps` calls
    low: float  # the fastest call
    high: float  # the slowest call
    steps: int  # the number of timed calls, without warm-up
    state_bytes: int
    parameters: int
    quantile: float = math.nan  # 9 of 10 calls took no longer

    @property
    def bytes_per_parameter(self) -> float:
        """Bytes of optimizer state for each trained number; 8 for Adam in float32."""
        return self.state_bytes / self.parameters


def step_cost(
    build: Callable[[Iterable[nn.Parameter]], Optimizer],
    parameters: Iterable[nn.Parameter] | nn.Module,
    steps: int = 20,
    warmup: int = 3,
    seed: int = 0,
) -> StepCost:
    """Time the steps of a configured optimizer, and count the bytes of its state.

    build: parameters to optimizer (an `optimizer` partial of a config). parameters: a module or
    its parameters; copies of them are stepped, so that the module is unchanged. Gradients are
    random normal numbers, the same before each step. The closure returns a constant, so that the
    time is that of the optimizer's own arithmetic.
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
    """Return the `cost` of `run.json`: an optimizer's step, timed on a new model.

    At least 20 calls and 30 ms are timed, after three that warm up. The run's own objects and the
    global generators are untouched. None for an optimizer that calls its closure several times in
    a step (lbfgs), whose time and state depend on the losses. None as well where the step fails:
    the run itself then says what is wrong.
    """
    try:
        with kept(problem, optimizer), Stream(seed, "cost", device):
            model = build_model(problem, seed).to(device).train()
            factory = optimizers.with_budget(optimizer, budget_of(problem))
            opt = optimizers.build(factory, model, decay_biases_and_norms=decay_biases_and_norms)
            if callable(switch := getattr(opt, "train", None)):
                switch()  # schedule-free optimizers refuse to step otherwise
            trained = [p for p in model.parameters() if p.requires_grad]
            cost, calls = timed(opt, trained, least=MIN_TIMED_SECONDS, most=MAX_TIMED_SECONDS)
    except Exception:  # any package's optimizer may raise; a measurement never fails a run
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
    """Return the cost of a step, and how often a step called its closure on average.

    steps: the least number of steps to time, and more until they took `least` seconds together.
    most: seconds after which no step is begun, once one has warmed up and three were timed.
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

    step = step_function(optimizer)
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
        step(closure)
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
    """Return the bytes of all tensors in the optimizer's state, shared storage once."""
    sizes: dict[tuple[str, int], int] = {}
    for tensor in tensors(list(optimizer.state.values())):
        storage = tensor.untyped_storage()
        sizes[str(tensor.device), storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def tensors(tree: Any) -> Iterable[Tensor]:
    """Yield all tensors in nested dictionaries, lists and tuples."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from tensors(list(tree.values()))
    elif isinstance(tree, (list, tuple)):
        for part in tree:
            yield from tensors(part)


def synchronize(device: torch.device) -> None:
    """Wait for the kernels of a GPU, which run after the call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

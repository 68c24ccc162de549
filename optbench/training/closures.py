"""Which optimizers evaluate the model by themselves, and which step on gradients that are there."""

import inspect
from collections.abc import Callable
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench.streams import Stream

PROBE_STEPS = 3  # a class may keep in one step what it uses in the next
MOST_CALLS = 100  # of a closure in a probe; a line search may not end on made-up losses
LARGEST_SIDE = 2  # of a probe's parameters, which have as many dimensions as the model's


def takes_closure(optimizer: Optimizer) -> bool:
    """Whether the first argument of `optimizer.step` can be a closure, by its signature."""
    try:
        parameters = list(inspect.signature(optimizer.step).parameters.values())
    except (TypeError, ValueError):  # of a builtin
        return True
    if not parameters:
        return False
    first = parameters[0]
    if first.kind is first.KEYWORD_ONLY or first.kind is first.VAR_KEYWORD:
        return False
    # an option with another name and a default, such as `scale=1.0`, is no place for a closure
    return (
        first.name == "closure"
        or first.kind is first.VAR_POSITIONAL
        or first.default is first.empty
    )


def evaluates_first(build: Callable[[nn.Module], Optimizer], model: nn.Module) -> bool:
    """Whether `step(closure)` calls its closure in each step, before it uses a gradient.

    SAM uses the gradients that are there; Nesterov's method and schedule-free ones move to other
    weights, and evaluate there. Nothing but a trial tells them apart: two optimizers of the same
    class step on small parameters of their own, with the same gradients from the closure and others
    before it. They come to the same weights only where those before it are not used. False where
    the class cannot be tried so. build: makes the optimizer of a model's parameters.
    """
    try:
        # both within the same random draws
        first, second = (_probe(build, model, sign) for sign in (1.0, -0.5))
    except Exception:  # of any package's class
        return False
    return all(
        a is not None and b is not None and torch.equal(a, b) for a, b in zip_longest(first, second)
    )


def _probe(
    build: Callable[[nn.Module], Optimizer], model: nn.Module, before: float
) -> list[Tensor]:
    """All weights at each call of the closure and after each step.

    before: every number of the gradients before a step. Raises where a step calls no closure.
    """
    holder = nn.ParameterList(
        nn.Parameter(torch.ones([min(n, LARGEST_SIDE) for n in p.shape], dtype=p.dtype))
        for p in model.parameters()
        if p.requires_grad
    )
    own = list(holder)
    found: list[Tensor] = []
    calls = 0

    def gradients(value: float) -> None:
        for k, p in enumerate(own):
            p.grad = torch.full_like(p, value / (k + 1))

    def see() -> None:
        found.extend(p.detach().clone() for p in own)

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        if calls > MOST_CALLS:
            raise RuntimeError("the closure was called too often")
        see()
        gradients(0.1 * calls)
        return torch.tensor(1 / calls)

    with Stream(0, "probe"):
        optimizer = build(holder)
        if callable(switch := getattr(optimizer, "train", None)):
            switch()
        for _ in range(PROBE_STEPS):
            gradients(before)
            calls_before = calls
            optimizer.step(closure)  # type: ignore[arg-type]  # the stubs: a float
            if calls == calls_before:
                raise RuntimeError("the closure was not called")
            see()
    return found

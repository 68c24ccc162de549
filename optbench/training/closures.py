"""Find out by trials which optimizers need closures or the graph of gradients."""

import inspect
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench.streams import Stream
from optbench.training.object_state.global_state import kept

PROBE_STEPS = 3  # a class may keep in one step what it uses in the next
MAX_PROBE_CALLS = 100  # of the closure: a line search may never end on made-up losses
MAX_PROBE_SIDE = 2  # longest side of a probe's parameters, so that a trial is cheap


def takes_closure(optimizer: Optimizer) -> bool:
    """Return whether the signature of `optimizer.step` has a place for a closure."""
    try:
        parameters = list(inspect.signature(optimizer.step).parameters.values())
    except (TypeError, ValueError):  # a builtin has no signature
        return True
    if not parameters:
        return False
    first = parameters[0]
    if first.kind is first.KEYWORD_ONLY or first.kind is first.VAR_KEYWORD:
        return closure_by_name(optimizer)
    # an option with another name and a default, such as `scale=1.0`, is no place for a closure
    return (
        first.name == "closure"
        or first.kind is first.VAR_POSITIONAL
        or first.default is first.empty
    )


def closure_by_name(optimizer: Optimizer) -> bool:
    """Return whether `optimizer.step` takes a closure by keyword alone."""
    try:
        parameters = inspect.signature(optimizer.step).parameters
    except (TypeError, ValueError):  # a builtin has no signature
        return False
    closure = parameters.get("closure")
    return closure is not None and closure.kind is closure.KEYWORD_ONLY


def step_function(optimizer: Optimizer) -> Callable[[Callable[[], Tensor]], object]:
    """Return a function that calls `optimizer.step` with a closure in its own way.

    If `step` has no place for a closure, the function calls `step` without one.
    """
    # looked up at each step, because a schedule may wrap `step` later
    untyped: Any = optimizer  # the stubs: a closure returns a float
    if not takes_closure(optimizer):
        return lambda closure: untyped.step()
    if closure_by_name(optimizer):
        return lambda closure: untyped.step(closure=closure)
    return lambda closure: untyped.step(closure)


def evaluates_first(build: Callable[[nn.Module], Optimizer], model: nn.Module) -> bool:
    """Return whether each step calls its closure before it uses a gradient.

    SAM uses the gradients in `p.grad`. Nesterov's method and schedule-free optimizers move the
    weights and evaluate there. Only a trial tells them apart: two optimizers step on small
    parameters, with equal gradients from the closure and unequal ones before it. Their weights are
    equal only if the class ignores the gradients before the closure. A class whose trial fails
    gives False. build: makes the optimizer of a model.
    """
    try:
        first, second = (_probe(build, model, sign) for sign in (1.0, -0.5))
    except Exception:  # a class of any package may raise anything
        return False
    return all(
        a is not None and b is not None and torch.equal(a, b) for a, b in zip_longest(first, second)
    )


def wants_graph(build: Callable[[nn.Module], Optimizer], model: nn.Module) -> bool:
    """Return whether steps differentiate their gradients again (AdaHessian, Sophia).

    Only a trial tells. The first steps of such a class raise with plain gradients, and succeed with
    gradients that keep their graph. build: makes the optimizer of a model.
    """
    return not _steps(build, model, graph=False) and _steps(build, model, graph=True)


def _steps(build: Callable[[nn.Module], Optimizer], model: nn.Module, *, graph: bool) -> bool:
    """Return whether a class can step on small parameters, whose loss is cubic.

    graph: keep the graph of the gradients.
    """
    holder = _small(model)
    own = list(holder)

    def evaluate() -> Tensor:
        loss = torch.stack([(p * p * p).sum().real for p in own]).sum()
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss, own, create_graph=graph)
        for p, gradient in zip(own, gradients, strict=True):
            p.grad = gradient
        return loss.detach()

    try:
        with kept(build), Stream(0, "probe"):
            optimizer = build(holder)
            if callable(switch := getattr(optimizer, "train", None)):
                switch()
            step = step_function(optimizer)
            for _ in range(PROBE_STEPS):
                with torch.enable_grad():
                    evaluate()
                step(evaluate)
    except Exception:  # a class of any package may raise anything
        return False
    finally:
        for p in own:
            p.grad = None  # parameter and graph hold each other
    return True


def _small(model: nn.Module) -> nn.ParameterList:
    """Return small parameters of ones, with as many dimensions as the model's."""
    return nn.ParameterList(
        nn.Parameter(torch.ones([min(n, MAX_PROBE_SIDE) for n in p.shape], dtype=p.dtype))
        for p in model.parameters()
        if p.requires_grad
    )


def _probe(
    build: Callable[[nn.Module], Optimizer], model: nn.Module, before: float
) -> list[Tensor]:
    """Return all weights, at each call of the closure and after each step.

    before: the value of all gradients before a step. Raises where a step calls no closure.
    """
    holder = _small(model)
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
        if calls > MAX_PROBE_CALLS:
            raise RuntimeError("the closure was called too often")
        see()
        gradients(0.1 * calls)
        return torch.tensor(1 / calls)

    # both optimizers of a trial draw the same random numbers, and find the same global state
    with kept(build), Stream(0, "probe"):
        optimizer = build(holder)
        if callable(switch := getattr(optimizer, "train", None)):
            switch()
        step = step_function(optimizer)
        for _ in range(PROBE_STEPS):
            gradients(before)
            calls_before = calls
            step(closure)
            if calls == calls_before:
                raise RuntimeError("the closure was not called")
            see()
    return found

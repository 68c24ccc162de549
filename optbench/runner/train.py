"""Training from Python: an engine is selected, and the loop yields its updates."""

from collections.abc import Callable, Iterator
from typing import Any

from torch.optim import Optimizer

from optbench.problem import Problem
from optbench.runner.engine import AUTO, factory
from optbench.training import loop
from optbench.training.steps import Update


def train(
    problem: Problem,
    optimizer: Callable[..., Optimizer],
    *,
    engine: str = AUTO,
    stop: Callable[[], bool] = lambda: False,
    **arguments: Any,
) -> Iterator[Update]:
    """Train and yield updates; the first holds the evaluation before the first step.

    engine: "auto", the first, in a fixed order, that serves the run; "plain", every step is
    torch's; or "compiled_mlp", which raises `UserError` where it does not serve. To compare seconds
    of several optimizers, give all of them the same one. The other arguments are those of
    `training.loop.Training`; `stop` is that of `Training.updates`.
    """
    return loop.Training(problem, optimizer, engine=factory(engine), **arguments).updates(stop)

"""The model and data of a training, with their device, precision and layout."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from optbench import optimizers
from optbench.datasets.prepare import Dataset
from optbench.models import takes_any_layout
from optbench.problem import Problem, build_model
from optbench.training.object_state.global_state import kept


def make_model(
    problem: Problem,
    optimizer: Callable[..., Optimizer],
    seed: int,
    device: torch.device,
    *,
    channels_last: bool,
) -> tuple[nn.Module, Dataset]:
    """Return the model with the initial weights of `seed`, and its training data."""
    model = build_model(problem, seed, around_trial=kept).to(device)
    data = problem.dataset.to(device)
    if problem.precision == "float64":
        # drawn in float32 first, so that the initial weights are those of a float32 run
        model.double()
        data = data.double()
    # convolutions follow the layout of their weights; channels last was 1.5 times as fast
    images = any(p.ndim == 4 for p in model.parameters())
    known = optimizers.takes_any_layout(optimizer) and takes_any_layout(model)
    if channels_last and images and known:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs
    return model, data


def budget_of(problem: Problem) -> dict[str, int]:
    """Return the numbers of a problem that an optimizer may ask for, by name.

    The names are those of `optimizers.BUDGET`.
    """
    return {
        "total_steps": problem.total_steps,
        "steps_per_epoch": problem.steps_per_epoch,
        "train_examples": problem.dataset.epoch_examples,
        "batch_size": problem.batch_examples,
    }


def asked_of_parts(
    optimizer: Callable[..., Optimizer],
    build: Callable[..., Optimizer],
    model: nn.Module,
    ask: Callable[[Callable[[nn.Module], Optimizer], nn.Module], bool],
    *,
    any_part: bool,
) -> bool:
    """Return the answer of a function of `closures`, `ask`, about an optimizer.

    A trial lacks the model's layers, which the rules for parameter groups need. So each optimizer
    inside is asked on its own. any_part: a yes of one of several counts for all; else several
    optimizers count as no, since they get no closure.
    """
    parts = optimizers.factories_of(optimizer)
    if len(parts) > 1 and not any_part:
        return False
    return any(ask(partial(build, part), model) for part in parts)

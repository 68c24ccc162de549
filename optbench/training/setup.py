"""The model and data of a training, with their device, precision and layout."""

from collections.abc import Callable

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

"""Small problems that train in milliseconds."""

import os
from collections.abc import Callable
from functools import partial

import pytest
import torch

from optbench import losses, models
from optbench.datasets import prepare
from optbench.initializers import initialize
from optbench.problem import Problem

# the tests' tensors are tiny: a second thread only waits, unless it is asked for
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def blobs(n: int = 60, features: int = 5, classes: int = 3) -> prepare.RawDataset:
    """Separable clusters, the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, features, generator=generator) * 3
    y = torch.arange(n) % classes
    x = centres[y] + torch.randn(n, features, generator=generator)
    return prepare.RawDataset(x, y, x[: n // 3] + 0.1, y[: n // 3])


@pytest.fixture
def make_problem() -> Callable[..., Problem]:
    def make(model=None, n: int = 60, **changes) -> Problem:
        model = model or partial(models.mlp, hidden=[8])
        settings = {"batch_size": 16, "epochs": 2, "loss": losses.cross_entropy} | changes
        settings.setdefault("initializer", initialize)
        dataset = prepare.prepare(blobs(n), preprocessing="standardize_features", val_size=0.2)
        return Problem(dataset, model=model, **settings)

    return make

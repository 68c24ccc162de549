"""The rule that every comparison rests on: one seed, one start and one order of batches."""

import hashlib
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from optbench import models
from optbench.config import build
from optbench.formats.groups import config_folder
from optbench.training.loop import Training

OPTIMIZERS = sorted((config_folder() / "optimizer").rglob("*.yaml"))


def traces(make_problem, path: Path, seed: int) -> tuple[str, str]:
    """Hashes of the weights an optimizer is given, and of the first epoch's batches."""
    config = OmegaConf.to_container(OmegaConf.load(path))
    # the function below hides the class, which would be told the budget
    config = {key: 100 if value == "total_steps" else value for key, value in config.items()}
    factory = build.build("optimizer", config)
    weights, batches = hashlib.sha256(), []
    made: list[bool] = []

    def noting(parameters, **arguments):
        parameters = list(parameters)
        if not made:  # later calls are trials, of parameters of their own
            for p in parameters:
                weights.update(p.detach().numpy().tobytes())
        made.append(True)
        return factory(parameters, **arguments)

    def loss(logits, labels):
        if logits.requires_grad and (not batches or batches[-1] != labels.tolist()):
            batches.append(labels.tolist())  # once a batch: lbfgs asks for its loss many times
        return F.cross_entropy(logits, labels)

    model = partial(models.mlp, hidden=[8], batch_norm=True, dropout=0.2)
    list(Training(make_problem(model, epochs=1, loss=loss), noting, seed=seed).updates())
    return weights.hexdigest(), hashlib.sha256(repr(batches).encode()).hexdigest()


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda path: path.stem)
def test_every_optimizer_starts_from_the_same_weights_and_sees_the_same_batches(make_problem, path):
    reference = config_folder() / "optimizer" / "sgd.yaml"
    assert traces(make_problem, path, seed=5) == traces(make_problem, reference, seed=5)


def test_another_seed_has_other_weights_and_another_order(make_problem):
    path = config_folder() / "optimizer" / "sgd.yaml"
    one, other = (traces(make_problem, path, seed) for seed in (1, 2))
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_the_trace_tells_weights_apart(make_problem):
    torch.manual_seed(0)  # and does not hang on the global generator
    path = config_folder() / "optimizer" / "adam.yaml"
    first = traces(make_problem, path, seed=1)
    torch.manual_seed(1)
    assert traces(make_problem, path, seed=1) == first

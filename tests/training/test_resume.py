"""A training that goes on from a saved state ends bit for bit where an undisturbed one does."""

import io
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from optbench import models
from optbench.config import build
from optbench.formats.groups import config_folder
from optbench.training.loop import Training

OPTIMIZERS = sorted((config_folder() / "optimizer").rglob("*.yaml"))
SCHEDULES = [
    p for p in sorted((config_folder() / "schedule").glob("*.yaml")) if p.stem != "authors"
]
MODEL = partial(models.mlp, hidden=[8], batch_norm=True, dropout=0.3)


def stored(state: dict) -> dict:
    """The state after a way through a file that holds tensors and plain values only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def finish(training: Training, stop_at: int | None = None) -> list[dict]:
    """All rows up to the end, or to the step at which the training is interrupted."""
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        if stop_at is not None:
            patch.setattr("optbench.training.loop.SYNC_EVERY", 1)
        for update in training.updates(lambda: training.step + 1 == stop_at):
            rows += update.steps
            rows += [update.epoch] if update.epoch else []
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def check(make: partial, stop_at: int) -> None:
    whole = make()
    expected = finish(whole)
    first = make()
    rows = finish(first, stop_at)
    assert first.step == stop_at
    state = stored(first.state_dict())
    second = make()
    second.load_state_dict(state)
    rows += finish(second)
    assert rows == expected
    for a, b in zip(
        whole.model.state_dict().values(), second.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def training(problem, optimizer, schedule=None):
    return partial(Training, problem, optimizer, seed=3, log_every=1, schedule=schedule)


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda path: path.stem)
def test_every_optimizer_resumes_within_an_epoch(make_problem, path: Path):
    config = OmegaConf.to_container(OmegaConf.load(path))
    if path.stem == "weight_perturbation":  # which diverges in a few steps at its rate
        config["lr"] = 0.001
    optimizer = build.build("optimizer", config)
    check(training(make_problem(MODEL, epochs=3), optimizer), stop_at=4)


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
@pytest.mark.parametrize("stop_at", [1, 6])
def test_every_schedule_resumes(make_problem, path: Path, stop_at: int):
    schedule = build.build("schedule", OmegaConf.to_container(OmegaConf.load(path)))
    momentum = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    check(training(make_problem(epochs=4), momentum, schedule), stop_at)


@pytest.mark.parametrize("shuffle", ["every_epoch", "fixed_order"])
@pytest.mark.parametrize("stop_at", [1, 3, 5])  # 3: the end of an epoch
def test_the_order_of_batches_resumes(make_problem, shuffle: str, stop_at: int):
    check(training(make_problem(shuffle=shuffle, epochs=3), torch.optim.Adam), stop_at)


class Counting(torch.optim.Optimizer):
    """One's own rule, with numbers and tensors beside `state`."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.calls = 0
        self.kept = list(self.param_groups[0]["params"])
        self.means = [torch.zeros_like(p) for p in self.kept]

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        self.calls += 1
        for p, mean in zip(self.kept, self.means, strict=True):
            mean.lerp_(p.grad, 1 / self.calls)
            p.sub_(mean, alpha=self.param_groups[0]["lr"])
        return loss


def test_a_class_of_ones_own_resumes_with_its_attributes(make_problem):
    check(training(make_problem(epochs=3), partial(Counting, lr=0.1)), stop_at=5)


class GlobalDropout(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, 0.5, self.training)


def test_layers_that_draw_from_the_global_generator_resume(make_problem):
    def model(shape, classes):
        return torch.nn.Sequential(GlobalDropout(), torch.nn.Linear(shape[0], classes))

    problem = make_problem(model, epochs=3)

    def make():
        torch.manual_seed(0)
        return Training(problem, torch.optim.Adam, log_every=1)

    check(make, stop_at=4)

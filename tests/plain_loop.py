"""Runs of the default command line beside a loop of plain torch, for any model and optimizer."""

import csv
import random
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import differential_models
import differential_optimizers
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from optbench import optimizers
from optbench.config import build
from optbench.config.resolve import config_folder, resolve
from optbench.models import draw_from, takes_any_layout
from optbench.optimizers import MuonWithAdamW
from optbench.problem import Problem, build_model
from optbench.runner import run as experiment
from optbench.streams import stream
from optbench.training.batches import Batches

STEPS, SEED = 300, 3
# classes that the command line builds with their fused kernels
FUSED = (
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad, MuonWithAdamW,
)  # fmt: skip


def configuration(folder: Path, *overrides: str) -> dict[str, Any]:
    """What the command line with these overrides asks for."""
    quick = ["data.subset=400", "batch_size=32", f"steps={STEPS}", "log.steps=1", "quiet=true"]
    places = [f"results_dir={folder}", "log.eval_epochs=9", "device=cpu", f"seed={SEED}"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        words = [*quick, *places, *overrides]
        return resolve(compose("config", words), words)


def overrides(model: str, optimizer: str) -> list[str]:
    make, lr, _ = differential_optimizers.ALL[optimizer]
    return [
        f"model._target_=differential_models.{model}",
        f"optimizer._target_={make.__module__}.{make.__qualname__}",
        f"optimizer.lr={lr}",
    ]


def run(config: dict[str, Any], folder: Path, stop_at: int | None = None) -> list[float]:
    """The loss of each step of a run, which is stopped and resumed if `stop_at` says where."""
    planned = experiment.plan(config, folder)
    if stop_at is not None:
        calls = iter(range(1, 10**6))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "optbench.training.loop.CHUNK", 1
            )  # compiled steps are taken many in a call
            experiment.complete(planned, lambda update: None, lambda: next(calls) >= stop_at)
    outcome = experiment.run(config, folder)
    with (outcome.folder / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train_loss"]) for row in rows]
    assert [int(row["step"]) for row in rows] == [*range(1, len(rows) + 1)]
    assert len(losses) == STEPS or not isfinite(losses[-1])
    return losses


def seed_all(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed([number % 2**32, number >> 32])  # noqa: NPY002


def states() -> tuple[Any, ...]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002


def set_states(found: tuple[Any, ...]) -> None:
    torch.set_rng_state(found[0])
    random.setstate(found[1])
    np.random.set_state(found[2])  # noqa: NPY002


def plain_losses(
    problem: Problem, make: Callable[..., torch.optim.Optimizer], manner: str, *, exact: bool
) -> list[float]:
    """The losses of a loop written out. exact: in float64."""
    model, data = build_model(problem, SEED).train(), problem.dataset
    model = model.double() if exact else model
    x = data.train_x.double() if exact else data.train_x
    if optimizers.takes_any_layout(make) and takes_any_layout(model) and not exact:
        model = model.to(memory_format=torch.channels_last)
    draw_from(model, stream(SEED, "dropout"))
    seed_all(stream(SEED, "optimizer").initial_seed())
    fused = {"fused": True} if make.func in FUSED else {}
    optimizer = make([p for p in model.parameters() if p.requires_grad], **fused)
    others = states()
    seed_all(stream(SEED, "model").initial_seed())
    batches, losses = Batches(problem, SEED), []
    while len(losses) < STEPS:
        for batch in batches.epoch()[: STEPS - len(losses)]:
            calls: list[float] = []

            def closure(batch: Any = batch, calls: list[float] = calls) -> torch.Tensor:
                nonlocal others
                if manner != "gradients" and (manner == "closure" or calls):
                    outside, _ = states(), set_states(others)
                optimizer.zero_grad()
                with torch.enable_grad():
                    loss = problem.loss(model(x[batch]), data.train_y[batch])
                    loss.backward()
                calls.append(loss.item())
                if manner != "gradients" and (manner == "closure" or len(calls) > 1):
                    others = states()
                    set_states(outside)
                return loss

            if manner != "closure":
                closure()
            others, _ = states(), set_states(others)
            optimizer.step() if manner == "gradients" else optimizer.step(closure)
            others, _ = states(), set_states(others)
            losses.append(calls[0])
            if not isfinite(calls[0]):
                return losses
    return losses


def check_pair(model: str, optimizer: str, folder: Path, stop_at: int) -> None:
    """Hold a run, and one that was stopped and resumed, against the loop.

    Equal to the last bit; where compiled steps were taken, no farther from the loop in float64 than
    twice the loop in float32 is, and 1e-6.
    """
    config = configuration(folder, *overrides(model, optimizer))
    before = states()
    whole = run(config, folder / "whole")
    resumed = run(
        config | {"force": False, "results_dir": str(folder / "b")}, folder / "b", stop_at
    )
    assert list(map(str, resumed)) == list(map(str, whole))
    assert all(map(_equal, before, states())), "the caller's generators have moved"
    planned = experiment.plan(config | {"force": True}, folder)
    problem = experiment.arguments(planned)["problem"]
    make, manner = build.build("optimizer", config["optimizer"]), _manner(optimizer)
    plain = plain_losses(problem, make, manner, exact=False)
    compiled = (model, optimizer) in COMPILED_PAIRS
    if not compiled:
        assert list(map(str, whole)) == [str(float(f"{loss:.9g}")) for loss in plain]
        return
    exact = plain_losses(problem, make, manner, exact=True)
    allowed = 2 * max(abs(a - b) for a, b in zip(plain, exact, strict=True)) + 1e-6
    assert max(abs(a - b) for a, b in zip(whole, exact, strict=True)) <= allowed


def _manner(optimizer: str) -> str:
    return differential_optimizers.ALL[optimizer][2]


def _equal(a: Any, b: Any) -> bool:
    return repr(a) == repr(b) if not isinstance(a, torch.Tensor) else torch.equal(a, b)


COMPILED_PAIRS = {
    (m, o) for m in differential_models.COMPILED for o in differential_optimizers.COMPILED
}
PAIRS = [(m, o) for m in differential_models.NAMES for o in differential_optimizers.ALL]

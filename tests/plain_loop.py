"""Runs of the default command line beside a loop of plain torch, for any model and optimizer."""

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import differential_models
import differential_optimizers
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from optbench import configured, experiment
from optbench.batches import Batches
from optbench.models import draw_from, takes_any_layout
from optbench.optimizers import is_known_class
from optbench.overrides import config_folder
from optbench.problem import Problem, build_model
from optbench.streams import stream

STEPS, SEED = 300, 3


def configuration(folder: Path, *overrides: str) -> dict[str, Any]:
    """What the command line with these overrides asks for."""
    quick = ["data.subset=400", "batch_size=32", f"steps={STEPS}", "log.steps=1", "quiet=true"]
    places = [f"results_dir={folder}", "log.eval_epochs=9", "device=cpu", f"seed={SEED}"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        composed = compose("config", [*quick, *places, *overrides])
        config: Any = OmegaConf.to_container(composed, resolve=True)
    return {key: value for key, value in config.items() if key != "hydra"}


def overrides(model: str, optimizer: str) -> list[str]:
    make, lr, _ = differential_optimizers.ALL[optimizer]
    return [
        f"model._target_=differential_models.{model}", "~model.hidden", "~model.activation",
        "~model.dropout", "~model.input_dropout", "~model.batch_norm", "~model.batch_norm_place",
        f"optimizer={{_target_:{make.__module__}.{make.__qualname__},_partial_:true,lr:{lr},"
        f"name:{optimizer}}}",
    ]  # fmt: skip


def run(config: dict[str, Any], folder: Path, stop_at: int | None = None) -> list[float]:
    """The loss of each step of a run, which is stopped and resumed if `stop_at` says where."""
    planned = experiment.plan(config, folder)
    if stop_at is not None:
        calls = iter(range(1, 10**6))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("optbench.training.CHUNK", 1)  # compiled steps are taken many in a call
            first = experiment.complete(
                planned, lambda update: None, lambda: next(calls) >= stop_at
            )
        assert first.status == "interrupted", first
    outcome = experiment.run(config, folder)
    assert outcome.status == "completed"
    with (outcome.folder / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [*range(1, STEPS + 1)]
    return [float(row["train_loss"]) for row in rows]


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
    if is_known_class(make) and takes_any_layout(model) and not exact:
        model = model.to(memory_format=torch.channels_last)
    draw_from(model, stream(SEED, "dropout"))
    seed_all(stream(SEED, "optimizer").initial_seed())
    optimizer = make([p for p in model.parameters() if p.requires_grad])
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
    assert resumed == whole
    assert all(map(_equal, before, states())), "the caller's generators have moved"
    problem = configured.build_problem(config, configured.load_dataset(config))
    make, manner = configured.build("optimizer", config["optimizer"]), _manner(optimizer)
    plain = plain_losses(problem, make, manner, exact=False)
    compiled = (model, optimizer) in COMPILED_PAIRS
    if not compiled:
        assert whole == [float(f"{loss:.9g}") for loss in plain]
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

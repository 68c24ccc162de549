"""Runs of the default command line beside a loop of plain torch, for any model and optimizer."""

import contextlib
import csv
import random
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import differential_models
import differential_optimizers
import numpy as np
import pytest
import torch
from composed import configuration

from optbench import optimizers
from optbench.config import build
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


def command_line(folder: Path, *overrides: str) -> dict[str, Any]:
    """Return what a short command line with these overrides asks for."""
    quick = ["data.subset=400", "batch_size=32", f"steps={STEPS}", "log.steps=1", "quiet=true"]
    places = [f"results_dir={folder}", "log.eval_epochs=9", "device=cpu", f"seed={SEED}"]
    return configuration(*quick, *places, *overrides)


ROLLS = 6  # loops in float32 at most, to see how far from float64 such a loop may be
APART = 1e-4  # of the loss, where two chaotic loops no longer tell anything


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
            patch.setattr("optbench.training.loop.SYNC_EVERY", 1)  # engines take many in a call
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
    problem: Problem,
    make: Callable[..., torch.optim.Optimizer],
    manner: str,
    *,
    steps: int | None = None,
    exact: bool = False,
    evaluated: Sequence[int] = (),
    roll: int = 0,
) -> list[float]:
    """Return the losses of a loop written out, up to the first that is not finite.

    manner: how `step` is called: after "gradients", with a "closure", with
    "both", with a closure "by name", or after gradients with their "graph". exact: in float64.
    evaluated: steps after which the optimizer's own `eval` and `train` are called, if it has them.
    roll: each batch begins at this one of its examples, which only rounds sums in another way.
    """
    steps = STEPS if steps is None else steps
    model, data = build_model(problem, SEED).train(), problem.dataset
    model = model.double() if exact else model
    x = data.train_x.double() if exact else data.train_x
    if optimizers.takes_any_layout(make) and takes_any_layout(model) and not exact:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    draw_from(model, stream(SEED, "dropout"))
    seed_all(stream(SEED, "optimizer").initial_seed())
    fused = {"fused": True} if getattr(make, "func", None) in FUSED else {}
    optimizer = make([p for p in model.parameters() if p.requires_grad], **fused)

    def switch(name: str) -> None:
        with contextlib.suppress(AttributeError):  # also of the one that a wrapper wraps
            getattr(optimizer, name)()

    switch("train")
    others = states()  # the optimizer draws from generators of its own
    seed_all(stream(SEED, "model").initial_seed())

    def swap() -> None:
        nonlocal others
        mine, others = others, states()
        set_states(mine)

    def step(batch: torch.Tensor) -> float:
        calls: list[float] = []
        stepping = False

        def closure() -> Any:
            if stepping:
                swap()
            optimizer.zero_grad()
            with torch.enable_grad():
                loss = problem.loss(model(x[batch]), data.train_y[batch])
                if manner == "graph":
                    own = [p for p in model.parameters() if p.requires_grad]
                    found = torch.autograd.grad(loss, own, create_graph=True, allow_unused=True)
                    for p, gradient in zip(own, found, strict=True):
                        p.grad = gradient if gradient is None else gradient.clone()
                else:
                    loss.backward()
            calls.append(loss.item())
            if stepping:
                swap()
            return loss

        if manner in ("gradients", "graph", "both"):
            closure()
        swap()
        stepping = True
        if manner in ("gradients", "graph"):
            optimizer.step()
        elif manner == "by name":
            optimizer.step(closure=closure)
        else:
            optimizer.step(closure)
        swap()
        return calls[0]

    batches, losses = Batches(problem, SEED), list[float]()
    while len(losses) < steps:
        for batch in batches.epoch()[: steps - len(losses)]:
            losses.append(step(torch.roll(torch.as_tensor(batch), roll) if roll else batch))
            if not isfinite(losses[-1]):
                return losses
            if len(losses) in evaluated:
                swap()
                switch("eval")
                switch("train")
                swap()
    return losses


def check_pair(model: str, optimizer: str, folder: Path, stop_at: int) -> None:
    """Hold a run, and one that was stopped and resumed, against the loop.

    Equal to the last bit; where compiled steps were taken, no farther from the loop in float64 than
    twice a loop in float32 is, and 1e-6.
    """
    config = command_line(folder, *overrides(model, optimizer))
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
    plain = plain_losses(problem, make, manner)
    compiled = (model, optimizer) in COMPILED_PAIRS
    if not compiled:
        assert list(map(str, whole)) == [str(float(f"{loss:.9g}")) for loss in plain]
        return
    exact = plain_losses(problem, make, manner, exact=True)
    # a diverging loop may end at another step
    distances = [(abs(a - c), abs(b - c)) for a, b, c in zip(whole, plain, exact)]  # noqa: B905
    far, usual = zip(*distances, strict=True)
    if optimizer in ("LBFGS", "Muon"):
        # The curvature of L-BFGS, from other examples in each step, makes any rounding grow a
        # thousandfold in ten steps. Muon rounds to bfloat16, also in the loop in float64, so that a
        # last bit may decide about a hundredth. What can be told is how long losses stay together.
        assert _together(far, exact) >= _together(usual, exact) / 2
        return
    # One loop may be lucky: where an activation's kink decides by the last bit, the distances of
    # loops that read the batches from another example on differed by a factor of four.
    bound = 2 * max(usual) + 1e-6
    for roll in range(1, ROLLS):
        if max(far) <= bound:
            break
        other = plain_losses(problem, make, manner, roll=roll)
        bound = max(bound, 2 * max(abs(a - b) for a, b in zip(other, exact)) + 1e-6)  # noqa: B905
    assert max(far) <= bound


def _together(distances: Sequence[float], exact: Sequence[float]) -> int:
    """The steps before the losses are apart."""
    pairs = enumerate(zip(distances, exact))  # noqa: B905
    return next((step for step, (d, loss) in pairs if d > APART * loss), len(distances))


def _manner(optimizer: str) -> str:
    return differential_optimizers.ALL[optimizer][2]


def _equal(a: Any, b: Any) -> bool:
    return repr(a) == repr(b) if not isinstance(a, torch.Tensor) else torch.equal(a, b)


COMPILED_PAIRS = {(m, o) for m in differential_models.COMPILED for o in differential_optimizers.ALL}
PAIRS = [(m, o) for m in differential_models.NAMES for o in differential_optimizers.ALL]

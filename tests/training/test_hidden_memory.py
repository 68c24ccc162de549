"""What models, optimizers, losses and schedules remember in places that are easily overlooked."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from optbench import UserError, losses
from optbench.datasets.arrays import as_tensor
from optbench.datasets.prepare import prepare
from optbench.initializers import initialize
from optbench.models import mlp
from optbench.problem import Problem, build_model
from optbench.runs import own_code
from optbench.training import saved_state
from optbench.training.loop import Training


class Base(Optimizer):
    def __init__(self, params, lr=0.05):
        super().__init__(params, {"lr": lr})
        self.own = [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def move(self, scale=1.0):
        for p in self.own:
            if p.grad is not None:
                p.sub_(p.grad, alpha=0.05 * scale)


class OnParameters(Base):
    """Momentum as an attribute of each parameter."""

    @torch.no_grad()
    def step(self):
        for p in self.own:
            p.buffer = getattr(p, "buffer", 0.0) * 0.9 + p.grad
            p.sub_(p.buffer, alpha=0.01)


class ByAddress(Base):
    """Momentum in a dictionary by `id(p)`."""

    def __init__(self, params):
        super().__init__(params)
        self.buffers = {}

    @torch.no_grad()
    def step(self):
        for p in self.own:
            self.buffers[id(p)] = self.buffers.get(id(p), 0.0) * 0.9 + p.grad
            p.sub_(self.buffers[id(p)], alpha=0.01)


class Counter:
    __slots__ = ("__n",)

    def __init__(self):
        self.__n = 0

    def count(self):
        self.__n += 1
        return self.__n


class PrivateSlot(Base):
    def __init__(self, params):
        super().__init__(params)
        self.counter = Counter()

    def step(self):
        self.move(1 / self.counter.count())


class Accumulating(Base):
    """Steps with the sum of the gradients of four batches, which its zero_grad keeps."""

    k = 0

    def zero_grad(self, set_to_none=True):
        if self.k % 4 == 0:
            super().zero_grad(set_to_none)

    def step(self):
        self.k += 1
        if self.k % 4 == 0:
            self.move()


class Freezing(Base):
    """Stops training one layer at a step."""

    def __init__(self, params):
        super().__init__(params)
        self.k = 0

    def step(self):
        self.move()
        self.k += 1
        if self.k == 5:
            self.own[0].requires_grad_(False)


class Transposing(Base):
    """Leaves its weights in another layout, as a rule for wide matrices does to tall ones."""

    @torch.no_grad()
    def step(self):
        self.move()
        for p in self.own:
            p.data = p.data.clone().t().contiguous().t() if p.ndim == 2 else p.data


class HookObject(Base):
    """Divides gradients by the number of steps, which a hook on them counts."""

    def __init__(self, params):
        super().__init__(params)
        self.own[0].register_hook(partial(self.divided, [0]))

    def divided(self, counts, gradient):
        counts[0] += 1
        return gradient / counts[0]

    def step(self):
        self.move()


class Unprepared(Optimizer):
    """Does not call the constructor of `Optimizer`, and so has no `state`."""

    def __init__(self, params):
        self.param_groups = [{"params": list(params)}]

    def step(self):
        for p in self.param_groups[0]["params"]:
            p.data.sub_(p.grad, alpha=0.05)


NET = partial(mlp, hidden=[6], batch_norm=True)


def problem(model: Any = NET) -> Problem:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 3
    data = prepare((x[:50], y[:50], x[50:], y[50:]), preprocessing="none")
    return Problem(
        data, model, losses.cross_entropy, initialize, batch_size=8, epochs=None, steps=20
    )


def curve(training: Training, stop_at: int | None = None) -> list[float]:
    calls = iter(range(1, 10**6))
    found = training.updates(lambda: stop_at is not None and next(calls) >= stop_at)
    return [row["train_loss"] for update in found for row in update.steps]


@pytest.mark.parametrize(
    "make",
    [
        OnParameters, ByAddress, PrivateSlot, Accumulating, Freezing, Transposing, HookObject,
        Unprepared,
    ],
)  # fmt: skip
def test_runs_resume_with_memory_wherever_it_is_kept(make: Any, tmp_path: Path) -> None:
    whole = curve(Training(problem(), make, log_every=1))
    stopped = Training(problem(), make, log_every=1)
    first = curve(stopped, 10)
    torch.save(stopped.state_dict(), tmp_path / "state")
    resumed = Training(problem(), make, log_every=1)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert first + curve(resumed) == whole


class Hooking(Base):
    """Registers a hook on a gradient in its fifth step."""

    steps = 0

    def step(self):
        self.move()
        self.steps += 1
        if self.steps == 5:
            self.own[0].register_hook(lambda gradient: 2 * gradient)


def test_a_hook_that_a_step_registered_restarts_the_run():
    stopped = Training(problem(), Hooking)
    curve(stopped, 10)
    with pytest.raises(ValueError, match="hooks were registered on gradients"):
        Training(problem(), Hooking).load_state_dict(stopped.state_dict())


def test_a_hook_with_a_variable_of_its_own_is_named():
    def make(params):
        optimizer, count = Unprepared(params), 0

        def hook(gradient):
            nonlocal count
            count += 1
            return gradient / count

        optimizer.param_groups[0]["params"][1].register_hook(hook)
        return optimizer

    assert "parameter 1.hooks[0] is a function" in saved_state.unsaveable(Training(problem(), make))


def test_gradients_that_an_optimizer_keeps_are_added_up() -> None:
    training = Training(problem(), Accumulating, log_every=1)
    weights = [p.detach().clone() for p in training.model.parameters()]
    sums = [torch.zeros_like(p) for p in weights]
    for batch in training.batches.epoch()[:4]:
        x, y = training.data.train_x[batch], training.data.train_y[batch]
        gradients = torch.autograd.grad(training._loss(x, y), list(training.model.parameters()))
        for total, gradient in zip(sums, gradients, strict=True):
            total.add_(gradient)
        training.stepper.step(x, y)
    for p, before, total in zip(training.model.parameters(), weights, sums, strict=True):
        torch.testing.assert_close(p.detach(), before - 0.05 * total)


def test_a_schedule_that_counts_in_a_variable_outside_is_told() -> None:
    def counting(optimizer: Optimizer) -> lr_scheduler.LambdaLR:
        calls = 0

        def factor(step: int) -> float:
            nonlocal calls
            calls += 1
            return 1 / calls

        return lr_scheduler.LambdaLR(optimizer, factor)

    def fixed(optimizer: Optimizer, total_steps: int) -> lr_scheduler.LambdaLR:
        return lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / total_steps)

    def unsaveable(schedule: Any) -> str:
        made = Training(problem(), partial(torch.optim.SGD, lr=0.1), schedule=schedule)
        return saved_state.unsaveable(made)

    assert "lr_lambdas" in unsaveable(counting)
    assert unsaveable(fixed) == ""


def test_a_model_that_gives_the_same_layers_twice_is_refused() -> None:
    shared = nn.Linear(4, 3)
    first = problem(lambda input_shape, classes: nn.Sequential(nn.Flatten(), shared))
    build_model(first, 0)
    with pytest.raises(UserError, match="same Linear at every call"):
        build_model(first, 0)


def test_a_helper_that_is_imported_by_a_name_made_up_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made_up_helper.py").write_text("S = 1.0\n")
    text = "import importlib\nh = importlib.import_module('made_up_' + 'helper')\n"
    (tmp_path / "makes_up.py").write_text(f"{text}def loss(o, t): return o.sum() * h.S\n")
    found = own_code.code_of({"loss": {"_target_": "makes_up.loss"}})["makes_up.loss"]
    assert set(found) == {"makes_up.py", "made_up_helper.py"}


@pytest.mark.parametrize(
    "text",
    [
        "import importlib as i\ndef load(rule): return i.import_module(f'nets.{rule}')\n",
        "import importlib.util as u\ndef load(p): return u.spec_from_file_location('a', p)\n",
        "def load(path): exec(open(path).read())\n",
    ],
)
def test_files_that_are_loaded_by_names_made_up_later_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"loads_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(f"{text}def loss(o, t): return o.sum()\n")
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "plain.py").write_text("S = 1.0\n")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "other.py").write_text("S = 1.0\n")
    found = own_code.code_of({"loss": {"_target_": f"{name}.loss"}})[f"{name}.loss"]
    assert set(found) == {f"{name}.py", "nets/plain.py"}


def test_modules_of_a_package_that_finds_them_itself_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "finds_its_own"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import importlib, pkgutil\nREGISTRY = {}\n"
        "for found in pkgutil.iter_modules(__path__):\n"
        "    importlib.import_module(f'{__name__}.{found.name}')\n"
    )
    (package / "helpers.py").write_text("S = 1.0\n")
    (package / "losses.py").write_text("def loss(o, t): return o.sum()\n")
    target = "finds_its_own.losses.loss"
    found = own_code.code_of({"loss": {"_target_": target}})[target]
    assert {path.removeprefix("finds_its_own/") for path in found} == {
        "__init__.py", "helpers.py", "losses.py",
    }  # fmt: skip


def test_labels_that_are_texts_are_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match="number labels from 0"):
        as_tensor("train_y", np.array(["u", "v"]))

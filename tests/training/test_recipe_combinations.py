"""Any combination of a recipe's parts resumes bit for bit where it was interrupted."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import LBFGS, SGD, Adam

from optbench import losses, models, optimizers, schedules, textbook
from optbench.datasets import prepare
from optbench.initializers import initialize
from optbench.problem import Problem, build_model, stream
from optbench.training.batches import Batches, examples_of
from optbench.training.loop import Training
from optbench.training.recipes import Recipe
from optbench.training.recipes.augmentation import Augmentation
from optbench.training.recipes.averaging import Averaging
from optbench.training.recipes.endings import EarlyStopping, StopAt

OPTIMIZERS = {
    "momentum": partial(SGD, lr=0.1, momentum=0.9),
    "adam": partial(Adam, lr=0.01),
    "nesterov": partial(textbook.Nesterov, lr=0.05, gamma=0.9),
    "lbfgs": partial(LBFGS, lr=0.5, max_iter=3),
}
MODEL = partial(models.cnn, channels=[3], hidden=[6], batch_norm=True, dropout=0.2)


def problem_of(**changes) -> Problem:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(45) % 3
    x = torch.rand(45, 1, 8, 8, generator=generator) + y[:, None, None, None] / 3
    data = prepare.prepare(
        prepare.RawDataset(x, y, x[:6], y[:6]), preprocessing="standardize", val_size=0.2
    )
    return Problem(data, MODEL, losses.cross_entropy, initialize, batch_size=8, **changes)


def stored(state: dict) -> dict:
    """The state after a way through a file that holds tensors and plain values only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def finish(training: Training, stop_at: int | None = None) -> list[dict]:
    """All rows to the end, or to the step at which the training is interrupted, and its status."""
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        if stop_at is not None:
            patch.setattr("optbench.training.loop.SYNC_EVERY", 1)
        for update in training.updates(lambda: training.step + 1 == stop_at):
            rows += [*update.steps, *([update.epoch] if update.epoch else [])]
            rows += [{"stopped": update.stopped}] * (update.status == "completed")
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def tensors_of(training: Training) -> Iterator[torch.Tensor]:
    yield from training.model.state_dict().values()
    if training.applied.averaged is not None:
        yield from training.applied.averaged.averaged.state_dict().values()


def check_resumes(make: partial, stop_at: int) -> None:
    whole, first = make(), make()
    expected = finish(whole)
    rows = finish(first, stop_at)
    last = first
    if rows[-1:] != expected[-1:]:  # the run had not ended before
        last = make()
        last.load_state_dict(stored(first.state_dict()))
        rows += finish(last)
    assert rows == expected
    for a, b in zip(tensors_of(last), tensors_of(whole), strict=True):
        assert torch.equal(a, b)


recipes = st.builds(
    Recipe,
    clip_norm=st.sampled_from([None, 0.1, 1.0]),
    clip_value=st.sampled_from([None, 0.01]),
    accumulate=st.sampled_from([1, 2, 4]),
    averaging=st.builds(
        Averaging, st.sampled_from([None, "ema", "tail", "swa"]), st.just(0.9),
        st.sampled_from([0, 0.3, 0.6]),
    ),
    early_stopping=st.builds(
        EarlyStopping, st.sampled_from([None, 1, 2]),
        st.sampled_from(["val_loss", "train_accuracy"]),
    ),
    stop_at=st.builds(StopAt, st.just("train_loss"), st.sampled_from([None, 0.9, 1e-9])),
    budget_seconds=st.sampled_from([None, 1e6]),
    augment=st.builds(Augmentation, st.integers(0, 3), st.booleans(), st.integers(0, 4)),
)  # fmt: skip


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    recipe=recipes,
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    schedule=st.sampled_from([None, schedules.cosine]),
    precision=st.sampled_from(["float32", "bfloat16", "float64"]),
    layers=st.booleans(),
    stop_at=st.integers(1, 19),
)
def test_any_recipe_resumes_as_an_undisturbed_run(
    recipe, optimizer, schedule, precision, layers, stop_at
):
    make = partial(
        Training, problem_of(epochs=4, precision=precision), OPTIMIZERS[optimizer], seed=3,
        log_every=1, schedule=schedule, layers=layers, recipe=recipe,
    )  # fmt: skip
    check_resumes(make, stop_at)


@contextmanager
def float16_on_the_cpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optbench.training.recipes.check_float16", lambda *_, **__: None)
        yield


@settings(max_examples=8, deadline=None, derandomize=True)
@given(recipe=recipes, stop_at=st.integers(1, 19))
def test_any_recipe_resumes_with_its_loss_scale(recipe, stop_at):
    with float16_on_the_cpu():
        make = partial(
            Training, problem_of(epochs=4, precision="float16"), OPTIMIZERS["adam"], seed=3,
            log_every=1, recipe=recipe,
        )  # fmt: skip
        check_resumes(make, stop_at)


def test_float16_equals_a_plain_loop_with_a_scaler():
    problem, make = problem_of(epochs=2, precision="float16"), partial(SGD, lr=0.05)
    model = build_model(problem, 3).train()
    models.draw_from(model, stream(3, "dropout"))
    optimizer, scaler = optimizers.build(make, model), torch.amp.GradScaler("cpu")
    batches = Batches(problem, 3)
    for batch in [*batches.epoch(), *batches.epoch()]:
        x, y = examples_of(problem.dataset, batch)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            outputs = model(x)
        scaler.scale(problem.loss(outputs.float(), y)).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
    with float16_on_the_cpu():
        ours = Training(problem, make, seed=3, recipe=Recipe(clip_norm=0.5), channels_last=False)
        finish(ours)
    for a, b in zip(ours.model.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_float16_trains_and_resumes_on_a_gpu():
    recipe = Recipe(clip_norm=1.0, accumulate=2, augment=Augmentation(1, True, 2))
    make = partial(
        Training, problem_of(epochs=4, precision="float16"), OPTIMIZERS["adam"], seed=3,
        log_every=1, recipe=recipe, device="cuda",
    )  # fmt: skip
    check_resumes(make, 7)


def test_the_loss_scale_resumes():
    """A scale that grows after two steps is another one where the run goes on."""
    with float16_on_the_cpu():
        make = partial(Training, problem_of(steps=6, epochs=None, precision="float16"), Adam)
        first = make()
        first.applied.gradients.scaler.set_growth_interval(2)
        finish(first, stop_at=5)
        second = make()
        second.load_state_dict(stored(first.state_dict()))
        scaler, resumed = first.applied.gradients.scaler, second.applied.gradients.scaler
        assert resumed.state_dict() == scaler.state_dict()
        assert scaler.get_scale() != 2.0**16

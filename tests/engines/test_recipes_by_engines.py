"""Compiled gradients serve a recipe's curve; what compiled steps lack is refused by its name."""

from functools import partial

import pytest
from torch.optim import SGD, Adam

from optbench import engines, models
from optbench.common.errors import UserError
from optbench.engines.compiled_mlp import mlp
from optbench.training.loop import Training
from optbench.training.recipes import Recipe
from optbench.training.recipes.averaging import Averaging
from optbench.training.recipes.endings import EarlyStopping, StopAt

pytestmark = pytest.mark.skipif(not mlp.available(), reason="no C++ compiler")
MODEL = partial(models.mlp, hidden=[20, 10], batch_norm=True, dropout=0.2)
RECIPES = {
    "clip_norm": Recipe(clip_norm=0.5),
    "clip_value": Recipe(clip_value=0.02),
    "ema": Recipe(averaging=Averaging("ema", 0.9)),
    "swa": Recipe(clip_norm=0.5, averaging=Averaging("swa", start=0.3)),
}


ADAM, FAST = partial(Adam, lr=0.01), partial(SGD, lr=0.5, momentum=0.9)


def curve(problem, recipe, engine, optimizer=ADAM) -> tuple[str, list[dict]]:
    factory = partial(engines.select, engine)
    training = Training(problem, optimizer, seed=1, log_every=1, engine=factory, recipe=recipe)
    rows = []
    for update in training.updates():
        rows += [*update.steps, *([update.epoch] if update.epoch else [])]
    return training.engine.name if training.engine else "plain", rows


@pytest.mark.parametrize("name", RECIPES)
def test_compiled_gradients_have_the_curve_of_plain_ones(make_problem, name):
    problem = make_problem(MODEL, n=120, epochs=4)
    engine, rows = curve(problem, RECIPES[name], "auto")
    assert engine == "compiled_gradients"
    _, plain = curve(problem, RECIPES[name], "plain")
    for row, wanted in zip(rows, plain, strict=True):
        assert row.keys() == wanted.keys()
        for key in [key for key in row if "loss" in key and row[key] is not None]:
            assert row[key] == pytest.approx(wanted[key], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_compiled_steps_refuse_what_happens_within_a_step(make_problem, name):
    with pytest.raises(UserError, match=r"compiled_mlp does not serve .*(clipped|averaged)"):
        curve(make_problem(MODEL), RECIPES[name], "compiled_mlp")


@pytest.mark.parametrize("engine", ["compiled_mlp", "compiled_gradients"])
def test_micro_batches_are_plain(make_problem, engine):
    problem, recipe = make_problem(MODEL), Recipe(accumulate=2)
    with pytest.raises(UserError, match="accumulate has micro-batches"):
        curve(problem, recipe, engine)
    assert curve(problem, recipe, "auto")[0] == "plain"


def test_early_ends_are_those_of_plain_steps(make_problem):
    problem = make_problem(partial(models.mlp, hidden=[20]), epochs=60, n=120)
    recipe = Recipe(early_stopping=EarlyStopping(2), stop_at=StopAt("val_loss", 1e-9))
    engine, rows = curve(problem, recipe, "auto", FAST)
    assert engine == "compiled_mlp"
    assert rows[-1]["step"] == curve(problem, recipe, "plain", FAST)[1][-1]["step"]
    assert rows[-1]["step"] < problem.total_steps


def test_seconds_end_compiled_steps_too(make_problem):
    problem = make_problem(partial(models.mlp, hidden=[20]), epochs=2000)
    engine, rows = curve(problem, Recipe(budget_seconds=0.02), "auto")
    assert engine == "compiled_mlp"
    assert rows[-1]["step"] < problem.total_steps
    assert rows[-1]["seconds"] >= 0.02

"""Each named optimizer of the field descends, learns, repeats, resumes, and takes groups."""

import io
from functools import cache
from math import isfinite
from pathlib import Path

import named_optimizers
import pytest
import torch
from composed import configuration
from named_optimizers import NAMES, TORCHS, Bowl, Rosenbrock, factory, node, take_steps

from optbench import optimizers, schedules
from optbench.common.errors import UserError
from optbench.config import build
from optbench.problem import Problem
from optbench.runner import rehearsal
from optbench.training import step_cost
from optbench.training.loop import Training
from optbench.training.recipes import Recipe
from optbench.training.recipes.averaging import Averaging
from optbench.training.recipes.endings import StopAt

pytest.importorskip("pytorch_optimizer", reason="pip install 'optbench[optimizers]'")
every_name = pytest.mark.parametrize("name", [*NAMES, *TORCHS])
HEAD = {"head": {"kind": "head", "lr_factor": 0.1}, "others": {}}
# what a class cannot, with its own words; docs/optimizers.md has the reasons
ONE_RATE = {"prodigy": "different lr values in different parameter groups"}
STAYS = 25  # steps that a low loss must last
STEPS = {"mlp": 60, "cnn": 120, "gpt": 120}
HALF = {"mlp": 1.15, "cnn": 1.15, "gpt": 1.25}  # of the loss of uniform guesses
NETWORKS = {
    "mlp": ["dataset=digits", "model=mlp", "model.hidden=[24]"],
    "cnn": ["dataset=digits", "model=cnn", "model.channels=[8,8]", "model.hidden=[32]"],
    "gpt": [
        "model=gpt", "model.width=16", "model.layers=1", "model.heads=2", "dataset=text",
        "dataset.context=16",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "cat.txt"
    path.write_text("the cat sat on the mat. " * 200)
    return path


@cache
def problem(kind: str, text: Path, steps: int) -> Problem:
    own = [f"data.path={text}"] if kind == "gpt" else ["data.subset=700"]
    config = configuration(
        *NETWORKS[kind], *own, "batch_size=32", f"steps={steps}", "epochs=null", "device=cpu"
    )
    return build.build_problem(config, build.load_dataset(config))


@every_name
@pytest.mark.parametrize("function", [Bowl, Rosenbrock])
def test_descends_within_500_steps(name, function):
    model = function()
    opt = optimizers.build(factory(name, lr=named_optimizers.test_rate(name)), model)
    first, low = model().item(), 0
    for loss in take_steps(model, opt, 500):
        assert isfinite(loss)
        low = low + 1 if loss < 0.4 * first else 0
        if low == STAYS:
            break
    if callable(getattr(opt, "eval", None)):
        opt.eval()
    assert low == STAYS
    assert model().item() < 0.5 * first


@every_name
@pytest.mark.parametrize("kind", ["mlp", pytest.param("cnn", marks=pytest.mark.slow), "gpt"])
def test_halves_the_loss_of_a_network(name, kind, texts):
    own = node(name).get("test", {}).get("networks")
    trained = Training(
        problem(kind, texts, STEPS[kind]),
        factory(name, **({} if own is None else {"lr": own})),
        recipe=Recipe(stop_at=StopAt("train_loss", HALF[kind])),
    )
    *_, last = trained.updates()
    assert last.epoch is not None
    assert last.stopped == "stop_at", last.epoch["train_loss"]


def trained(name, text, *, stop_at=None, state=None):
    """Losses of a recipe with schedule, groups, clipping and averages, and the state at a stop."""
    made = factory(name, **({"groups": HEAD} if "groups" not in node(name) else {}))
    if name in ONE_RATE:
        made = factory(name)
    training = Training(
        problem("mlp", text, 30), made, seed=1, schedule=schedules.warmup_cosine, log_every=1,
        recipe=Recipe(clip_norm=1.0, averaging=Averaging("ema", decay=0.9)),
    )  # fmt: skip
    if state is not None:
        training.load_state_dict(state)
    calls = iter(range(1, 999))
    found = list(training.updates(lambda: stop_at is not None and next(calls) >= stop_at))
    steps = [row["train_loss"] for update in found for row in update.steps]
    epochs = [
        (row["train_loss"], row.get("averaged_train_loss"), row["gradients"])
        for update in found
        if (row := update.epoch)
    ]
    return steps, epochs, training


@every_name
def test_resumes_bit_for_bit_within_an_epoch_of_a_whole_recipe(name, texts):
    whole, epochs, _ = trained(name, texts)
    first, begun, training = trained(name, texts, stop_at=17)
    held = io.BytesIO()
    torch.save(training.state_dict(), held)
    held.seek(0)
    rest, ended, _ = trained(name, texts, state=torch.load(held))
    assert len(first) == 17
    assert first + rest == whole
    assert [*begun, *ended] == epochs
    assert epochs[-1][1] is not None
    assert whole[-1] < whole[0]


@every_name
def test_groups_keep_their_ratio_of_rates_under_a_schedule(name, texts):
    own = node(name).get("groups")
    if name in ONE_RATE:
        training = Training(problem("mlp", texts, 30), factory(name, groups=HEAD))
        with pytest.raises(UserError, match=ONE_RATE[name]):
            list(training.updates())
        return
    training = Training(
        problem("mlp", texts, 30), factory(name, **({} if own else {"groups": HEAD})),
        schedule=schedules.cosine,
    )  # fmt: skip
    groups = training.optimizer.param_groups
    before = [group["lr"] for group in groups]
    assert len(before) >= 2
    training.stepper.switch_mode(training=True, stepped=False)
    training._take_step(training.batches.epoch()[0], 1)
    after = [group["lr"] for group in groups]
    assert after[0] < before[0]
    assert [x / after[0] for x in after] == pytest.approx([x / before[0] for x in before])


@every_name
def test_a_sweep_builds_and_times_it_as_a_run_does(name, tmp_path):
    words = ["dataset=digits", "model.hidden=[8]", "steps=20", "epochs=null", "device=cpu"]
    config = configuration(*words, f"optimizer={name}", f"results_dir={tmp_path}")
    rehearsal.rehearse(config, build.load_dataset)
    made = step_cost.cost_of_run(
        build.build_problem(config, build.load_dataset(config)),
        build.build("optimizer", config["optimizer"]),
        seed=0,
        decay_biases_and_norms=True,
        device=torch.device("cpu"),
    )
    # None for those that differentiate gradients again, of which a timing without a loss has none
    assert (made is None) == (name in ("sophia", "adahessian"))

"""Every YAML is composed and instantiated, and the checks name what is wrong."""

import re
from copy import deepcopy
from functools import partial

import pytest
import torch
from composed import resolved

from optbench.common.errors import UserError
from optbench.config import build, validate
from optbench.config.build import with_tuples
from optbench.config.resolve import check_keys, drop_foreign_arguments
from optbench.datasets.prepare import prepare
from optbench.formats.groups import config_folder
from optbench.models import ACTIVATIONS
from optbench.training.loop import Training

CONF = config_folder()


def options(group: str) -> list[str]:
    paths = sorted((CONF / group).rglob("*.yaml"))
    assert paths
    return [str(path.relative_to(CONF / group).with_suffix("")) for path in paths]


OF_TOKENS = ("bigram", "gpt", "lstm")  # models


def one_step(config: dict) -> float:
    """Train one step on a few images or tokens; the loss after it."""
    validate.check(config)
    generator = torch.Generator().manual_seed(0)
    if of_tokens := config["model"]["name"] in OF_TOKENS:
        x = torch.randint(0, 6, (40, 8), generator=generator)
        labels = (x + 1) % 6
    else:
        x = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator)
        labels = torch.arange(40) % 4
    preprocessing = "integers" if of_tokens else config["preprocessing"]
    data = prepare((x, labels, x[:8], labels[:8]), preprocessing=preprocessing)
    problem = build.build_problem(config | {"epochs": None, "steps": 1}, data)
    updates = Training(
        problem,
        build.build("optimizer", config["optimizer"]),
        schedule=build.build("schedule", config["schedule"]),
    ).updates()
    last = list(updates)[-1]
    assert last.status == "completed"
    return last.epoch["train_loss"]


# what makes no logits of small images, or takes none: test_deepobs.py trains it
# or takes lines, clips, label sequences or several targets: test_sequence_problems.py trains it
OWN_PROBLEM = ("deepobs_quadratic", "deepobs_3c3d", "deepobs_vae", "mean_output")
OWN_PROBLEM += ("cnn3d", "line_reader", "ctc", "several")
OWN_PROBLEM += ("vae",)  # test_autoencoder.py
OWN_PROBLEM += ("huber", "mae")  # of real targets: test_tasks.py
OWN_PROBLEM += ("authors",)  # the schedule of an optimizer's authors, which adam does not have
CASES = [
    (group, option)
    for group in ("model", "loss", "initializer", "optimizer", "schedule")
    for option in options(group)
    if option not in OWN_PROBLEM
]


@pytest.mark.parametrize(("group", "option"), CASES, ids=lambda value: value)
def test_every_choice_trains_a_step(group, option):
    # one evaluation for each weight: of a small model
    small = ["model=logreg"] if option == "textbook/weight_perturbation" else []
    config = resolved(f"{group}={option}", *small)
    named = {"torchvision": "resnet18"}  # the name is torchvision's
    assert config[group]["name"] == named.get(option, option.replace("textbook/", "textbook_"))
    assert one_step(config) < float("inf")


@pytest.mark.parametrize("option", options("dataset"))
def test_every_dataset_composes_and_names_its_loader(option):
    config = resolved(f"dataset={option}")
    validate.check(config)
    assert config["dataset"]["name"] == option
    source = {key: v for key, v in config["dataset"].items() if key != "preprocessing"}
    assert build.build("loader", source | {"_partial_": True})
    assert "root" not in build.describe_problem(config)["dataset"]


@pytest.mark.parametrize(
    "option",
    [
        *["mnist_5k", "digits", "wine", "breast_cancer", "deepobs_quadratic", "mnist_rows"],
        *["digit_lines", "moving_digits", "adding", "digit_and_parity", "austen"],
        *["modular_addition", "associative_recall", "linear_map"],
    ],
)
def test_datasets_without_downloads_load(option):
    if option in ("digits", "wine", "breast_cancer"):
        pytest.importorskip("sklearn")
    data = build.load_dataset(resolved(f"dataset={option}"))
    assert len(data.test_y) > 0
    assert len(data.train_y) > 0
    assert data.train_x.isfinite().all()


@pytest.mark.parametrize("option", options("study"))
def test_every_study_is_a_sweep_of_choices_that_exist(option):
    config = resolved(f"study={option}", multirun=True)
    assert config["hydra"]["mode"].name == "MULTIRUN"
    text = (CONF / "study" / f"{option}.yaml").read_text("utf-8")
    sweeper = re.findall("override /hydra/sweeper: (.+)", text) or ["grid"]
    assert config["hydra"]["runtime"]["choices"]["hydra/sweeper"] == sweeper[0]
    params = config["hydra"]["sweeper"]["params"]
    assert any(key.startswith("optimizer") for key in params)
    # a setting of one optimizer, as in adam.lr, belongs to that one alone
    own = {key: params.pop(key) for key in [*params] if key.split(".")[0] in options("optimizer")}
    tried = [[f"{key}={value}"] for key in params for value in values_of(key, params)]
    for key in own:
        name, _, rest = key.partition(".")
        tried += [[f"optimizer={name}", f"optimizer.{rest}={v}"] for v in values_of(key, own)]
    # a key may belong to the choice of another: each value beside the first of the others
    first = {key: values_of(key, params)[0] for key in params}
    for words in tried:
        named = {word.partition("=")[0] for word in words}
        others = [f"{key}={value}" for key, value in first.items() if key not in named]
        validate.check(resolved(f"study={option}", *others, *words))


def values_of(key: str, params: dict) -> list[str]:
    outside_of_lists = r",(?![^\[]*\])"
    values = [value.strip() for value in re.split(outside_of_lists, str(params[key]))]
    if key == "seed":
        return values[:1]
    # of a setting's values the ends, of a group all choices
    return [values[0], values[-1]] if "." in key and len(values) > 2 else values


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_every_activation_trains_a_step(model, activation):
    one_step(resolved(f"model={model}", f"model.activation={activation}", "batch_size=full"))


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "linear"])
def test_mse_trains_behind_every_output(output):
    one_step(resolved("loss=mse", f"loss.output={output}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=0", "optimizer.lr must be"),
        ("optimizer.lr=-0.1", "optimizer.lr must be"),
        ("optimizer.lr=nan", "optimizer.lr must be"),
        ("optimizer.lr=inf", "optimizer.lr must be"),
        ("optimizer.lr=fast", "optimizer.lr must be"),
        ("batch_size=0", "batch_size must be"),
        ("batch_size=1.5", "batch_size must be"),
        ("batch_size=all", "'full'"),
        ("batch_size=true", "batch_size must be"),
        ("epochs=0", "epochs must be"),
        ("epochs=null", "epochs or steps"),
        ("steps=-1", "steps must be"),
        ("seed=-1", "seed must be"),
        ("seed=null", "seed must be"),
        ("num_threads=0", "num_threads must be"),
        ("precision=float8", "bfloat16"),
        ("shuffle=never", "fixed_order"),
        ("force=maybe", "force must be"),
        ("name=a/b", "name must be"),
        ("log.steps=0", r"log\.steps must be"),
        ("data.subset=1", r"data\.subset must be"),
    ],
)
def test_a_wrong_value_is_named(override, message):
    with pytest.raises(UserError, match=message):
        validate.check(resolved(override))


def test_unknown_top_level_keys_are_refused():
    with pytest.raises(UserError, match="Did you mean epochs"):
        check_keys(resolved("+epoch=3"))
    check_keys(resolved())


def test_an_own_class_gets_its_own_arguments_only():
    overrides = ["optimizer._target_=torch.optim.NAdam", "+optimizer.momentum_decay=0.01"]
    optimizer = drop_foreign_arguments(resolved(*overrides), overrides)["optimizer"]
    assert optimizer == {
        "name": "NAdam",
        "_target_": "torch.optim.NAdam",
        "_partial_": True,
        "momentum_decay": 0.01,
    }
    overrides += ["optimizer.lr=0.5", "optimizer.name=mine"]
    optimizer = drop_foreign_arguments(resolved(*overrides), overrides)["optimizer"]
    assert (optimizer["lr"], optimizer["name"]) == (0.5, "mine")


def test_an_own_initializer_takes_the_place_of_the_weights_function():
    overrides = [
        "initializer=normal",
        "initializer.weight._target_=torch.nn.init.trunc_normal_",
        "initializer.weight.std=0.03",
    ]
    initializer = drop_foreign_arguments(resolved(*overrides), overrides)["initializer"]
    assert set(initializer["weight"]) == {"_target_", "_partial_", "std"}
    assert initializer["name"] == "trunc_normal_"


def test_drop_foreign_arguments_changes_nothing_where_nothing_was_given():
    config = resolved()
    assert drop_foreign_arguments(deepcopy(config), ["optimizer=adam", "epochs=3"]) == config


def test_a_list_is_a_tuple_where_the_default_is_one():
    class Strict(torch.optim.SGD):
        def __init__(self, params, lr, betas=(0.9, 0.99), sizes=None):
            assert isinstance(betas, tuple)
            super().__init__(params, lr)

    made = with_tuples(partial(Strict, lr=0.1, betas=[0.1, 0.2, 0.3], sizes=[1]))
    assert made.keywords == {"lr": 0.1, "betas": (0.1, 0.2, 0.3), "sizes": [1]}
    made([torch.zeros(1, requires_grad=True)])
    assert with_tuples(len) is len

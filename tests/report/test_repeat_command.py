"""The command written for a run composes to the configuration it came from."""

import shlex
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from optbench.config.resolve import drop_foreign_arguments
from optbench.formats.groups import config_folder
from optbench.formats.keys import DATA_SOURCES, UNREPEATED_KEYS
from optbench.report.repeat_command import command, joint_commands

CASES = [
    [],
    ["optimizer=sgd", "optimizer.lr=1e-2", "seed=3"],
    ["optimizer=textbook/adam", "optimizer.betas=[0.8,0.99]", "batch_size=full"],
    ["problem=fmnist_2c2d", "optimizer=momentum"],
    ["problem=quadratic_deep", "optimizer=lbfgs"],
    ["model=cnn", "model.batch_norm=true", "initializer=he_normal", "steps=7", "epochs=null"],
    ["optimizer._target_=torch.optim.NAdam", "optimizer.lr=0.002", "epochs=1"],
    ["optimizer=sgd", "+optimizer.maximize=false", "schedule=warmup_cosine"],
    ["optimizer.name='<script>alert(1)</script>'", "preprocessing=scale", "data.subset=100"],
    ["optimizer.name='it\\'s a b\\\\'", "loss=mse", "log.eval_test=end", "weight_penalty=0.1"],
    ["optimizer.name='1e3'", "dataset=emnist_letters", "precision=bfloat16"],
]


def composed(overrides: list[str]) -> dict[str, Any]:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", overrides), resolve=True)
    config = drop_foreign_arguments(config, overrides)
    for note in ("search", "test", "schedule"):
        config["optimizer"].pop(note, None)
    config = {k: v for k, v in config.items() if k not in UNREPEATED_KEYS}
    config["data"] = {k: v for k, v in config["data"].items() if k not in DATA_SOURCES}
    return config


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_the_command_composes_to_the_same_configuration(overrides):
    config = composed(overrides)
    words = shlex.split(command(config, config_folder()))
    assert words[:3] == ["python", "-m", "optbench"]
    assert composed(words[3:]) == config


def test_what_is_default_is_not_said():
    line = command(composed(["optimizer=sgd", "seed=2", "optimizer.lr=0.3"]), config_folder())
    assert line == "python -m optbench optimizer=sgd optimizer.lr=0.3 seed=2"


def repeated(jobs: list[list[str]]) -> list[str]:
    """Return the commands that make these runs again, less where they go."""
    runs = [(Path("results/x/run"), composed(["epochs=1", *words]), "plain") for words in jobs]
    rest = " epochs=1 engine=plain force=true results_dir=results/x name=plain"
    return [line.removesuffix(rest) for line in joint_commands(runs, config_folder())]


def test_the_command_of_a_sweep_has_each_optimizers_own_settings():
    seeds = ("seed=1", "seed=2")
    sgd = [["optimizer=sgd", f"optimizer.lr={lr}", s] for lr, s in product((0.1, 0.3), seeds)]
    adam = [["optimizer=adam", "optimizer.lr=0.02", seed] for seed in seeds]
    command = "python -m optbench -m optimizer=adam,sgd seed=1,2 adam.lr=0.02 sgd.lr=0.1,0.3"
    assert repeated(sgd + adam) == [command]
    assert repeated(sgd) == ["python -m optbench -m optimizer=sgd seed=1,2 optimizer.lr=0.1,0.3"]
    assert repeated(adam[:1]) == ["python -m optbench optimizer=adam seed=1 optimizer.lr=0.02"]


def test_a_combination_that_is_missing_makes_commands_of_their_own():
    lrs = [["optimizer=adam", f"optimizer.lr={lr}", "seed=1"] for lr in (0.1, 0.3)]
    assert len(repeated([*lrs, ["optimizer=sgd", "seed=1"], ["optimizer=sgd", "seed=2"]])) == 3
    eps = ["optimizer=adam", "optimizer.eps=0.1", "optimizer.lr=0.2", "seed=1"]
    assert len(repeated([*lrs, eps])) == 3

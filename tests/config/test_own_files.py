"""YAML files of a user's own: they work, or a sentence says what to add."""

from pathlib import Path

import hydra
import pandas as pd
import pytest
from in_process import call, sub_command

QUICK = ["data.subset=200", "steps=3", "num_threads=1", "engine=plain", "log.eval_epochs=1"]
CODE = """
import torch


class SignSGD(torch.optim.SGD):
    pass


class Broken(SignSGD):
    def step(self, closure=None):
        raise ValueError("my own fault")


class Plain:
    def __init__(self, params):
        pass


def net(inputs, outputs):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, outputs))


def loss(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets)


def data(examples=40):
    x, y = torch.randn(examples, 4), torch.arange(examples) % 2
    return x, y, x[:8], y[:8]


def from_file(path):
    return data()
"""
FILES = {  # by group and name
    "optimizer/fine": "_target_: minecode.SignSGD\n_partial_: true\nlr: 0.1\n",
    "optimizer/whole": "_target_: minecode.SignSGD\nlr: 0.1\n",
    "optimizer/typo": "_target_: minecode.SgnSGD\n_partial_: true\n",
    "optimizer/module": "_target_: minecod.SignSGD\n_partial_: true\n",
    "optimizer/bare": "_target_: SignSGD\n_partial_: true\n",
    "optimizer/none": "name: none\nlr: 0.1\n",
    "optimizer/nested": "optimizer:\n  _target_: minecode.SignSGD\n",
    "optimizer/needs": "_target_: minebad.X\n_partial_: true\n",
    "optimizer/syntax": "_target_: minesyntax.X\n_partial_: true\n",
    "optimizer/broken": "_target_: minecode.Broken\n_partial_: true\nlr: 0.1\n",
    "optimizer/plain": "_target_: minecode.Plain\n_partial_: true\n",
    "optimizer/tab": "_target_: minecode.SignSGD\n\tlr: 0.1\n",
    "optimizers/group": "_target_: minecode.SignSGD\n",
    "top": "_target_: minecode.SignSGD\n",
    "model/net": "_target_: minecode.net\n",
    "loss/loss": "_target_: minecode.loss\n",
    "dataset/data": "_target_: minecode.data\npreprocessing: none\n_partial_: true\n",
    "dataset/unscaled": "_target_: minecode.data\n",
    "dataset/file": "_target_: minecode.from_file\npreprocessing: none\n",
    "initializer/tensor": "_target_: torch.nn.init.kaiming_normal_\n",
    "study/keys": "epochs: 1\n",
    "study/sweep": "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 0,1\n",
    "study/tuned": "# @package _global_\ndefaults:\n  - override /hydra/sweeper: tuned\n",
}


@pytest.fixture
def mine(tmp_path, monkeypatch, capsys):
    """`python -m optbench --config-dir mine` in a folder with the files, in this process."""
    for name, text in FILES.items():
        path = tmp_path / "mine" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "minecode.py").write_text(CODE)
    (tmp_path / "minebad.py").write_text("import not_there\n")
    (tmp_path / "minesyntax.py").write_text("x =\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path / "out"))

    def run(*words: str) -> tuple[int, str, str]:
        if "optimizer=short" in words:  # Hydra 1.4 refuses each choice of a folder with such a file
            (tmp_path / "mine/optimizer/short.yml").write_text(FILES["optimizer/fine"])
        return call(monkeypatch, "--config-dir", "mine", *QUICK, *words), *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer=whole"], "needs params: add `_partial_: true` to the YAML"),
        (["model=net"], "needs inputs and outputs: add `_partial_: true` to the YAML"),
        (["loss=loss"], "so that optbench calls it with outputs and targets"),
        (["optimizer=typo"], "minecode has no SgnSGD. Did you mean SignSGD?"),
        (["optimizer=module"], "there is no module minecod. Did you mean minecode?"),
        (["optimizer=bare"], "_target_ is MODULE.NAME, as in torch.optim.SGD, and not SignSGD"),
        (["optimizer=none"], "names a class or function, as in `_target_: mymodule.MyClass`"),
        (["optimizer=nested"], "at its left edge"),
        (["dataset=unscaled"], "Add preprocessing to the YAML of dataset, or give preprocessing="),
        (["dataset=file"], "needs path: add it to the YAML, or give +dataset.NAME=VALUE"),
        (["initializer=tensor"], "give it as initializer.weight._target_, in a YAML below"),
        (["study=keys"], "its first line is `# @package _global_`"),
        (["study=sweep"], "the configuration sweeps over seed: add -m"),
        (["study=tuned"], "a tuned study is not a single run: add -m"),
        (["optimizer=fien"], "Did you mean fine?"),
        (["optimizer=needs"], "minebad cannot be imported: it imports not_there, which is"),
        (["optimizer=syntax"], "minesyntax cannot be imported: SyntaxError: invalid syntax"),
        (["optimizer=plain"], "Plain gave a Plain, and not a torch.optim.Optimizer: derive"),
        (["optimizer=tab"], "a YAML file cannot be read: "),
        (["optimizer=group"], "there is mine/optimizers/group.yaml, and a choice of optimizer is"),
        (["optimizer=top"], "is FOLDER/optimizer/top.yaml"),
        (["optimizer=short"], "there is mine/optimizer/short.yml, and a choice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_file_that_lacks_something_says_what_to_add(mine, words, message):
    if not hydra.__version__.startswith("1.3") and words[0].startswith("study="):
        pytest.skip("Hydra 1.4 sweeps where the study asks for it")
    if not hydra.__version__.startswith("1.3") and words == ["optimizer=short"]:
        message = "Hydra config files must use the '.yaml' extension"
    status, _, err = mine(*words)
    assert status == 1
    assert err.startswith("optbench: ")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "tab"], "a YAML file cannot be read: "),
        (["check", "none"], "optimizer needs a _target_: the YAML names a class"),
        (["find_lr", "optimizer=tab", "dataset=mnist_5k"], "a YAML file cannot be read: "),
        (["trajectories", "function=ravine", "optimizer=tab"], "a YAML file cannot be read: "),
        (["trajectories", "function=ravine", "optimizer=none"], "optimizer needs a _target_: "),
        (
            ["trajectories", "function=ravine", "optimizer=broken"],
            "optimizer=broken failed: ValueError: my own fault (",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_sub_commands_say_so_too(mine, capsys, words, message):
    status = sub_command(words[0])([*words[1:], "--config-dir", "mine"])
    err = capsys.readouterr().err
    assert status == 1
    assert message in err
    assert "Traceback" not in err


def test_a_setting_that_one_optimizer_lacks_is_refused_before_there_is_a_folder(mine, tmp_path):
    status, _, err = mine("-m", "optimizer=sgd,adam", "sgd.betas=[0.9,0.99]", "name=lacks")
    assert status == 1
    assert "unknown key 'sgd.betas': sgd has no betas" in err
    assert not (tmp_path / "out").exists()


def test_a_file_without_a_name_has_the_name_of_its_choice(mine, tmp_path):
    assert mine("optimizer=fine")[0] == 0
    assert mine("-m", "optimizer=fine,sgd", "name=both")[0] == 0
    assert set(pd.read_csv(tmp_path / "out/both/summary.csv")["optimizer"]) == {"fine", "sgd"}
    (run,) = (tmp_path / "out/runs").iterdir()
    assert run.name.startswith("fine-seed0-")


def test_a_dataset_is_called_whether_its_file_says_partial_or_not(mine):
    assert mine("dataset=data", "data.subset=null")[::2] == (0, "")


def test_trajectories_take_a_file_without_a_name(mine, capsys):
    words = ["function=ravine", "optimizer=fine", "steps=2", "format=png", "--config-dir=mine"]
    assert sub_command("trajectories")(words) == 0
    assert "fine lr=" in capsys.readouterr().out
    assert Path("out/trajectories/ravine/trajectories.png").exists()

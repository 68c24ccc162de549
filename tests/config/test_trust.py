"""What the user names may be called, with either Hydra; what no configuration may call is not."""

import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from functools import partial

import pytest

from optbench.common.errors import UserError
from optbench.config import trust
from optbench.config.build import build
from optbench.config.command_line import as_words, split

MODULE = """
import torch
class SignSGD(torch.optim.SGD):
    pass
def layers(act):
    return torch.nn.Sequential(act)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a module and an optimizer of the user's own."""
    (tmp_path / "mymodule.py").write_text(MODULE)
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "signsgd.yaml").write_text(
        "_target_: mymodule.SignSGD\n_partial_: true\nname: signsgd\nlr: 0.1\n"
    )
    (tmp_path / "beside" / "optimizer").mkdir(parents=True)
    (tmp_path / "beside" / "apart.py").write_text(MODULE)
    (tmp_path / "beside" / "optimizer" / "other.yaml").write_text(
        "_target_: apart.SignSGD\n_partial_: true\nname: other\nlr: 0.1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_names_are_found_where_the_user_gives_them(mine):
    words = ["optimizer._target_=torch.optim.NAdam", "+x={_target_:a.B}", "seed=1"]
    assert trust.named_by(words) == ["a.B", "torch.optim.NAdam"]
    conf = str(mine / "conf")
    for given in ([f"--config-dir={conf}"], ["--config-dir", conf], ["-cd", conf]):
        flags, words = split([*given, "optimizer=signsgd"])
        assert trust.named_by([*as_words(flags), *words]) == ["mymodule.SignSGD"]
    assert trust.named_by([f"hydra.searchpath=[file://{conf}]"]) == ["mymodule.SignSGD"]
    assert trust.named_by(["--config-dir=/nowhere"]) == []


def test_what_is_named_is_made_without_a_warning(mine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = build("optimizer", {"_target_": "mymodule.SignSGD", "_partial_": True, "lr": 0.1})
        assert isinstance(made, partial)
        # what it returns is of a package that nobody named
        act = {"_target_": "torch.nn.ReLU"}
        node = {"_target_": "mymodule.layers", "act": act}
        assert str(build("loss", node)[0]) == "ReLU()"
        node = {"_target_": "hydra.utils.get_method", "path": "mymodule.layers"}
        assert build("loss", node).__name__ == "layers"


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "mymodule.layers", "act": {"_target_": "builtins.eval", "_args_": ["1"]}},
    ],
)
def test_what_runs_a_shell_or_code_is_refused(mine, node):
    with pytest.raises(UserError, match=r"os.system|builtins.eval"):
        build("loss", node)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["optimizer._target_=torch.optim.NAdam"], marks=pytest.mark.slow),
        ["optimizer._target_=mymodule.SignSGD", "optimizer.lr=0.1"],
        ["--config-dir", "conf", "optimizer=signsgd"],
        pytest.param(
            ["-m", "--config-dir=conf", "optimizer=signsgd,sgd", "hydra/launcher=workers"],
            marks=pytest.mark.slow,
        ),
        ["--config-dir", "beside", "optimizer=other"],
        pytest.param(
            ["-m", "--config-dir=beside", "optimizer=other,sgd", "hydra/launcher=workers"],
            marks=pytest.mark.slow,
        ),
        ["+hydra.callbacks.mine._target_=hydra.experimental.callback.Callback"],
    ],
    ids=" ".join,
)
def test_the_command_line_needs_no_other_words(mine, words):
    quick = ["steps=2", "data.subset=100", "model.hidden=[4]", "num_threads=1", "quiet=true"]
    ended = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning", "-m", "optbench", *words, *quick],
        cwd=mine, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "hydra" not in ended.stderr.lower()


@pytest.mark.slow
def test_a_run_of_a_class_beside_its_configuration_is_repeated_as_the_report_says(mine):
    def optbench(*words):
        ended = subprocess.run(
            [sys.executable, "-m", "optbench", *words],
            cwd=mine, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    quick = ["steps=2", "data.subset=100", "model.hidden=[4]", "num_threads=1"]
    optbench("--config-dir", "beside", "optimizer=other", *quick)
    (run,) = (mine / "results" / "runs").iterdir()
    record = json.loads((run / "run.json").read_text())
    assert list(record["code"]["apart.SignSGD"]) == ["apart.py"]
    assert record["code_folder"] == "beside"
    optbench("report", "results/runs")
    page = (mine / "results" / "runs" / "report.html").read_text()
    (command,) = re.findall(r'"command":"(python -m optbench --config-dir beside [^"]*)"', page)
    assert "already done" in optbench(*shlex.split(command)[3:])

"""The key `engine`, with engines and without."""

import json
import sys
from functools import partial

import pytest
import torch

from optbench import __main__ as cli
from optbench.common.errors import UserError
from optbench.runner import engine
from optbench.runner.train import train


def test_older_configurations_are_read():
    assert engine.asked({"engine": "plain"}) == "plain"
    assert engine.asked({"record_steps": False}) == "plain"
    assert engine.asked({"record_steps": None}) == "auto"
    assert engine.asked({}) == "auto"


@pytest.mark.parametrize("word", ["record_steps=false", "+record_steps=null"])
def test_record_steps_on_the_command_line_names_what_to_use(monkeypatch, capsys, tmp_path, word):
    monkeypatch.setattr(sys, "argv", ["optbench", word, f"results_dir={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "record_steps is gone: engine takes its place" in said
    assert "record_steps=false is engine=plain" in said


def test_record_steps_in_a_file_of_ones_own_is_engine_plain(monkeypatch, capsys, tmp_path):
    (tmp_path / "conf" / "study").mkdir(parents=True)
    text = "# @package _global_\nrecord_steps: false\ndata:\n  subset: 100\nsteps: 3\n"
    (tmp_path / "conf" / "study" / "mine.yaml").write_text(text)
    words = ["--config-dir", str(tmp_path / "conf"), "study=mine", "model.hidden=[4]", "name=x"]
    words += [f"results_dir={tmp_path}", "quiet=true"]
    monkeypatch.setattr(sys, "argv", ["optbench", *words])
    cli.main()
    (path,) = (tmp_path / "x").glob("*/run.json")
    config = json.loads(path.read_text())["config"]
    assert config["engine"] == "plain"
    assert "record_steps" not in config


def test_unknown_engine_is_refused(make_problem):
    with pytest.raises(UserError, match="engine must be one of auto, plain, compiled_mlp"):
        train(make_problem(), torch.optim.Adam, engine="fast")


def test_without_engines_steps_are_plain(make_problem, monkeypatch):
    monkeypatch.setattr(engine, "found", None)
    assert engine.factory("auto") is None
    assert engine.factory("plain") is None
    assert engine.factory("compiled_mlp", required=False) is None
    with pytest.raises(UserError, match="this copy of optbench has no engines"):
        engine.factory("compiled_mlp")
    updates = list(train(make_problem(), partial(torch.optim.Adam, lr=0.01)))
    assert updates[-1].status == "completed"

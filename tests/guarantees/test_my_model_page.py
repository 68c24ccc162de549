"""Every example of docs/my-model.md runs, and its names are those that optbench knows."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from in_process import call

from optbench.model_calls import CLASS_NAMES, SHAPE_NAMES, VOCABULARY_NAMES
from optbench.runner import run as experiment
from optbench.tasks import KINDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "my-model.md").read_text("utf-8")
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, re.S))
COMMANDS = re.findall(r"^    python -m optbench (.*)$", PAGE, re.M)


class Killed(BaseException):
    pass


def rows(run: Path) -> list[dict[str, str]]:
    found = []
    for path in sorted(run.glob("*.csv")):
        with path.open(newline="") as file:
            found += [
                {k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)
            ]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("mine")
    for name, text in FILES.items():
        (made / name).write_text(text, "utf-8")
    return made


def words_of(command: str) -> list[str]:
    usual = ["num_threads=1", "quiet=true", "log.steps=1", "batch_size=64", "data.subset=200"]
    return [*shlex.split(command), *usual]


def only_run(results: Path) -> Path:
    (run,) = (results / "runs").iterdir()
    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_runs_and_resumes_after_a_kill(
    command, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("optbench.program.curve_of", lambda run: run)  # drawing takes a second
    words = words_of(command)
    assert call(monkeypatch, *words, f"results_dir={tmp_path}/whole") == 0
    whole = only_run(tmp_path / "whole")
    if "my_" not in command:
        return  # such runs resume in other tests
    again = [*words, f"results_dir={tmp_path}/killed", "checkpoint_seconds=0"]
    saves = []

    def save(run_folder, training):
        real(run_folder, training)
        saves.append(training.step)
        if training.step == 2:
            raise Killed

    real = experiment.save_if_possible
    with monkeypatch.context() as patch:
        patch.setattr("optbench.training.loop.SYNC_EVERY", 1)
        patch.setattr(experiment, "save_if_possible", save)
        patch.setattr(experiment, "mark_failed", lambda *_: None)  # nobody is left to do it
        with pytest.raises(Killed):
            call(monkeypatch, *again)
    assert saves == [1, 2]
    assert call(monkeypatch, *again) == 0
    killed = only_run(tmp_path / "killed")
    record = json.loads((killed / "run.json").read_text("utf-8"))
    assert record["resumed"]
    assert record["status"] == "completed"
    assert rows(killed) == rows(whole)


def test_the_page_uses_each_of_its_files():
    assert len(FILES) == len(COMMANDS) - 1 == 7
    for name in FILES:
        assert any(name.removesuffix(".py") in command for command in COMMANDS), name


def test_the_page_names_every_parameter_that_is_filled_in():
    told = {name for task in KINDS.values() for name in task.told_models}
    for name in (*SHAPE_NAMES, *CLASS_NAMES, *VOCABULARY_NAMES, *told):
        assert f"`{name}`" in PAGE, name

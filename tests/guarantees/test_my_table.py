"""The commands and scripts of docs/my-table.md run, in their order, in one folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import call, sub_command

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "my-table.md").read_text("utf-8")
SCRIPTS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
COMMANDS = re.findall(r"^ {4,6}python -m optbench (.*)$", PAGE, re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("my_table")
    (folder / "make_houses.py").write_text(SCRIPTS[0])
    subprocess.run([sys.executable, "make_houses.py"], cwd=folder, check=True)
    return folder


def test_the_page_has_its_examples():
    assert len(COMMANDS) >= 6
    assert len(SCRIPTS) == 2


def run(monkeypatch: pytest.MonkeyPatch, text: str, *more: str) -> int:
    words = shlex.split(text)
    if words[0] in ("plot", "verdict"):
        return sub_command(words[0])(words[1:])
    more += ("hydra/launcher=basic",) * ("-m" in words)
    return call(monkeypatch, *words, *more, "num_threads=1")


def test_every_command_of_the_users_table_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPTBENCH_RESULTS", "results")
    for text in COMMANDS[:-1]:
        assert run(monkeypatch, text) == 0, text
    assert (folder / "results" / "houses" / "test_rmse-epoch.png").exists()


@pytest.mark.slow
def test_the_command_of_the_bag_of_words_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPTBENCH_RESULTS", "results")
    assert run(monkeypatch, COMMANDS[-1], "data.subset=300", "epochs=1") == 0


def test_the_example_from_python_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    exec(compile(SCRIPTS[1], "my-table.md", "exec"), {})
    assert re.search(r"better|cannot tell", capsys.readouterr().out)

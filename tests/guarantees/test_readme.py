"""The README's examples run as they stand, and its tables name what there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from optbench.config.groups import config_folder

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
OWN = README.split("## Adding your own")[1].split("## From Python")[0]
FILES = re.findall(r"```\w+\n# (\S+\.(?:yaml|py))\n(.*?)```", OWN, re.S)
COMMANDS = re.findall(r"^    python -m optbench (.*)$", OWN, re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    for name, text in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_there_are_examples_of_each_kind():
    kinds = {"optimizer", "dataset", "model", "initializer", "study"}
    assert {Path(name).parent.name for name, _ in FILES} >= kinds
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(words, marks=pytest.mark.slow) if "-m" in words or "tiny" in words else words
        for words in COMMANDS
    ],
)
def test_every_command_of_the_readme_runs(folder, command):
    done = run(folder, "-m", "optbench", *command.split())
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_examples_run(folder):
    first, second = re.findall(r"```python\n(.*?)```", README.split("## From Python")[1], re.S)
    done = run(folder, "-c", first + "\nassert len(rows) == 2, rows")
    assert done.returncode == 0, done.stderr
    run(folder, "-m", "optbench", "epochs=1", "data.subset=200", "results_dir=results")
    done = run(folder, "-c", second.replace('"results"', '"results/runs"'))
    assert done.returncode == 0, done.stderr
    assert (folder / "curves.png").stat().st_size > 5000


@pytest.mark.parametrize(
    "group", ["problem", "model", "dataset", "loss", "initializer", "schedule", "logger", "study"]
)
def test_the_table_names_every_choice(group):
    row = next(line for line in README.splitlines() if line.startswith(f"| `{group}` |"))
    for path in (config_folder() / group).glob("*.yaml"):
        if path.stem != "comparison_mnist_grid":
            assert f"`{path.stem}`" in row


def test_every_claim_is_in_the_table_of_claims():
    table = (ROOT / "results" / "claims" / "README.md").read_text("utf-8")
    for path in (config_folder() / "study" / "claims").glob("*.yaml"):
        assert f"| [{path.stem}](#{path.stem}) |" in table
        assert (ROOT / "results" / "claims" / f"{path.stem}.png").exists()


def test_the_table_names_every_optimizer():
    row = next(line for line in README.splitlines() if line.startswith("| `optimizer` |"))
    for path in (config_folder() / "optimizer").glob("*.yaml"):
        assert f"`{path.stem}`" in row


def test_the_layout_names_every_room():
    layout = README.split("## How it is laid out")[1].split("```")[1]
    rooms = [path.parent.name for path in (ROOT / "optbench").glob("*/__init__.py")]
    assert len(rooms) > 10
    for room in rooms:
        assert f"  {room}/" in layout, room
    assert len(layout.splitlines()) <= 40


def test_every_column_is_explained():
    from optbench.formats.run import COLUMNS

    for column in {name for columns in COLUMNS.values() for name in columns}:
        assert f"`{column}`" in README


def test_every_promise_names_a_test_that_exists():
    promises = README.split("## What it promises")[1].split("## Licence")[0]
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(?:tests/)?((?:[a-z]+/)?test_[a-z_]+)(\.py)?`", promises)
    assert len(named) > 10
    for name, file in named:
        found = (ROOT / "tests" / f"{name}.py").exists() if file else f"def {name}(" in tests
        assert found, name

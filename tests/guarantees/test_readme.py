"""The README is short, its commands run and give what it shows, and its names are there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from optbench.common.errors import UserError
from optbench.sweeps.folder import check_folder as check_sweep

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
MOST_LINES, MOST_WORDS = 180, 1600
OWN = README.split("## An optimizer of your own")[1].split("## ")[0]
SHOWN = [  # a command of the README, and the lines that it is said to print
    (command, printed.strip().splitlines())
    for command, printed in re.findall(
        r"^\$ python -m optbench (.*)\n((?:[^`\n].*\n)*)", README, re.M
    )
]
COMMANDS = re.findall(r"(?:^    |`)python -m optbench (\S[^`\n]*)", README, re.M)
QUICK = ("data.subset=300", "model.hidden=[8]", "num_threads=1")
LONG = {"tuning.trials=20": "tuning.trials=2 tuning.repeats=2"}  # of the tuned comparison


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with the README's files, in which its commands follow each other."""
    folder = tmp_path_factory.mktemp("readme")
    for name, text in re.findall(r"```\w+\n# (\S+\.(?:yaml|py))\n(.*?)```", OWN, re.S):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("OPTBENCH_")}
        | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def form(line: str) -> str:
    """Return a line with its numbers, width, ends of run folders and verdict left open."""
    line = " ".join(re.sub(r"^(Verdict: ).*", r"\1", line.replace("\u2500", "")).split())
    return re.sub(r"-[0-9a-f]{12}\b|\d+(\.\d+)?", "#", line)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= MOST_LINES
    assert len(README.split()) <= MOST_WORDS


def test_the_first_commands_print_what_the_readme_shows(folder):
    assert len(SHOWN) == 3
    for command, expected in SHOWN:
        words = command.split()
        out = run(folder, "-m", "optbench", *words, *(QUICK if "=" in command else ()))
        printed = [form(line) for line in out.splitlines()]
        assert expected
        for line in expected:
            assert form(line) in printed, f"{line}\n\n{out}"
    check_folder(folder / "results" / "first")


def check_folder(sweep: Path) -> None:
    """Check that a sweep's folder holds what the README says, and its table the columns."""
    table = README.split("## What a sweep's folder holds")[1].split("\n\n")[1]
    names = re.findall(
        r"`([^`]+)`", "".join(line.split(" | ")[0] for line in table.splitlines()[2:])
    )
    assert len(names) > 6
    forms = {form(path.name) for path in sweep.iterdir()}
    for name in names:
        assert form(name.rstrip("/")) in forms, name


def test_the_optimizer_of_ones_own_runs_as_it_stands(folder):
    (command,) = re.findall(r"^    python -m optbench (.*)$", OWN, re.M)
    run(folder, "-m", "optbench", *command.split(), *QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in OWN])
def test_every_other_command_runs(folder, command):
    words = " ".join(LONG.get(word, word) for word in command.split()).split()
    trains = words[0] != "trajectories" and "--help" not in words
    run(folder, "-m", "optbench", *words, *((*QUICK, "epochs=1") if trains else ()))


def test_the_python_example_draws(folder):
    (text,) = re.findall(r"```python\n(.*?)```", README.split("## From Python")[1], re.S)
    (said,) = re.findall(r"print.*  # (.*)", text)
    assert said in run(folder, "-c", text)
    assert (folder / "compared.png").stat().st_size > 5000


def test_the_verdict_is_that_of_the_committed_study():
    verdict = (ROOT / "results" / "fair_comparison" / "verdict.md").read_text("utf-8")
    lines = re.findall(r"^\| .* (?:worse|better|cannot tell) .*\|$", README, re.M)
    assert len(lines) == 4
    for line in lines:
        assert line in verdict.splitlines()
    found = pd.read_csv(ROOT / "results" / "fair_comparison" / "verdict.csv")
    nearest = [  # of each problem, whatever came of them
        f"| {row.problem} | {row.b} | {row.a} |"
        for _, part in found.groupby("problem", sort=False)
        for row in part.loc[part["difference"].abs().nsmallest(2).index].itertuples()
    ]
    assert [line[: len(start)] for line, start in zip(lines, nearest, strict=True)] == nearest
    counts = found["verdict"].str.split(" (", regex=False).str[0].value_counts()
    assert set(counts.index) == {"worse", "cannot tell"}
    told = f"the other is worse in {counts['worse']}; {counts['cannot tell']} cannot tell."
    assert f"Of all {len(found)} pairs, {told}" in README


def test_the_rooms_are_those_of_the_package():
    rooms = README.split("## The rooms")[1].split("```")[1]
    names = {path.parent.name for path in (ROOT / "optbench").glob("*/__init__.py")}
    vocabulary = {"models", "losses", "tasks", "optimizers"}
    assert all(name in rooms.splitlines()[2] for name in vocabulary)
    # the engines are optional, and may be deleted
    assert set(re.findall(r"^  (\w+)/ ", rooms, re.M)) == names - vocabulary | {"engines"}
    assert len(rooms.strip().splitlines()) <= 21


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_results_of_users_are_ignored_by_git():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    named = re.findall(r"name=(\w+)", README) + re.findall(r"results/(\w+)", README)
    assert "first" in named
    folders = {*named, "runs", "sweeps", "trajectories/ravine", "mine", "comparison", "claims"}
    files = [f"results/{name}/{file}" for name in folders for file in ("x.csv", "run/run.json")]
    words = ["git", "check-ignore", *files]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert set(done.stdout.split()) == set(files)


def test_a_sweep_takes_the_place_of_no_committed_results():
    committed = {"fair_comparison", "claims", "benchmark", "gallery", "reliability", "trajectories"}
    for name in committed:
        with pytest.raises(UserError, match=r"README\.md.*choose another name"):
            check_sweep(ROOT / "results" / name)

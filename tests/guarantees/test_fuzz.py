"""Short forms of the fuzzing scripts; the long ones are in results/reliability."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "words",
    [
        ["fuzz_configurations", "--examples", "30", "--seed", "7"],
        pytest.param(["fuzz_files", "--files", "60", "--seed", "7"], marks=pytest.mark.slow),
    ],
    ids=lambda words: words[0],
)
def test_fuzzing_finds_nothing(words):
    command = [sys.executable, "-m", f"scripts.reliability.{words[0]}", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{words[2]} " in done.stdout.splitlines()[-1]

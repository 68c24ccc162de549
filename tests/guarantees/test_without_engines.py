"""The core works without engines: `optbench/engines/` is optional, and may be deleted."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# of the core, a part that takes seconds; `scripts/test-core` runs all of it
FAST = [
    "tests/training/test_loop.py",
    "tests/training/test_resume.py",
    "tests/runner/test_engine.py",
]


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    """A checkout without `optbench/engines` and `tests/engines`."""
    folder = tmp_path_factory.mktemp("core")
    for name in ("optbench", "hydra_plugins", "conf", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "engines")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    assert not list(folder.rglob("engines"))
    return folder


def call(core: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A Python that finds this copy before any other."""
    path = os.pathsep.join([str(core), str(core / "tests"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *words], cwd=core, capture_output=True, text=True, timeout=500,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow  # `scripts/test-core` runs all of them
def test_core_tests_pass_without_engines(core):
    found = call(core, "-c", "import optbench; print(optbench.__file__)")
    assert found.stdout.startswith(str(core)), found.stdout + found.stderr
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
    done = call(core, "-m", "pytest", *options, *FAST)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["workers", "basic"])
def test_run_and_sweep_are_plain_without_engines(core, tmp_path, launcher):
    words = ["-m", "optbench", "data.subset=200", "model.hidden=[8]", "epochs=2", "device=cpu"]
    words += ["quiet=true", f"results_dir={tmp_path}"]
    one = call(core, *words, "name=one")
    assert one.returncode == 0, one.stderr
    many = call(core, *words, "-m", "optimizer=sgd,adam", "name=many", f"hydra/launcher={launcher}")
    assert many.returncode == 0, many.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/run.json")]
    assert [record["engine"] for record in records] == ["plain"] * 3
    asked = call(core, *words, "name=asked", "seed=3", "engine=compiled_mlp")
    assert asked.returncode == 1
    assert "this copy of optbench has no engines" in asked.stderr

"""A real Slurm, and a Ray cluster of two nodes, on this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_commands import PATIENT, PROGRAM

ROOT = Path(__file__).resolve().parents[2]
SLURM = ROOT / "scripts" / "slurm"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[None]:
    """A running Slurm, stopped at the end."""
    pytest.importorskip("submitit")
    if not (shutil.which("slurmctld") or Path("/usr/sbin/slurmctld").exists()):
        pytest.skip("Slurm is not installed: scripts/slurm install (needs root)")
    folder = Path("/tmp") / f"optbench-slurm-{os.getpid()}"  # munge wants a short, safe path
    done = subprocess.run([SLURM, "start", folder], capture_output=True, text=True)
    if done.returncode:
        subprocess.run([SLURM, "stop", folder], capture_output=True)
        pytest.skip(f"Slurm cannot be started here: {done.stderr.strip()}")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield
    subprocess.run([SLURM, "stop", folder], capture_output=True)
    del os.environ["SLURM_CONF"]


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with the optimizer that waits."""
    (tmp_path / "patient.py").write_text(PATIENT)
    return tmp_path


@pytest.fixture
def command(place) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start `optbench -m WORDS` in a folder; it is ended after the test."""
    started: list[subprocess.Popen] = []

    def start(*words: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words], cwd=place, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)

"""Commands on clusters: tiny runs, an optimizer that waits, and what the runs hold."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from csv_rows import without_times

# the smallest runs there are, equal bit for bit wherever they are trained
TINY = [
    "data.subset=100", "model.hidden=[8]", "epochs=1", "log.steps=5", "device=cpu", "engine=plain",
    "num_threads=1", "deterministic=true", "checkpoint_seconds=0",
]  # fmt: skip
# an optimizer whose steps wait while a file is there
PATIENT = """
import time
from pathlib import Path
import torch

class Patient(torch.optim.SGD):
    def step(self, closure):
        Path("stepping").touch()
        while Path("stuck").exists():
            time.sleep(0.05)
        return super().step(closure)
"""
PATIENTLY = ["optimizer._target_=patient.Patient", "optimizer.lr=0.1"]
# without the figures, which take longer than such runs
PROGRAM = """
from optbench import __main__
from optbench.sweeps import callback

callback.finish = lambda *_, **__: print("drawn")
__main__.main()
"""


def finish(process: subprocess.Popen, seconds: float = 600) -> tuple[str, str]:
    """Wait for a command, check that it did well, and return what it printed."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, out + err
    return out, err


def until(what: Callable[[], object], process: subprocess.Popen, seconds: float = 300) -> None:
    """Wait until something is so; fail if the command ends before."""
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def tables(folder: Path) -> dict[str, list[list[str]]]:
    """The rows of every finished run without its times, by phase and identity."""
    found = {}
    for path in folder.rglob("run.json"):
        record = json.loads(path.read_text())
        if record["status"] != "completed":
            continue
        key = f"{path.parent.parent.name} {record['run_id']}"
        assert key not in found, "the run was done twice"
        found[key] = without_times((path.parent / "epochs.csv").read_text())
    return found

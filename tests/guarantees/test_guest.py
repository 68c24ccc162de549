"""A program of others that imports optbench stays as it was: `import optbench` does nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import optbench

PROGRAM = """
import gc, os, pkgutil, signal, sys, threading

import pandas, torch  # what the program itself uses; torch.optim sets TORCHINDUCTOR_CACHE_DIR

torch.optim.Adam([torch.zeros(1, requires_grad=True)])


def seen():
    return {
        "signals": {n: signal.getsignal(n) for n in signal.valid_signals()},
        "environment": dict(os.environ),
        "path": list(sys.path),
        "arguments": list(sys.argv),
        "folder": os.getcwd(),
        "threads": [thread.name for thread in threading.enumerate()],
        "torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "default": torch.get_default_dtype(),
        "generator": torch.get_rng_state().tolist(),
        "collector": (gc.isenabled(), gc.get_freeze_count(), gc.get_threshold()),
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
        "process": os.getpid(),
    }


def check(what):
    now = seen()
    for key, value in before.items():
        if isinstance(value, dict):
            both = value.keys() | now[key].keys()
            changed = {k: now[key].get(k) for k in both if value.get(k) != now[key].get(k)}
            assert not changed, f"{what} changed the {key}: {changed}"
        assert value == now[key], f"{what} changed the {key}: {value} {now[key]}"


torch.set_num_threads(1)
before = seen()
import optbench

check("import optbench")
for module in pkgutil.walk_packages(optbench.__path__, "optbench."):
    __import__(module.name)
    check(module.name)

from functools import partial
from optbench import losses, models
from optbench.datasets.prepare import RawDataset
from optbench.initializers import initialize

x, y = torch.arange(80.0).reshape(40, 2) / 80, torch.arange(40) % 2
before = seen()
problem = optbench.Problem(
    optbench.prepare(RawDataset(x, y, x, y)), model=partial(models.mlp, hidden=[4]),
    loss=losses.cross_entropy, initializer=initialize, batch_size=8, epochs=2,
)
updates = list(optbench.train(problem, partial(torch.optim.Adam, lr=0.01), seed=0))
assert updates[-1].status == "completed"
check("optbench.train")
assert len(optbench.load_runs(sys.argv[1]))
check("optbench.load_runs")
print("unchanged")
"""


@pytest.mark.parametrize(
    "words",
    [["-m", "mytool"], pytest.param(["script.py"], marks=pytest.mark.slow), ["bin/optbench"]],
)
def test_importing_and_using_optbench_changes_nothing_in_a_program(tmp_path, words):
    # `python -m` imports `mytool` before it has set the program's name; one has the command's name
    for name in ("mytool/__init__.py", "mytool/__main__.py", "script.py", "bin/optbench"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if "main" in name else PROGRAM)
    ended = subprocess.run(
        [sys.executable, *words, str(Path(__file__).parents[1] / "formats" / "1-later")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(optbench.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "unchanged\n", ended.stderr

"""Runs of a class of one's own that was edited since are not mixed with the new ones."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

OPTIMIZER = '''"""One's own rule."""
import torch
from helper import scale


class Sign(torch.optim.Optimizer):
    """Moves by the sign."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad.sign(), alpha=scale(group["lr"]))  # the step
        return loss
'''
HELPER = """def scale(lr):
    return 0.5 * lr
"""
QUICK = ["model=logreg", "data.subset=100", "epochs=1", "log.eval_test=never", "num_threads=1"]
MINE = ["optimizer._target_=my_optimizers.Sign", "optimizer.lr=0.01"]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "my_optimizers.py").write_text(OPTIMIZER)
    (tmp_path / "helper.py").write_text(HELPER)
    return tmp_path


def command(folder: Path, *words: str, module: str = "optbench") -> tuple[str, str]:
    """What a command of a process of its own says on both streams; it ends with status 0."""
    words = tuple([*words, *QUICK, *MINE] if module == "optbench" else words)
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        env=os.environ | {"OPTBENCH_RESULTS": str(folder / "results"), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def seeds_in_table(folder: Path) -> list[str]:
    with (folder / "summary.csv").open(newline="") as file:
        return [row["seeds"] for row in csv.DictReader(file)]


def test_edited_optimizer_is_not_mixed_with_its_older_runs(folder):
    sweep, results = ("-m", "name=mine"), folder / "results" / "mine"
    command(folder, *sweep, "seed=range(8)")
    edit(folder / "my_optimizers.py", "p.grad.sign()", "p.grad.sign().mul(0.9)")
    out, err = command(folder, *sweep, "seed=8")
    assert "already done" not in out
    assert "left out: 8 runs made before my_optimizers.py changed" in err
    out, err = command(folder, *sweep, "seed=range(9)")
    assert out.count("already done") == 1
    assert seeds_in_table(results) == ["9"]
    assert err.count("left out") == 1
    assert "left out: 8 runs made before my_optimizers.py changed" in err
    assert len(list(results.glob("*/run.json"))) == 17  # all are kept

    for edited, before, after in (
        ("my_optimizers.py", "  # the step", "  # the step, as in the paper"),
        ("my_optimizers.py", '"""Moves by the sign."""', '"""Moves\n\n    by the sign of it."""'),
        ("my_optimizers.py", '{"lr": lr}', "{\n            'lr': (lr),\n        }"),
        ("helper.py", "0.5 * lr", "0.5*lr"),
    ):
        edit(folder / edited, before, after)
    out, err = command(folder, *sweep, "seed=range(9)")
    assert out.count("already done") == 9

    out, err = command(folder, str(results), module="optbench.plot")  # status 0
    assert "left out: 8 runs made before my_optimizers.py changed" in err
    out, err = command(folder, str(results), module="optbench.report")
    assert "left out: 8 runs made before my_optimizers.py changed" in err

    edit(folder / "helper.py", "0.5*lr", "0.6*lr")
    out, err = command(folder, *sweep, "seed=0,1")
    assert "already done" not in out
    assert seeds_in_table(results) == ["2"]
    assert "8 runs made before helper.py and my_optimizers.py changed" in err
    assert "9 runs made before helper.py changed" in err
    # back to what it was: those runs are the ones that count again
    edit(folder / "helper.py", "0.6*lr", "0.5*lr")
    out, err = command(folder, *sweep, "seed=range(9)")
    assert out.count("already done") == 9
    assert seeds_in_table(results) == ["9"]
    record = json.loads(next(results.glob("*/run.json")).read_text())
    assert set(record["code"]["my_optimizers.Sign"]) == {"my_optimizers.py", "helper.py"}

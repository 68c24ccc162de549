"""The garbage collector is off only while a process starts."""

import gc
import os
import subprocess
import sys

import pytest

from optbench import startup

SEEN = """
import gc
from pathlib import Path
import torch

def tell(what):
    with open("seen.txt", "a") as file:
        print(what, gc.isenabled(), gc.get_freeze_count(), file=file)

class Seen(torch.optim.SGD):
    def __init__(self, params, lr):
        tell("made")
        super().__init__(params, lr)

    def step(self, closure=None):
        tell("step")
        return super().step(closure)
"""
RUN = [
    "optimizer._target_=seen.Seen",
    "optimizer.lr=0.1",
    "data.subset=100",
    "model.hidden=[4]",
    "steps=2",
    "name=x",
]


@pytest.mark.parametrize(
    ("words", "least"),
    [
        ([], 100_000),  # objects; torch's are among them
        (["-m", "seed=0,1", "hydra.launcher.workers=2"], 50_000),
        (["-m", "seed=0,1", "hydra/launcher=basic"], 10_000),
    ],
    ids=["alone", "workers", "basic"],
)
def test_garbage_is_collected_during_steps_and_what_was_imported_is_left_out(
    words, least, tmp_path
):
    (tmp_path / "seen.py").write_text(SEEN)
    subprocess.run(
        [sys.executable, "-m", "optbench", *RUN, *words],
        cwd=tmp_path,
        env=os.environ | {"OPTBENCH_RESULTS": str(tmp_path)},
        check=True,
    )
    seen = [line.split() for line in (tmp_path / "seen.txt").read_text().splitlines()]
    if not words:
        assert seen[0][:2] == ["made", "False"]
        del seen[0]
    # of a sweep, whose runs come and go, from before the first is made
    assert {what for what, _, _ in seen} == {"made", "step"}
    assert {enabled for _, enabled, _ in seen} == {"True"}
    assert min(int(frozen) for _, _, frozen in seen) > least


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(startup, "_begun", False)
    monkeypatch.setattr(startup, "_ended", False)


def test_nothing_changes_for_who_did_not_begin():
    frozen = gc.get_freeze_count()
    gc.disable()
    try:
        startup.end()
        assert not gc.isenabled()
        startup.begin()  # it is off already, by somebody else
        startup.end()
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert gc.get_freeze_count() == frozen


def test_it_begins_and_ends_once():
    try:
        startup.begin()
        assert not gc.isenabled()
        startup.end()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        startup.begin()
        assert gc.isenabled()
        gc.disable()  # by somebody else
        startup.end()
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()

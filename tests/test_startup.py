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

class Seen(torch.optim.SGD):
    def step(self, closure=None):
        with open("seen.txt", "a") as file:
            print(gc.isenabled(), gc.get_freeze_count(), file=file)
        return super().step(closure)
"""
RUN = ["optimizer._target_=seen.Seen", "data.subset=100", "model.hidden=[4]", "steps=2", "name=x"]


@pytest.mark.parametrize(
    "words",
    [[], ["-m", "seed=0,1", "hydra.launcher.workers=2"], ["-m", "seed=0", "hydra/launcher=basic"]],
    ids=["alone", "workers", "basic"],
)
def test_garbage_is_collected_during_steps_and_what_was_imported_is_left_out(words, tmp_path):
    (tmp_path / "seen.py").write_text(SEEN)
    subprocess.run(
        [sys.executable, "-m", "optbench", *RUN, *words],
        cwd=tmp_path,
        env=os.environ | {"OPTBENCH_RESULTS": str(tmp_path)},
        check=True,
    )
    seen = [line.split() for line in (tmp_path / "seen.txt").read_text().splitlines()]
    assert len(seen) >= 2
    assert {enabled for enabled, _ in seen} == {"True"}
    assert min(int(frozen) for _, frozen in seen) > 100_000  # torch is among them


def test_nothing_changes_for_who_did_not_begin(monkeypatch):
    monkeypatch.setattr(startup, "_begun", False)
    frozen = gc.get_freeze_count()
    gc.disable()
    try:
        startup.end()
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert gc.get_freeze_count() == frozen


def test_it_begins_once(monkeypatch):
    monkeypatch.setattr(startup, "_begun", False)
    try:
        startup.begin()
        assert not gc.isenabled()
        startup.end()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        startup.begin()
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()

"""The reading wing needs neither torch nor Hydra, and no room of the writers."""

import subprocess
import sys

ROOMS = ("optbench.report", "optbench.figures", "optbench.analysis", "optbench.stats")
IMPORT_ALL = """
import importlib, pkgutil, sys
for room in sys.argv[1:]:
    package = importlib.import_module(room)
    for found in pkgutil.walk_packages(package.__path__, room + "."):
        importlib.import_module(found.name)
heavy = ("torch", "torchvision", "hydra", "omegaconf")
rooms = ("training", "runs", "runner", "sweeps", "tuning", "engines")
unwanted = [*heavy, *(f"optbench.{room}" for room in rooms)]
print(*(name for name in sys.modules if name in unwanted))
print(sum(name.startswith("optbench.") for name in sys.modules))
"""


def test_modules_of_the_readers_bring_neither_torch_nor_hydra():
    command = [sys.executable, "-c", IMPORT_ALL, *ROOMS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    unwanted, count = done.stdout.split("\n")[:2]
    assert unwanted == ""
    assert int(count) > 60

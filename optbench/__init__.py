"""Compare optimizers honestly: paired seeds, equal budgets, one command."""

import os
import signal
import sys
from importlib import import_module
from pathlib import PurePath
from typing import Any

from optbench.allocator import preload

__version__ = "0.1.0"

_HOMES = {
    "Problem": "problem",
    "prepare": "datasets.prepare",
    "train": "training.loop",
    "load_runs": "analysis.table",
    "UserError": "common.errors",
}
__all__ = ["Problem", "UserError", "load_runs", "prepare", "train"]

# Of a command (`python -m` says "-m" until it has found the module) whose imports take a while:
# Ctrl-C ends it without a traceback. Where something has begun, `__main__` sees to it.
_command = PurePath("".join(sys.argv[:1])).stem in ("-m", "optbench")
if _command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
if _command:
    preload()  # before anything is imported that takes a while


def __getattr__(name: str) -> Any:
    # Imported when first used: torch and pandas would double the time of `--help`.
    if name in _HOMES:
        return getattr(import_module(f"optbench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'optbench' has no attribute {name!r}")

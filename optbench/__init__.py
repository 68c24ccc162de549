"""Compare optimizers honestly: paired seeds, equal budgets, one command."""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "Problem": "problem",
    "prepare": "datasets.prepare",
    "train": "runner.train",
    "compare": "in_memory",
    "load_runs": "analysis.table",
    "UserError": "common.errors",
}
__all__ = ["Problem", "UserError", "compare", "load_runs", "prepare", "train"]


def __getattr__(name: str) -> Any:
    # Imported when first used: `import optbench` changes nothing in a program of others.
    if name in _HOMES:
        return getattr(import_module(f"optbench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'optbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

"""Compare optimizers honestly: paired seeds, equal budgets, one command.

From Python: `prepare` a dataset, state a `Problem`, and `compare` optimizers on it; or `train` one
run. `load_runs` reads what the program wrote. The problem's parts come from the modules
`datasets`, `models`, `losses` and `initializers`; `optimizers`, `schedules` and `textbook` are the
others that configurations name. The remaining modules are internal, and may change.
"""

import sys
from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_MODULE_OF = {
    "Problem": "problem",
    "prepare": "datasets.prepare",
    "train": "runner.train",
    "compare": "in_memory",
    "load_runs": "analysis.table",
    "UserError": "common.errors",
}
__all__ = ["Problem", "UserError", "compare", "load_runs", "prepare", "train"]
_ROOMS = (
    "analysis", "datasets", "deepobs", "figures", "initializers", "losses", "models", "optimizers",
    "schedules", "stats", "textbook", "trajectories",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    # imported at first use, so that `import optbench` has no side effects
    if name in _MODULE_OF:
        return getattr(import_module(f"optbench.{_MODULE_OF[name]}"), name)
    if name in _ROOMS:
        return import_module(f"optbench.{name}")
    text = f"module 'optbench' has no attribute {name!r}"
    raise AttributeError(text, name=name, obj=sys.modules[__name__])  # Python proposes the nearest


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

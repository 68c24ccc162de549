"""Imports torchvision, also beside a CPU-only torch, where its compiled part does not load."""

import importlib
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

import torch

from optbench.common.errors import UserError

# Kept for the life of the process: the declarations vanish with the Library object.
_schemas: list[torch.library.Library] = []
T = TypeVar("T")


def with_torchvision(call: Callable[[], T]) -> T:
    """Return what `call` gives, also where it imports torchvision beside a CPU-only torch."""
    try:
        return call()
    except Exception as error:  # of Hydra's, or whatever the module that imports makes of it
        if "operator torchvision::" not in f"{error} {error.__cause__}":
            raise
    import_torchvision()
    return call()


def import_torchvision() -> ModuleType:
    """torchvision, with its datasets; imported at first use because it takes a second."""
    try:
        with warnings.catch_warnings():
            # "Failed to load image Python extension": only image decoding wants it.
            warnings.filterwarnings("ignore", message="Failed to load image")
            try:
                torchvision = importlib.import_module("torchvision")
            except RuntimeError as error:
                if "torchvision::" not in str(error):
                    raise
                _declare_operators()
                torchvision = importlib.import_module("torchvision")
            importlib.import_module("torchvision.datasets")
    except ModuleNotFoundError as error:
        raise UserError(
            f"torchvision is needed for this and does not import ({error}): pip install torchvision"
        ) from error
    return torchvision


def _declare_operators() -> None:
    """Declare the two operators that torchvision's Python code expects its compiled part to bring.

    PyPI's torchvision is compiled against CUDA libraries that a CPU-only torch lacks; without
    the schemas its import stops at "operator torchvision::nms does not exist".
    """
    for name in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
        del sys.modules[name]  # half imported
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _schemas.append(library)

"""The import of torchvision, also beside a CPU-only torch."""

import importlib
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

import torch

from optbench.common.errors import UserError

# kept for the life of the process, since the declarations vanish with the Library object
_schemas: list[torch.library.Library] = []
T = TypeVar("T")


def with_torchvision(call: Callable[[], T]) -> T:
    """Call a function that may import torchvision, and call it again if that failed."""
    try:
        return call()
    except Exception as error:  # Hydra or the importing module may wrap the error
        if "operator torchvision::" not in f"{error} {error.__cause__}":
            raise
    import_torchvision()
    return call()


def import_torchvision() -> ModuleType:
    """Return torchvision with its datasets; the import takes a second."""
    try:
        with warnings.catch_warnings():
            # "Failed to load image Python extension": only image decoding needs that extension
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
    """Declare two operators that torchvision expects from its compiled part.

    PyPI's torchvision is compiled against CUDA libraries that a CPU-only torch lacks. Without the
    declarations its import fails: "operator torchvision::nms does not exist".
    """
    for name in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
        del sys.modules[name]  # half imported
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _schemas.append(library)

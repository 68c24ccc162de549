"""Any kind of loss as a function: optbench's, torch's classes, and a user's own."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from optbench.common.errors import refusals
from optbench.losses.several import LOSSES_OF_PARTS, several
from optbench.model_calls import inner

WEIGHT_ARGUMENTS = ("weight", "pos_weight")  # torch's losses take these as tensors


def as_function(made: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return any kind of loss as a function of `(outputs, targets)`.

    A class (`torch.nn.CrossEntropyLoss`) is called with the arguments given. Lists of weights
    become tensors. Losses of optbench stay as they are.
    """
    if inner(made) is several and isinstance(made, partial):
        losses = made.keywords.get("losses")
        if isinstance(losses, list | tuple):
            each = [LOSSES_OF_PARTS.get(loss, loss) if isinstance(loss, str) else as_function(loss)
                    for loss in losses]  # fmt: skip
            made = partial(several, losses=each)
    if is_own(made):
        return made
    loss, given = inner(made), dict(made.keywords) if isinstance(made, partial) else {}
    tensors = {}
    with refusals("loss cannot be made"):
        for key in WEIGHT_ARGUMENTS:
            if isinstance(given.get(key), list):
                tensors[key] = given[key] = torch.tensor(given[key], dtype=torch.float32)
        if inspect.isclass(loss):
            made = loss(**given)
        elif tensors:
            made = _WithTensors(partial(loss, **given), tensors)
        if not callable(made):
            raise TypeError(f"a {type(made).__name__} is no function of outputs and targets")
    return ModuleLoss(made) if isinstance(made, nn.Module) else made


def is_own(loss: object) -> bool:
    """Return whether the loss is one of optbench's, a mean over the examples."""
    function = inner(loss)
    if function is several and isinstance(loss, partial):
        parts = loss.keywords.get("losses") or []
        return all(isinstance(part, str) or is_own(part) for part in parts)
    return inspect.isfunction(function) and function.__module__.split(".")[0] == "optbench"


class ModuleLoss:
    """A loss that is a module; its weights follow the device and dtype of the outputs."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._place: tuple[torch.device, torch.dtype] | None = None

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        place = outputs.device, outputs.dtype
        if place != self._place:
            self.module.to(*place)
            self._place = place
        return self.module(outputs, targets)


class _WithTensors(nn.Module):
    """A function with tensors among its arguments, which move with the module."""

    def __init__(self, function: Callable[..., Tensor], tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.function = function
        self.names = list(tensors)
        for name, tensor in tensors.items():
            self.register_buffer(f"given_{name}", tensor)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        given = {name: getattr(self, f"given_{name}") for name in self.names}
        return self.function(outputs, targets, **given)

"""Losses: functions of logits `(n, classes)` and labels `(n,)` to a mean over n.

Models give logits, so each loss applies its own output nonlinearity.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optbench.common.errors import UserError, check_choice, refusals
from optbench.model_calls import inner

OUTPUT_FUNCTIONS = {
    "softmax": lambda logits: logits.softmax(dim=1),
    "sigmoid": torch.sigmoid,
    "linear": lambda logits: logits,
}


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Return cross-entropy with optional label smoothing (Szegedy et al. 2016)."""
    if not isinstance(label_smoothing, int | float) or not 0 <= label_smoothing < 1:
        raise UserError(f"loss.label_smoothing must be in [0, 1), not {label_smoothing!r}")
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Return cross-entropy as the negative log-likelihood of the log-softmax."""
    return F.nll_loss(F.log_softmax(logits, dim=1), labels)


def mse(logits: Tensor, labels: Tensor, *, output: str = "softmax") -> Tensor:
    """Return the squared error to one-hot targets, averaged over examples and classes.

    `output` is the function of the logits: softmax, sigmoid or linear (none).
    """
    check_choice("loss.output", output, OUTPUT_FUNCTIONS)
    return F.mse_loss(OUTPUT_FUNCTIONS[output](logits), _one_hot(logits, labels))


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Return one-vs-all binary cross-entropy, averaged over examples and classes."""
    return F.binary_cross_entropy_with_logits(logits, _one_hot(logits, labels))


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    return F.one_hot(labels, logits.shape[1]).to(logits.dtype)


WEIGHT_ARGUMENTS = ("weight", "pos_weight")  # torch's losses take these as tensors


def as_function(made: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return any kind of loss as a function of `(outputs, targets)`.

    A class (`torch.nn.CrossEntropyLoss`) is called with the arguments given. Lists of weights
    become tensors. Losses of optbench stay as they are.
    """
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

"""Losses: functions of logits `(n, classes)` and labels `(n,)` to a scalar, averaged over n.

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

OUTPUTS = {
    "softmax": lambda logits: logits.softmax(dim=1),
    "sigmoid": torch.sigmoid,
    "linear": lambda logits: logits,
}


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits)[label], with optional label smoothing (Szegedy et al. 2016)."""
    if not isinstance(label_smoothing, int | float) or not 0 <= label_smoothing < 1:
        raise UserError(f"loss.label_smoothing must be in [0, 1), not {label_smoothing!r}")
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of the log-softmax: cross-entropy, written in its two steps."""
    return F.nll_loss(F.log_softmax(logits, dim=1), labels)


def mse(logits: Tensor, labels: Tensor, *, output: str = "softmax") -> Tensor:
    """Squared error between the outputs and one-hot targets, averaged over examples and classes.

    `output` is what is applied to the logits first: softmax, sigmoid or linear (nothing).
    """
    check_choice("loss.output", output, OUTPUTS)
    return F.mse_loss(OUTPUTS[output](logits), _one_hot(logits, labels))


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """One-vs-all: binary cross-entropy of each class's sigmoid, averaged over examples, classes."""
    return F.binary_cross_entropy_with_logits(logits, _one_hot(logits, labels))


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    return F.one_hot(labels, logits.shape[1]).to(logits.dtype)


WEIGHTS = ("weight", "pos_weight")  # torch's losses want these as tensors


def as_function(made: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss of any make as a function of `(outputs, targets)`.

    A class (`torch.nn.CrossEntropyLoss`) is made an object with the arguments given, and lists of
    weights are made tensors. optbench's own losses stay as they are.
    """
    if is_own(made):
        return made
    loss, given = inner(made), dict(made.keywords) if isinstance(made, partial) else {}
    tensors = {}
    with refusals("loss cannot be made"):
        for key in WEIGHTS:
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
    """Whether it is one of optbench's, whose loss of many examples is the mean of each one's."""
    function = inner(loss)
    return inspect.isfunction(function) and function.__module__.split(".")[0] == "optbench"


class ModuleLoss:
    """A loss that is a module, with its weights where the outputs are."""

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
    """A function with some arguments that are tensors, which move with the module."""

    def __init__(self, function: Callable[..., Tensor], tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.function = function
        self.names = list(tensors)
        for name, tensor in tensors.items():
            self.register_buffer(f"given_{name}", tensor)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        given = {name: getattr(self, f"given_{name}") for name in self.names}
        return self.function(outputs, targets, **given)

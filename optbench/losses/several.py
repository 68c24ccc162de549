"""The mean of a loss for each of several outputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optbench.common.errors import UserError, check_choice
from optbench.losses import plain
from optbench.losses.ctc import ctc

Loss = Callable[[Any, Any], Tensor]
LOSSES_OF_PARTS: dict[str, Loss] = {
    "cross_entropy": plain.cross_entropy, "nll": plain.nll, "bce": plain.bce, "mse": plain.mse,
    "mae": plain.mae, "huber": plain.huber, "ctc": ctc,
}  # fmt: skip


def several(outputs: Any, targets: Any, *, losses: Sequence[Loss | str] | None = None) -> Tensor:
    """Return the mean of the losses of several outputs, each a mean over the examples.

    outputs, targets: tuples, or dictionaries by the targets' names. losses: of each target in its
    order, as a function or a name of `LOSSES_OF_PARTS`; None: cross_entropy of whole numbers, mse
    of real ones.
    """
    if not isinstance(targets, Mapping | tuple) or isinstance(outputs, Tensor):
        raise UserError(
            "loss=several is for several targets, and the dataset has one: choose the loss of that "
            "one, or let the dataset's function return a tuple or a dictionary of targets"
        )
    names = list(targets) if isinstance(targets, Mapping) else list(range(len(targets)))
    if losses is not None and len(losses) != len(names):
        raise UserError(
            f"loss.losses has {len(losses)} losses, and there are {len(names)} targets: give one "
            f"for each, or null"
        )
    values = []
    for k, name in enumerate(names):
        part = outputs[name if isinstance(outputs, Mapping) else k]
        target = targets[name]
        loss = (losses or {k: _usual(target)})[k]
        if isinstance(loss, str):
            check_choice("loss.losses", loss, LOSSES_OF_PARTS)
            loss = LOSSES_OF_PARTS[loss]
        values.append(loss(part, target))
    return torch.stack(values).mean()


def _usual(target: Tensor) -> Loss:
    return plain.mse if target.is_floating_point() else plain.cross_entropy

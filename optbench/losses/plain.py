"""Losses: functions of outputs and targets to a mean over the examples.

For classes, outputs are logits `(n, classes)` and targets labels `(n,)`; for tokens, `(n, tokens,
classes)` and `(n, tokens)`; for values, both are `(n, values)`. Models give logits, so each loss
applies its own output nonlinearity.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from optbench.common.errors import UserError, check_choice

OUTPUT_FUNCTIONS = {
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "linear": lambda logits: logits,
}


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Return cross-entropy with label smoothing (Szegedy et al. 2016), averaged over examples.

    logits: (n, classes), or (n, tokens, classes). labels: (n,) or (n, tokens), integers; -100
    has no loss. The target of the label is 1 - label_smoothing, to which each class adds
    label_smoothing / classes. Raises `UserError` unless 0 <= label_smoothing < 1.
    """
    if not isinstance(label_smoothing, int | float) or not 0 <= label_smoothing < 1:
        raise UserError(f"loss.label_smoothing must be in [0, 1), not {label_smoothing!r}")
    logits, labels = _by_label("cross_entropy", logits, labels)
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Return cross-entropy as the negative log-likelihood of the log-softmax.

    It is averaged over examples. logits and labels as for `cross_entropy`.
    """
    logits, labels = _by_label("nll", logits, labels)
    return F.nll_loss(F.log_softmax(logits, dim=1), labels)


def mse(logits: Tensor, labels: Tensor, *, output: str = "softmax") -> Tensor:
    """Return the squared error to one-hot or real targets.

    The mean is over examples and outputs. `output` is the function of the logits: softmax, sigmoid
    or linear (none). For real targets the outputs are taken as they are.
    """
    check_choice("loss.output", output, OUTPUT_FUNCTIONS)
    if labels.is_floating_point():
        return F.mse_loss(logits, labels)
    if output == "softmax":
        _check_several("mse with loss.output=softmax", logits)
    return F.mse_loss(OUTPUT_FUNCTIONS[output](logits), _one_hot("mse", logits, labels))


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the absolute error to real targets, averaged over examples and outputs.

    outputs, targets: of one shape, (n, targets). Raises `UserError` for whole numbers as targets.
    """
    _check_real("mae", targets)
    return F.l1_loss(outputs, targets)


def huber(outputs: Tensor, targets: Tensor, *, delta: float = 1.0) -> Tensor:
    """Return Huber's loss (1964) of real targets, averaged over examples and outputs.

    The loss is e^2 / 2 for errors up to `delta` (in the unit of the standardized targets), and
    delta (|e| - delta / 2) beyond.
    """
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not delta > 0:
        raise UserError(f"loss.delta must be a number above 0, not {delta!r}")
    _check_real("huber", targets)
    return F.huber_loss(outputs, targets, delta=delta)


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Return one-vs-all binary cross-entropy, averaged over examples and classes.

    With one output, as for data.targets=binary, the labels are 0 and 1.
    """
    return F.binary_cross_entropy_with_logits(logits, _one_hot("bce", logits, labels))


def _by_label(loss: str, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (labels, classes) and labels in one dimension, also of tokens."""
    _check_whole(loss, labels)
    _check_several(loss, logits)
    if labels.ndim == 1:
        return logits, labels
    return logits.flatten(0, -2), labels.flatten()


def _check_whole(loss: str, labels: Tensor) -> None:
    if labels.is_floating_point():
        raise UserError(
            f"loss={loss} is for classes, and the targets are real numbers: take loss=mse, mae or "
            f"huber, or number the classes by integers in the dataset"
        )


def _check_real(loss: str, targets: Tensor) -> None:
    if not targets.is_floating_point():
        raise UserError(
            f"loss={loss} is for real targets, and these are numbers of classes: take "
            f"loss=cross_entropy, or a dataset of real targets: of a table with "
            f"dataset.task=regression, else of floats"
        )


def _check_several(loss: str, logits: Tensor) -> None:
    if logits.shape[-1] == 1:
        raise UserError(
            f"loss={loss} compares the outputs of several classes, and the model has one output, "
            f"whose softmax is always 1: take loss=bce"
        )


def _one_hot(loss: str, logits: Tensor, labels: Tensor) -> Tensor:
    _check_whole(loss, labels)
    if logits.shape[-1] == 1:
        return labels.unsqueeze(-1).to(logits.dtype)
    return F.one_hot(labels, logits.shape[-1]).to(logits.dtype)

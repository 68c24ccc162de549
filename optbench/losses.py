"""Losses: functions of logits `(n, classes)` and labels `(n,)` to a scalar, averaged over n.

Models give logits, so each loss applies its own output nonlinearity.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from optbench.errors import UserError, check_choice

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

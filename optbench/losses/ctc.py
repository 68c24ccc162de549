"""Connectionist temporal classification: label sequences without places."""

import torch
import torch.nn.functional as F
from torch import Tensor

from optbench.common.errors import UserError


def ctc(logits: Tensor, labels: Tensor) -> Tensor:
    """Return CTC's loss (Graves et al. 2006), averaged over the examples.

    logits: (n, time, classes), of which 0 is the blank. labels: (n, most labels) from 1, padded by
    -1. An example's loss is -log of the probability of its labels, divided by their number, as by
    torch's `ctc_loss` with reduction="mean".
    """
    if logits.ndim != 3 or labels.ndim != 2 or labels.is_floating_point():
        raise UserError(
            f"loss=ctc is for logits (n, time, classes) and label sequences (n, most labels) of "
            f"whole numbers, padded by -1, and these have shapes {tuple(logits.shape)} and "
            f"{tuple(labels.shape)} ({labels.dtype})"
        )
    n, steps, _ = logits.shape
    log_probabilities = logits.log_softmax(dim=2).transpose(0, 1)
    lengths = (labels >= 0).sum(dim=1)
    inputs = torch.full((n,), steps, dtype=torch.int64, device=logits.device)
    return F.ctc_loss(log_probabilities, labels.clamp(min=0), inputs, lengths, blank=0)

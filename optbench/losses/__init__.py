"""Losses: functions of outputs and targets to a mean over the examples."""

from optbench.losses.autoencoder import vae
from optbench.losses.calls import ModuleLoss, as_function, is_own
from optbench.losses.ctc import ctc
from optbench.losses.plain import OUTPUT_FUNCTIONS, bce, cross_entropy, huber, mae, mse, nll
from optbench.losses.several import several

__all__ = [
    "OUTPUT_FUNCTIONS",
    "ModuleLoss",
    "as_function",
    "bce",
    "cross_entropy",
    "ctc",
    "huber",
    "is_own",
    "mae",
    "mse",
    "nll",
    "several",
    "vae",
]

"""Optimizers: their factories, parameter groups by rule, and Muon with its partner."""

from optbench.optimizers.building import build, learning_rate, takes_any_layout
from optbench.optimizers.factories import check_callable
from optbench.optimizers.grouped import Grouped
from optbench.optimizers.known import is_known
from optbench.optimizers.muon import MuonWithAdamW

__all__ = [
    "Grouped",
    "MuonWithAdamW",
    "build",
    "check_callable",
    "is_known",
    "learning_rate",
    "takes_any_layout",
]

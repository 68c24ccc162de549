"""Optimizers: factories, parameter groups by rule, and Muon with its partner."""

from optbench.optimizers.budget import factories_of, with_budget
from optbench.optimizers.building import build, learning_rate, takes_any_layout
from optbench.optimizers.factories import check_callable
from optbench.optimizers.grouped import Grouped
from optbench.optimizers.known import is_known
from optbench.optimizers.muon import MuonWithAdamW
from optbench.optimizers.ownership import Owner, owners
from optbench.optimizers.shares import Share, share_of_main

__all__ = [
    "Grouped",
    "MuonWithAdamW",
    "Owner",
    "Share",
    "adopt_clip",
    "build",
    "check_callable",
    "factories_of",
    "is_known",
    "learning_rate",
    "owners",
    "share_of_main",
    "takes_any_layout",
    "with_budget",
]


def adopt_clip(step: float) -> float:
    """Return the largest update of a step of ADOPT, step^(1/4).

    Taniguchi et al. 2024. pytorch_optimizer's own default is a nameless function, which no
    checkpoint can hold.
    """
    return float(step**0.25)

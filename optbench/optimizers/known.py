"""The optimizer classes whose steps optbench knows: torch's and its own."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer

from optbench import perturbation, textbook
from optbench.optimizers.muon import MuonWithAdamW
from optbench.optimizers.parts import Parted
from optbench.torch_internals import has_step_hooks


@cache
def known_classes() -> frozenset[type]:
    """Return the classes of torch.optim, of the textbook, and Muon with its partner."""
    ours = [*vars(textbook).values(), perturbation.WeightPerturbation, MuonWithAdamW]
    found = [*vars(torch.optim).values(), *ours]
    return frozenset(c for c in found if isinstance(c, type) and issubclass(c, Optimizer))


def is_known_class(cls: object) -> bool:
    """Return whether a class or function is exactly torch's or ours."""
    return cls in known_classes()


def is_known(optimizer: Optimizer) -> bool:
    """Return whether the class is exactly torch's or ours, and its step has no hooks."""
    if type(optimizer) is Parted:
        return not has_step_hooks(optimizer) and all(map(is_known, optimizer.parts))
    known = is_known_class(type(optimizer))
    return known and "step" not in vars(optimizer) and not has_step_hooks(optimizer)


def in_any_layout(cls: Callable[..., Any]) -> bool:
    """Return whether a class is known to compute the same in any memory layout.

    LBFGS does not: it takes a `view` of every gradient as a vector.
    """
    return cls in known_classes() - {torch.optim.LBFGS}

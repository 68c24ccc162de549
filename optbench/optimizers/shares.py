"""The share of a model that the main one of several optimizers trains."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from optbench.optimizers.factories import Factory, name_of
from optbench.optimizers.grouped import Grouped, parts_of
from optbench.optimizers.muon import MuonWithAdamW
from optbench.optimizers.parts import parameters_of

SMALL_SHARE = 0.5  # with less, a comparison says more about the partner


class Share(NamedTuple):
    """How many numbers the optimizer of this name trains, out of all trained ones."""

    name: str
    own: int
    all: int
    partners: tuple[str, ...]
    kernels: int  # numbers in kernels, which partners train

    @property
    def is_small(self) -> bool:
        """Return whether the main optimizer trains less than half."""
        return self.own < SMALL_SHARE * self.all

    def words(self) -> str:
        """Return the share in a sentence, with what to do about it."""
        text = (
            f"{self.name} trains {self.own:,} of {self.all:,} parameters "
            f"({100 * self.own / self.all:.2g} %), and {' and '.join(self.partners)} the rest: the "
            f"curve is more of the partner than of {self.name}"
        )
        if self.kernels > self.own:
            text += (
                f". {self.kernels:,} of them are kernels of convolutions: flattened, these are "
                f"matrices (flatten_kernels of muon, flatten of a group)"
            )
        return text


def share_of_main(factory: Factory, optimizer: Optimizer, model: nn.Module) -> Share | None:
    """Return the share of an optimizer that has partners; None where it has none."""
    if isinstance(factory, Grouped):
        parts = parts_of(factory, model)
        main = [part for part in parts if part.factory is factory.factory]
        others = [part for part in parts if part.factory is not factory.factory]
        named = name_of(factory.factory), tuple(dict.fromkeys(name_of(p.factory) for p in others))
        own = [p for part in main for p in part.parameters]
        rest = [p for part in others for p in part.parameters]
    elif isinstance(optimizer, MuonWithAdamW):
        named = "Muon", ("AdamW",)
        muon = [part for part in optimizer.parts if isinstance(part, torch.optim.Muon)]
        own = [p for part in muon for p in parameters_of(part)]
        rest = [p for p in parameters_of(optimizer) if all(p is not q for q in own)]
    else:
        return None
    if not rest:
        return None
    kernels = _size([p for p in rest if p.ndim > 2])
    return Share(named[0], _size(own), _size(own) + _size(rest), named[1], kernels)


def _size(parameters: Sequence[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)

"""Read an optimizer's own numbers after a step: `log.optimizer=[d, update_rms]`.

A name is an entry of the first parameter group (Prodigy's `d`, `lr`), an attribute of the
optimizer, or an entry of its state for each parameter, of which the mean is logged. Three names are
computed for every optimizer:

- effective_lr: the step size that the class uses, if it exposes one (`scheduled_lr` of
  schedule-free classes, lr * d of Prodigy and D-Adaptation); else lr.
- update_rms: the root mean square of a step's change of the weights.
- preconditioner_age: steps since the class last computed its preconditioner.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench.common.errors import UserError
from optbench.common.names import proposing

UPDATE_RMS, EFFECTIVE_LR, AGE = "update_rms", "effective_lr", "preconditioner_age"
COMPUTED = (EFFECTIVE_LR, UPDATE_RMS, AGE)
# the names that packages have for the steps between two computations of a preconditioner
PERIODS = (
    "precondition_frequency", "preconditioning_compute_steps", "update_period", "inverse_steps",
    "update_proj_gap", "T_u", "update_freq", "preconditioner_update_frequency",
)  # fmt: skip
COUNTERS = ("step", "k", "t", "steps")


def period_of(optimizer: Optimizer) -> int | None:
    """Return the steps after which an optimizer does costly work again, if known."""
    places: list[Any] = [optimizer.param_groups[0], vars(optimizer)]
    for part in getattr(optimizer, "parts", ()):
        places += [part.param_groups[0], vars(part)]
    found = [place[name] for place in places for name in PERIODS if name in place]
    whole = [n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    return max(whole, default=None)


class Internals:
    """The values of some names, read after the steps that are logged."""

    def __init__(self, names: Sequence[str], optimizer: Optimizer, model: nn.Module) -> None:
        """Prepare to read `names` of an optimizer."""
        self.names, self.optimizer = names, optimizer
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._before: list[Tensor] = []

    def before_step(self) -> None:
        """Keep the weights before a step, if its update is asked for."""
        if UPDATE_RMS in self.names:
            self._before = [p.detach().clone() for p in self.parameters]

    def after_step(self) -> dict[str, float | None]:
        """Return the values after a step. Raises `UserError` for a name that is not there."""
        found = {name: self._value(name) for name in self.names}
        self._before = []
        return found

    def _value(self, name: str) -> float | None:
        group = self.optimizer.param_groups[0]
        if name == UPDATE_RMS:
            return self._update_rms()
        if name == EFFECTIVE_LR:
            rate = group.get("scheduled_lr", group.get("lr"))
            scale = group.get("d", 1.0)
            return None if rate is None else (_number(rate) or 0.0) * (_number(scale) or 1.0)
        if name == AGE:
            return self._age()
        for place in (group, vars(self.optimizer)):
            if name in place and (value := _number(place[name])) is not None:
                return value
        states = [s for s in self.optimizer.state.values() if isinstance(s, dict) and name in s]
        values = [v for s in states if (v := _number(s[name])) is not None]
        if values:
            return math.fsum(values) / len(values)
        raise UserError(
            f"log.optimizer: {type(self.optimizer).__name__} has no number {name}"
            f"{proposing(name, self.known())}It has: {', '.join(self.known())}"
        )

    def _update_rms(self) -> float:
        with torch.no_grad():
            squares = [
                (p.detach() - old).abs().double().square().sum()
                for p, old in zip(self.parameters, self._before, strict=True)
            ]
        size = sum(p.numel() for p in self.parameters)
        return math.sqrt(float(torch.stack(squares).sum()) / size)

    def _age(self) -> float | None:
        period, group = period_of(self.optimizer), self.optimizer.param_groups[0]
        taken = next((group[name] for name in COUNTERS if name in group), None)
        states = [s for s in self.optimizer.state.values() if isinstance(s, dict)]
        steps = [s["step"] for s in states if "step" in s]
        taken = _number(taken if taken is not None else next(iter(steps), None))
        if period is None or taken is None:
            return None
        return (taken - 1) % period

    def known(self) -> list[str]:
        """Return the names that can be logged of this optimizer after a step."""
        group = self.optimizer.param_groups[0]
        states = next((s for s in self.optimizer.state.values() if isinstance(s, dict)), {})
        places: list[Any] = [group, vars(self.optimizer), states]
        own = [name for place in places for name, v in place.items() if _number(v) is not None]
        return [*COMPUTED, *dict.fromkeys(str(name) for name in own if str(name)[:1] != "_")]


def _number(value: Any) -> float | None:
    """Return a number or a tensor of one number as a float, else None."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None

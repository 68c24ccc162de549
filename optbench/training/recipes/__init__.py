"""The recipe: what a training adds to the optimizer and its schedule."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from optbench.common.errors import UserError, check_choice
from optbench.problem import Problem
from optbench.training.recipes.augmentation import Augmentation
from optbench.training.recipes.averaging import Averaging
from optbench.training.recipes.checks import check_positive, is_count
from optbench.training.recipes.decay import FORMS
from optbench.training.recipes.endings import EarlyStopping, StopAt, check_metric


@dataclass(frozen=True)
class Recipe:
    """The settings of a recipe; the defaults leave a training as it is.

    decay_form: one of `decay.FORMS`, which replaces the optimizer's own form of weight decay.
    clip_norm: the largest Euclidean norm of all gradients together. clip_value: the largest
    absolute value of each number in the gradients, which are clipped by value first.
    accumulate: micro-batches of a step, whose gradients are summed.
    budget_seconds: seconds of training after which a run ends, if it has not ended before.
    """

    decay_form: str | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    averaging: Averaging = field(default_factory=Averaging)
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    stop_at: StopAt = field(default_factory=StopAt)
    budget_seconds: float | None = None
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.decay_form is not None:
            check_choice("decay_form", self.decay_form, FORMS)
        for key in ("clip_norm", "clip_value", "budget_seconds"):
            check_positive(key, getattr(self, key))
        if not is_count(self.accumulate, 1):
            raise UserError(
                f"accumulate must be a whole number of at least 1 (micro-batches of a step), not "
                f"{self.accumulate!r}"
            )
        averaged = bool(self.averaging.kind)
        if self.early_stopping.patience is not None:
            check_metric("early_stopping.metric", self.early_stopping.metric, averaged=averaged)
        if self.stop_at.value is not None:
            check_metric("stop_at.metric", self.stop_at.metric, averaged=averaged)

    @property
    def clips(self) -> bool:
        """Return whether gradients are clipped."""
        return self.clip_norm is not None or self.clip_value is not None

    def check(self, problem: Problem, device: torch.device, *, watched: bool) -> None:
        """Raise `UserError` where the recipe does not fit the problem or the device.

        watched: whether the layers are watched (diagnostics=layers).
        """
        if problem.batch_examples % self.accumulate:
            raise UserError(
                f"accumulate={self.accumulate} does not divide the batch of "
                f"{problem.batch_examples} examples: choose a divisor, or another batch_size"
            )
        if self.budget_seconds is not None and problem.steps is not None:
            raise UserError(
                f"budget_seconds={self.budget_seconds:g} stands beside steps={problem.steps}, and "
                f"a run has one budget: leave one of the two out (epochs beside budget_seconds is "
                f"the most that is trained)"
            )
        for key, ending in (
            ("early_stopping.metric", self.early_stopping),
            ("stop_at", self.stop_at),
        ):
            ending.check(key, problem)
        self.augment.check(problem)
        if problem.precision == "float16":
            check_float16(device, watched=watched)


def check_float16(device: torch.device, *, watched: bool) -> None:
    """Raise `UserError` where float16 with loss scaling is not supported."""
    if device.type != "cuda":
        raise UserError(
            f"precision=float16 scales the loss for GPUs, and the device is {device.type}: use "
            f"device=cuda, or precision=bfloat16 or float32"
        )
    if watched:
        raise UserError(
            "diagnostics=layers would see the gradients of a scaled loss at precision=float16: "
            "use precision=bfloat16 or float32, or leave diagnostics out"
        )


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a configuration. Raise `UserError` for a wrong value."""
    parts = {
        "averaging": Averaging, "early_stopping": EarlyStopping, "stop_at": StopAt,
        "augment": Augmentation,
    }  # fmt: skip
    given = {one.name: config[one.name] for one in fields(Recipe)}
    for name, kind in parts.items():
        keys = [one.name for one in fields(kind)]
        if not isinstance(given[name], Mapping):
            raise UserError(
                f"{name} is a group of keys such as {name}.{keys[0]}, not {given[name]!r}"
            )
        given[name] = kind(**given[name])
    return Recipe(**given)

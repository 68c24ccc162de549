"""The learning-rate finder: a short run whose lr rises exponentially (Smith 2017)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from optbench.common.errors import UserError
from optbench.config.build import results_of
from optbench.formats.keys import RunConfig
from optbench.optimizers import learning_rate
from optbench.runner.planning import arguments, plan
from optbench.stats.external_scores import smoothed
from optbench.training.loop import Training
from optbench.training.recipes import Recipe

DECAY = 0.9  # of the moving average over the losses of single batches
PLATEAU_SHARE = 0.1  # of the whole fall: a loss that fell less is on the plateau
SLOPE_DECADES = 0.25  # on both sides of a rate
WORSE_BY = 4  # the ramp ends at this multiple of the least loss, as fast.ai's does


class Ramp(NamedTuple):
    """The lr and the loss of each step of a ramp, with the loss's moving average."""

    lr: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray

    @property
    def least(self) -> float:
        """Return the lr at which the smoothed loss is least."""
        return float(self.lr[self.smoothed.argmin()])

    @property
    def steepest(self) -> float:
        """Return the lr at which the smoothed loss falls most in a decade of lr.

        It lies before `least`, and where the loss has left its plateau: before that, mini-batches
        alone move it. Raises `UserError` where the loss never falls.
        """
        end = int(self.smoothed.argmin()) + 1
        plateau = float(np.median(self.smoothed[: max(1, end // 4)]))
        fallen = plateau - PLATEAU_SHARE * (plateau - self.smoothed[end - 1])
        above = np.flatnonzero(self.smoothed[:end] >= fallen)
        begin = int(above[-1]) if len(above) else 0
        if end < 3 or plateau <= self.smoothed[end - 1]:
            raise UserError(
                "the loss never fell: begin with a smaller learning rate (--low), or look at the "
                "loss, the model and the data"
            )
        logs, losses = np.log10(self.lr[:end]), self.smoothed[:end]
        # over a quarter of a decade on both sides: the slope of two batches is noise
        first = np.searchsorted(logs, logs - SLOPE_DECADES)
        last = np.searchsorted(logs, logs + SLOPE_DECADES, side="right") - 1
        slope = (losses[last] - losses[first]) / np.maximum(logs[last] - logs[first], 1e-12)
        begin = min(begin, end - 2)
        return float(self.lr[begin + int(slope[begin:].argmin())])


def find(config: RunConfig, low: float, high: float, steps: int) -> Ramp:
    """Train with an lr that rises from `low` to `high`, and return the ramp.

    steps: the number of steps from `low` to `high`.

    The ramp uses the run's recipe without averages and early ends, and takes plain steps. It ends
    before `high` where the loss is not finite, or is four times the least one.
    Raises `UserError` for a configuration that no run could use.
    """
    planned = plan({**config, "engine": "plain"}, results_of(config), find=lambda *_: None)
    asked = arguments(planned)
    recipe: Recipe = asked["recipe"]
    asked |= {
        "problem": replace(asked["problem"], steps=steps, epochs=None),
        "schedule": partial(rising, low=low, high=high),
        "recipe": Recipe(
            clip_norm=recipe.clip_norm,
            clip_value=recipe.clip_value,
            accumulate=recipe.accumulate,
            augment=recipe.augment,
        ),
        "log_every": 1, "eval_every": steps, "eval_test": "never", "layers": False,
        "engine": None,
    }  # fmt: skip
    rates: list[float] = []
    losses: list[float] = []
    for update in Training(**asked).updates(worse(losses)):
        rates += [float(row["lr"] or 0.0) for row in update.steps]
        losses += [float(row["train_loss"] or 0.0) for row in update.steps]
    found = np.array(losses)
    kept = np.isfinite(found)
    if kept.sum() < 3:
        raise UserError(
            f"the loss was not finite from step {int(kept.sum()) + 1} on: use a smaller --low"
        )
    means = smoothed(found[kept], DECAY)
    end = int(np.argmax(np.append(means > WORSE_BY * np.minimum.accumulate(means), True)))
    end = end if means.min() > 0 else len(means)  # a loss below 0 has no multiples
    return Ramp(np.array(rates)[kept][:end], found[kept][:end], means[:end])


def worse(losses: list[float]) -> Callable[[], bool]:
    """Return a function that says whether the last losses are far above the least one."""

    def stop() -> bool:
        return len(losses) > 10 and min(losses) > 0 and min(losses[-5:]) > 10 * min(losses)

    return stop


def rising(optimizer: Optimizer, total_steps: int, *, low: float, high: float) -> LambdaLR:
    """Return a schedule that raises the first group's lr from `low` to `high`."""
    base = learning_rate(optimizer)
    if not base:
        raise UserError(
            f"{type(optimizer).__name__} has no learning rate, so there is none to find"
        )
    ratio = high / low

    def factor(step: int) -> float:
        return low / base * ratio ** (step / max(total_steps - 1, 1))

    return LambdaLR(optimizer, factor)

"""Pruning by successive halving, at the budget of unpruned trials.

Karnin et al. 2013; Jamieson & Talwalkar 2016. Each rung trains its settings anew, for three times
as long as the rung before, so that a schedule always comes to its end. All rungs together cost as
many epochs as the study's trials would without pruning, shared equally between the rungs.
"""

from collections.abc import Sequence
from typing import NamedTuple

from optbench.common.errors import UserError

FACTOR = 3  # a rung trains so many times as long as the rung before
MAX_RUNGS = 3


class Rung(NamedTuple):
    """A rung: how long each of how many trials is trained."""

    length: int  # epochs, or steps in a problem whose budget is in steps
    trials: int


def rungs(trials: int, length: int) -> list[Rung]:
    """Return the rungs, the shortest first.

    length: the epochs (or steps) of the problem's runs. Raises `UserError` where pruning would
    leave nothing to choose from.
    """
    lengths = [length]
    while len(lengths) < MAX_RUNGS and lengths[0] >= FACTOR:
        lengths.insert(0, lengths[0] // FACTOR)
    if len(lengths) == 1:
        raise UserError(
            f"tuning.pruning=halving leaves nothing to prune in runs of {length}: at least "
            f"{FACTOR} epochs (or steps) are needed. Leave it out: tuning.pruning=null"
        )
    found = [Rung(each, trials * length // len(lengths) // each) for each in lengths]
    if found[-1].trials < 2:
        raise UserError(
            f"tuning.pruning=halving leaves nothing to choose from: of {trials} trials "
            f"{found[-1].trials} would be trained to the end. Set tuning.trials="
            f"{2 * len(lengths)} or more, or leave it out: tuning.pruning=null"
        )
    return found


def survivors(scores: Sequence[float], number: int) -> list[int]:
    """Return the indices of the trials that enter the next rung, in order.

    The first trial, the default setting, always does: tuning must not lose to it.
    """
    best = sorted(range(1, len(scores)), key=lambda index: (scores[index], index))
    return sorted([0, *best[: number - 1]])

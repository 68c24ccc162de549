"""Learning-rate schedules: factors that multiply the lr of every parameter group.

The factor of step k (from 0) is a closed form of k and the length of the run. Lengths are fractions
of the run, so that they fit any budget. `final` is the factor right after the last step, as in
torch's CosineAnnealingLR: no step is wasted on a lr of 0, which L-BFGS's line search cannot take.
Only lr changes, never momentum or betas. Rprop reads lr once, at its first step.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from math import cos, pi, sqrt
from numbers import Real

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from optbench.common.errors import UserError, call_of, message_of
from optbench.model_calls import inner
from optbench.torch_internals import functions_of_schedule


def build(
    schedule: Callable[..., LRScheduler | None] | None, optimizer: Optimizer, total_steps: int
) -> LRScheduler | None:
    """Call `schedule`, such as `partial(cosine, final=0.1)`; None is a constant lr.

    The call is `schedule(optimizer, total_steps)`. A class of torch, or a function without a
    parameter for the number of steps, is called as `schedule(optimizer)`. Raises `UserError` if
    `schedule` refuses its arguments, or returns something else.
    """
    if schedule is None:
        return None
    try:
        scheduler = schedule(optimizer, **_total(schedule, total_steps))
    except KeyError as error:
        raise UserError(
            f"the schedule {call_of(schedule)} cannot be made: the optimizer's groups have no "
            f"{error}. Leave out the schedule: schedule=constant"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a schedule of any package may raise anything
        text = f"the schedule {call_of(schedule)} cannot be made: {message_of(error)}"
        if missing := re.search(r"missing \d+ required positional arguments?: '(\w+)'", text):
            text += f". +schedule.{missing[1]}=VALUE gives it"
        raise UserError(text) from error
    if scheduler is not None and not isinstance(scheduler, LRScheduler):
        raise UserError(
            f"the schedule's _target_ gave a {type(scheduler).__name__}; it has to give one of "
            f"torch.optim.lr_scheduler from an optimizer and the number of steps, or None"
        )
    return scheduler


def _total(schedule: Callable[..., object], total_steps: int) -> dict[str, int]:
    """Return the number of steps, by the name of the schedule's parameter for it."""
    try:  # the signature of a partial call lacks its positional arguments
        own = list(inspect.signature(schedule).parameters.values())
    except (TypeError, ValueError):  # a builtin has no signature
        return {}
    given = schedule.keywords if isinstance(schedule, partial) else {}
    names = [p.name for p in own if p.name not in given]
    if "total_steps" in names:
        return {"total_steps": total_steps}
    if isinstance(inner(schedule), type) or len(own) < 2:
        return {}
    second = own[1]
    free = second.default is second.empty and second.kind is second.POSITIONAL_OR_KEYWORD
    return {second.name: total_steps} if free and second.name not in given else {}


def wants_metric(scheduler: LRScheduler) -> bool:
    """Return whether the scheduler steps after evaluations, with the validation loss."""
    return isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)


def is_known(scheduler: LRScheduler) -> bool:
    """Return whether the scheduler's class is torch's, which draws no random numbers."""
    return type(scheduler).__module__ == lr_scheduler.__name__


# torch's classes; a user's class may change any setting
LR_ONLY_SCHEDULES = (
    LambdaLR, lr_scheduler.MultiplicativeLR, lr_scheduler.StepLR, lr_scheduler.MultiStepLR,
    lr_scheduler.ConstantLR, lr_scheduler.LinearLR, lr_scheduler.ExponentialLR,
    lr_scheduler.PolynomialLR, lr_scheduler.CosineAnnealingLR,
    lr_scheduler.CosineAnnealingWarmRestarts,
)  # fmt: skip


def changes_only_lr(scheduler: LRScheduler | None) -> bool:
    """Return whether the scheduler is known to change no setting but lr."""
    if scheduler is None:
        return True
    own = vars(scheduler)
    # a user's function may change any setting
    functions = functions_of_schedule(scheduler)
    if "step" in own or any(getattr(f, "__module__", "") != __name__ for f in functions):
        return False
    if type(scheduler) in (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR):
        return not getattr(scheduler, "cycle_momentum", True)
    return type(scheduler) in LR_ONLY_SCHEDULES


def authors(optimizer: Optimizer, total_steps: int) -> None:
    """Stand for the schedule that an optimizer's YAML names, until it is put in place."""
    raise UserError(
        "schedule=authors is a word for configurations: from Python, give the schedule itself"
    )


def constant(optimizer: Optimizer, total_steps: int) -> None:
    """Return None: with a constant lr, the loop has nothing to call."""


def step(
    optimizer: Optimizer,
    total_steps: int,
    *,
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
) -> LRScheduler:
    """Multiply lr by `gamma` at each of `milestones`, fractions of the run."""
    if not isinstance(milestones, list | tuple):
        raise UserError(
            f"schedule.milestones must be a list of fractions of the run, such as [0.5, 0.75], "
            f"not {milestones!r}"
        )
    for milestone in milestones:
        _check_fraction("milestones: each", milestone)
    _check("gamma", gamma, positive=True)
    # 1e-9 for rounding: 0.1 * 30 is a little more than 3
    starts = [milestone * total_steps - 1e-9 for milestone in milestones]
    return _schedule(optimizer, total_steps, lambda k: gamma ** sum(k >= start for start in starts))


def exponential(optimizer: Optimizer, total_steps: int, *, final: float = 0.01) -> LRScheduler:
    """Decay lr as final^(k / total_steps), like torch's ExponentialLR."""
    _check("final", final, positive=True)
    return _schedule(optimizer, total_steps, lambda k: final ** (k / total_steps))


def cosine(optimizer: Optimizer, total_steps: int, *, final: float = 0.0) -> LRScheduler:
    """Decay lr to `final` along half a cosine (Loshchilov & Hutter 2017)."""
    return warmup_cosine(optimizer, total_steps, warmup=0, final=final)


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05, final: float = 0.0
) -> LRScheduler:
    """Warm up linearly over a fraction `warmup` of the run, then decay as `cosine`."""
    _check("final", final)
    n = _steps("warmup", warmup, total_steps)

    def factor(k: int) -> float:
        if k < n:
            return (k + 1) / (n + 1)
        return _between(1, final, (k - n) / max(total_steps - n, 1))

    return _schedule(optimizer, total_steps, factor)


def warmup_constant(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05) -> LRScheduler:
    """Warm up linearly over a fraction `warmup` of the run, then keep lr constant."""
    return trapezoid(optimizer, total_steps, warmup=warmup, cooldown=0)


def trapezoid(
    optimizer: Optimizer,
    total_steps: int,
    *,
    warmup: float = 0.05,
    cooldown: float = 0.2,
    final: float = 0.0,
) -> LRScheduler:
    """Warm up linearly, keep lr constant, then decay linearly to `final`.

    The decay takes the last `cooldown` of the run. Also called warmup-stable-decay. warmup=0 with
    cooldown=1 is linear decay.
    """
    _check("final", final)
    n = _steps("warmup", warmup, total_steps)
    last = _steps("cooldown", cooldown, total_steps)
    if warmup + cooldown > 1 + 1e-9:
        raise UserError(
            f"schedule.warmup and schedule.cooldown together must be at most 1, the whole run, "
            f"not {warmup} + {cooldown}"
        )

    def factor(k: int) -> float:
        rise = min(1, (k + 1) / (n + 1))
        left = min(1, (total_steps - k) / last) if last else 1
        return min(rise, final + (1 - final) * left)

    return _schedule(optimizer, total_steps, factor)


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    *,
    warmup: float = 0.3,
    start: float = 0.04,
    final: float = 4e-6,
) -> LRScheduler:
    """Raise lr from `start` to 1 and lower it to `final`, both along half a cosine.

    This is the lr of torch's OneCycleLR (Smith & Topin 2018) with the configured lr as max_lr.
    OneCycleLR itself divides by zero on the shortest runs and would overwrite momentum and betas.
    As there, `final` is the factor of the last step itself.
    """
    _check("start", start, positive=True)
    _check("final", final, positive=True)
    _check_fraction("warmup", warmup)
    peak, last = max(warmup * total_steps - 1, 0), total_steps - 1

    def factor(k: int) -> float:
        if k < peak:
            return _between(start, 1, k / peak)
        return _between(1, final, (k - peak) / max(last - peak, 1)) if last > peak else 1

    return _schedule(optimizer, total_steps, factor)


def inverse_sqrt(optimizer: Optimizer, total_steps: int, *, constant_steps: int = 1) -> LRScheduler:
    """Divide lr by the square root of the step t, counted from 1.

    The factor is sqrt(n / max(t, n)) with n = `constant_steps`: 1 for n steps, then falling
    (Kingma & Ba 2015, section 4, with n = 1). Unlike other lengths, n is no fraction of the run,
    since the factor does not depend on the budget.
    """
    n = constant_steps
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise UserError(
            f"schedule.constant_steps must be a whole number of steps of at least 1, not {n!r}"
        )
    return _schedule(optimizer, total_steps, lambda k: sqrt(n / max(k + 1, n)))


def _schedule(
    optimizer: Optimizer, total_steps: int, factor: Callable[[int], float]
) -> LRScheduler:
    # min, because the loop calls scheduler.step() once more after the last step
    return LambdaLR(optimizer, lambda k: factor(min(k, total_steps)))


def _between(a: float, b: float, t: float) -> float:
    """Return the value at t on half a cosine from `a` at 0 to `b` at 1 and beyond."""
    return b + (a - b) * (1 + cos(pi * min(t, 1))) / 2


def _steps(name: str, fraction: float, total_steps: int) -> int:
    _check_fraction(name, fraction)
    return round(fraction * total_steps)


def _check_fraction(name: str, value: float) -> None:
    if not _is_number(value) or not 0 <= value <= 1:
        raise UserError(
            f"schedule.{name} must be a fraction of the run between 0 and 1, not {value!r}: 0.1 is "
            f"the tenth part of all steps, whatever the budget"
        )


def _check(name: str, value: float, *, positive: bool = False) -> None:
    if not _is_number(value) or not 0 <= value <= 1 or (positive and value == 0):
        above = " and above 0" if positive else ""
        raise UserError(
            f"schedule.{name} must be a factor of the lr between 0 and 1{above}, not {value!r}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)

"""The checks of an optimizer: a row each, which passes, fails, or does not apply."""

import io
from collections.abc import Callable
from math import isfinite
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from optbench.checking.subjects import (
    MOST_STEPS,
    Function,
    Network,
    Quadratic,
    Rosenbrock,
    Subject,
    Trial,
    Two,
    furthest,
    moved,
)
from optbench.common.text import number
from optbench.optimizers.factories import call
from optbench.training import object_state
from optbench.training.step_cost import clock, tensors

STAYS = 25  # steps that a low loss must last
FIRST_STEPS = 5  # of which one must move the weights
NUDGE = 1e-6  # of finite differences
SLOPE_TOLERANCE = 1e-3  # of finite differences against products with the gradient
ORDER_TOLERANCE = 1e-7  # in float64, for sums in another order
LOCK_STEPS, LOCK_TOLERANCE = 60, 1e-9  # in float64, where a reference may order sums otherwise
SMALLER = 0.1  # the factor of a rate, which must make a step smaller
SMALLER_STEP = 0.8  # a smaller step is below this share of the step at the whole rate
TIMED_STEPS = 40


class Outcome(NamedTuple):
    """What a check found. passed: None where it does not apply."""

    passed: bool | None
    words: str


Check = Callable[[Subject], Outcome]


def descends(subject: Subject, function: type[Function]) -> Outcome:
    """The loss falls below 0.4 of the first, and stays there, within 500 steps."""
    trial = Trial(function(), subject.for_functions())
    losses: list[float] = []
    low = 0
    for loss in trial.steps(MOST_STEPS):
        losses.append(loss)
        low = low + 1 if loss < 0.4 * losses[0] else 0
        if low == STAYS or not isfinite(loss):
            break
    end = trial.evaluated() if isfinite(losses[-1]) else losses[-1]
    good = low == STAYS and end < 0.5 * losses[0]
    at = "" if subject.lr is None else f" at lr={subject.lr:g}"
    hint = "" if good else "; `test: {lr: RATE}` in the YAML gives these functions a rate"
    return Outcome(good, f"from {losses[0]:.3g} to {end:.3g} in {len(losses)} steps{at}{hint}")


def quadratic(subject: Subject) -> Outcome:
    """Descend on a quadratic of condition 10."""
    return descends(subject, Quadratic)


def rosenbrock(subject: Subject) -> Outcome:
    """Descend on Rosenbrock's function."""
    return descends(subject, Rosenbrock)


def network(subject: Subject) -> Outcome:
    """Halve the loss of a small network within 500 steps."""
    trial = Trial(Network(), subject.for_networks())
    losses: list[float] = []
    for loss in trial.steps(MOST_STEPS):
        losses.append(loss)
        if loss < 0.5 * losses[0] or not isfinite(loss):
            break
    good = isfinite(losses[-1]) and losses[-1] < 0.5 * losses[0]
    return Outcome(good, f"from {losses[0]:.3g} to {losses[-1]:.3g} in {len(losses)} steps")


def gradient(subject: Subject) -> Outcome:
    """The first step goes down by the gradient it was given, as finite differences have it."""
    trial = Trial(Network(), subject.for_networks())
    before = trial.values()
    given: dict[str, torch.Tensor] = {}

    def see() -> None:
        named = trial.function.named_parameters()
        given.update({name: p.grad.detach().clone() for name, p in named if p.grad is not None})

    nothing = torch.zeros(1)
    for step in range(1, FIRST_STEPS + 1):  # noqa: B007  (read after the loop)
        trial.stepper.step(nothing, nothing, see)
        update = {name: value - before[name] for name, value in trial.values().items()}
        if any(bool(u.any()) for u in update.values()):
            break
    else:
        return Outcome(
            False, f"no weight moved in {FIRST_STEPS} steps: update in place, as in p.sub_(...)"
        )
    size = torch.stack([u.square().sum() for u in update.values()]).sum().sqrt()
    along = {name: u / size for name, u in update.items()}
    slope = float(torch.stack([(given[name] * u).sum() for name, u in along.items()]).sum())
    measured = (_at(before, along, NUDGE) - _at(before, along, -NUDGE)) / (2 * NUDGE)
    if abs(measured - slope) > SLOPE_TOLERANCE * max(abs(slope), 1e-6):
        return Outcome(
            False, f"the loss has the slope {measured:.3g}, its gradient says {slope:.3g}"
        )
    words = f"step {step}: slope {measured:.3g} along the update, by the gradient {slope:.3g}"
    return Outcome(slope < 0, words if slope < 0 else f"{words}: it goes up")


def _at(weights: dict[str, torch.Tensor], along: dict[str, torch.Tensor], distance: float) -> float:
    """Return the network's loss at some distance from weights."""
    function = Network()
    with torch.no_grad():
        for name, p in function.named_parameters():
            p.copy_(weights[name] + distance * along[name])
        return float(function())


def deterministic(subject: Subject) -> Outcome:
    """Two runs of one seed are equal to the last bit."""
    first, second = (Trial(Network(), subject.for_networks()) for _ in range(2))
    if (one := first.run(20)) != (two := second.run(20)):
        step = next(k for k, (a, b) in enumerate(zip(one, two, strict=True), start=1) if a != b)
        return Outcome(
            False,
            f"two runs of one seed part at step {step}: draw from the global generators, which the "
            f"seed sets, and keep nothing on the class",
        )
    return Outcome(True, "20 steps twice, equal to the last bit")


def checkpoint(subject: Subject) -> Outcome:
    """A run that goes on from a checkpoint is equal to the last bit."""
    whole = Trial(Network(), subject.for_networks())
    losses = whole.run(20)
    begun = Trial(Network(), subject.for_networks())
    begun.run(10)
    roots = {"model": begun.function, "optimizer": begun.optimizer}
    try:
        state = object_state.capture(roots, begun.parameters())
    except object_state.Unsaveable as error:
        return Outcome(False, f"no checkpoint can hold it: {error}")
    held = io.BytesIO()
    torch.save({"state": state, "draws": begun.draws.state_dict()}, held)
    held.seek(0)
    loaded = torch.load(held, weights_only=True)
    other = Trial(Network(), subject.for_networks())
    try:
        object_state.restore(
            {"model": other.function, "optimizer": other.optimizer}, other.parameters(),
            loaded["state"],
        )  # fmt: skip
    except ValueError as error:
        return Outcome(False, f"a new object does not take the state: {error}")
    other.draws.load_state_dict(loaded["draws"])
    rest = other.run(10)
    if rest != losses[10:]:
        return Outcome(False, "resumed after 10 steps, it goes on to other losses")
    return Outcome(True, "10 steps, a file, and 10 more: equal to 20, to the last bit")


def order(subject: Subject) -> Outcome:
    """The order of the parameters changes nothing but rounding."""
    plain = Trial(Network(), subject.for_networks())
    turned = Trial(Network(turned=True), subject.for_networks())
    state = plain.draws.state_dict()
    plain.run(15)
    turned.run(15)
    if not _same_draws(state, plain.draws.state_dict()):
        return Outcome(None, "it draws random numbers, which fall to other parameters")
    apart = furthest(plain.values(), turned.values())
    return Outcome(apart <= ORDER_TOLERANCE, f"15 steps in two orders differ by {apart:.1g}")


def _same_draws(a: dict[str, object], b: dict[str, object]) -> bool:
    first: Any = a["torch"]
    second: Any = b["torch"]
    rest = all(a[key] == b[key] for key in ("numpy", "python"))
    return rest and torch.equal(first, second)


def schedule(subject: Subject) -> Outcome:
    """A schedule that lowers the lr of the groups makes the next steps smaller."""
    sizes = []
    for factor in (1.0, SMALLER):
        trial = Trial(Two(), subject.for_functions())
        if not any(isinstance(g.get("lr"), float | int) for g in trial.optimizer.param_groups):
            return Outcome(None, "its groups have no lr, so that no schedule applies")
        trial.run(FIRST_STEPS)
        for group in trial.optimizer.param_groups:
            group["lr"] *= factor
        before = trial.values()
        trial.run(1)
        sizes.append(sum(moved(before, trial.values()).values()))
    if not sizes[0]:
        return Outcome(False, f"no parameter moved in step {FIRST_STEPS + 1}")
    share = sizes[1] / sizes[0]
    words = f"at {SMALLER:g} of the rate a step is {share:.2g} as large"
    return Outcome(share < SMALLER_STEP, words)


def groups(subject: Subject) -> Outcome:
    """A group with a smaller lr takes smaller steps, and the other group does not."""
    sizes = []
    for factor in (1.0, SMALLER):
        trial = Trial(Two(), subject.for_functions())
        opt, two = trial.optimizer, trial.parameters()
        lr = opt.param_groups[0].get("lr")
        if not isinstance(lr, float | int):
            return Outcome(None, "its groups have no lr")
        if len(opt.param_groups) > 1 or hasattr(opt, "parts"):
            return Outcome(None, "it makes groups of its own")
        given = [{"params": [two[0]]}, {"params": [two[1]], "lr": lr * factor}]
        with trial.draws:
            made = call(subject.for_functions(), given)
        trial = Trial(trial.function, subject.for_functions(), optimizer=made)
        before = trial.values()
        trial.run(FIRST_STEPS)
        sizes.append(moved(before, trial.values()))
    if not all(sizes[0].values()):
        return Outcome(False, f"a parameter never moved in {FIRST_STEPS} steps")
    first = sizes[1]["first"] / sizes[0]["first"]
    second = sizes[1]["second"] / sizes[0]["second"]
    words = f"at {SMALLER:g} of the rate a group moves {second:.2g} as far, the other {first:.2g}"
    return Outcome(second < SMALLER_STEP and first > SMALLER_STEP, words)


def parameters(subject: Subject) -> Outcome:
    """Every parameter moves, of any number of dimensions, and one without a gradient stays."""
    function = Network()
    function.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    trial = Trial(function, subject.for_networks())
    before = trial.values()
    trial.run(FIRST_STEPS)
    after = trial.values()
    far = moved(before, after)
    still = [name for name in far if name != "unused" and not far[name]]
    if still:
        return Outcome(False, f"never moved: {', '.join(still)}")
    if far["unused"]:
        return Outcome(False, "a parameter without a gradient moved")
    if wrong := [name for name, value in after.items() if value.dtype != torch.float64]:
        return Outcome(False, f"no longer in float64: {', '.join(wrong)}")
    return Outcome(
        True, f"{len(far) - 1} parameters of 0 to 4 dimensions move, one without gradient not"
    )


def cost(subject: Subject) -> Outcome:
    """The state of the optimizer does not grow."""
    trial = Trial(Network(), subject.for_networks())
    trial.run(FIRST_STEPS)
    early, times = held_bytes(trial), []
    for _ in range(TIMED_STEPS):
        begun = clock()
        trial.run(1)
        times.append(1e3 * (clock() - begun))
    milliseconds = median(times)  # other work on the machine does not move it
    late = held_bytes(trial)
    each = late / sum(p.numel() * p.element_size() for p in trial.parameters())
    spent = trial.stepper.spent.gradients / (FIRST_STEPS + TIMED_STEPS)
    words = (
        f"{number(milliseconds)} ms (loss, gradient and step), gradients: {spent:.3g} a step of "
        f"the small network; state: {each:.3g} number{'' if each == 1 else 's'} a parameter"
    )
    if late > 1.5 * early and late - early > 8 * TIMED_STEPS:
        return Outcome(
            False, f"the state grew from {early:,} to {late:,} bytes in {TIMED_STEPS} steps"
        )
    return Outcome(True, words)


def held_bytes(trial: Trial) -> int:
    """Return the bytes of all tensors in the optimizer's state and attributes."""
    places = [list(trial.optimizer.state.values()), list(vars(trial.optimizer).values())]
    sizes = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in tensors(places)
        if all(t is not p for p in trial.parameters())
    }
    return sum(sizes.values())


def reference(subject: Subject) -> Outcome:
    """The steps are those of a reference class, in float64."""
    if subject.reference is None:
        return Outcome(None, "no class was named: --reference CLASS")
    own, other = Trial(Network(), subject.for_networks()), Trial(Network(), subject.reference)
    for step in range(1, LOCK_STEPS + 1):
        own.run(1)
        other.run(1)
        apart = furthest(other.values(), own.values())
        if apart > LOCK_TOLERANCE:
            return Outcome(False, f"at step {step} the weights differ by {apart:.1g} of their size")
    return Outcome(True, f"{LOCK_STEPS} steps in float64 differ by at most {apart:.1g}")


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        quadratic, rosenbrock, network, gradient, deterministic, checkpoint, order, schedule,
        groups, parameters, cost, reference,
    )
}  # fmt: skip

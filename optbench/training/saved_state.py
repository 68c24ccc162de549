"""The state from which a training resumes bit for bit, as plain values."""

from functools import partial
from math import isfinite
from types import BuiltinFunctionType, FunctionType
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench.problem import Problem
from optbench.streams import Stream
from optbench.training import object_state
from optbench.training.batches import Batches
from optbench.training.object_state.global_state import GlobalState
from optbench.training.recipes.applied import AppliedRecipe
from optbench.training.spent import Spent
from optbench.training.stepping import Stepper
from optbench.training.steps import Engine, StepEngine

GLOBAL = "global state"
COUNTERS = ("step", "seconds", "total_seconds", "running_loss", "seen")


class Resumable(Protocol):
    """The attributes of a `Training` that are saved, and restored into another one."""

    problem: Problem
    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    parameters: list[nn.Parameter]
    stepper: Stepper
    applied: AppliedRecipe
    global_state: GlobalState
    batches: Batches
    draws: Stream
    noise: torch.Generator
    engine: Engine | None
    step: int


def state_dict(training: Resumable) -> dict[str, Any]:
    """Return the state; see `Training.state_dict`."""
    return {
        "objects": object_state.capture(objects(training), training.parameters),
        "gradients": training.stepper.kept_gradients(),
        "batches": training.batches.state_dict(
            within=training.step % training.problem.steps_per_epoch != 0
        ),
        "noise": training.noise.get_state(),
        "model_draws": training.draws.state_dict(),
        "optimizer_draws": training.stepper.draws.state_dict(),
        "recipe": training.applied.state_dict(),
        "spent": vars(training.stepper.spent),
        **{key: getattr(training, key) for key in COUNTERS},
    }


def load_state_dict(training: Resumable, state: dict[str, Any]) -> None:
    """Restore the state; see `Training.load_state_dict`."""
    for key in COUNTERS:
        value = state[key]
        real = isinstance(value, int if key in ("step", "seen") else float)
        if not real or not isfinite(value) or (value < 0 and key != "running_loss"):
            raise ValueError(f"the checkpoint has {value!r} as its {key}")
    if not 0 < state["step"] < training.problem.total_steps:
        raise ValueError(f"the checkpoint is of step {state['step']}, and the run has none such")
    with training.global_state:
        roots = objects(training)
        if GLOBAL in roots:
            roots[GLOBAL] = training.global_state.values()
        object_state.restore(roots, training.parameters, state["objects"])
        training.global_state.load(roots.get(GLOBAL, {}))
    training.stepper.keep_gradients(state["gradients"])
    training.batches.load_state_dict(state["batches"])
    training.noise.set_state(state["noise"])
    training.draws.load_state_dict(state["model_draws"])
    training.stepper.draws.load_state_dict(state["optimizer_draws"])
    training.applied.load_state_dict(state["recipe"])
    for key in COUNTERS:
        setattr(training, key, state[key])
    # checkpoints of earlier versions have no counts: each step counts once
    training.stepper.spent = Spent(
        **state.get("spent", Spent(state["step"], state["step"]).__dict__)
    )
    if isinstance(training.engine, StepEngine):
        training.engine.rebind()


def objects(training: Resumable) -> dict[str, Any]:
    """Return the objects that keep state between steps, by name."""
    found = {name: getattr(training, name) for name in ("model", "optimizer", "scheduler")}
    loss = getattr(training.problem.loss, "module", training.problem.loss)
    if not isinstance(loss, FunctionType | BuiltinFunctionType | partial):
        found["loss"] = loss
    if training.global_state:
        with training.global_state:
            found[GLOBAL] = training.global_state.changed() | training.global_state.filled()
    return found


def unsaveable(training: Resumable) -> str:
    """Return in words why a run cannot be resumed; "" where it can."""
    try:
        object_state.capture(objects(training), training.parameters)
    except object_state.Unsaveable as error:
        return str(error)
    return ""


def generators(training: Resumable) -> dict[str, str]:
    """Return the states, as texts, of generators inside model, optimizer and loss.

    The generator for dropout is left out, since the seed sets it.
    """
    try:
        found = object_state.generators(objects(training), training.parameters)
    except object_state.Unsaveable:
        return {}
    ours = repr([str(training.noise.device), training.noise.get_state()])
    return {path: state for path, state in found.items() if state != ours}

"""The choice of a run's engine; the one place that imports `engines`."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench import schedules
from optbench.common.errors import UserError, check_choice
from optbench.formats.keys import ENGINES
from optbench.formats.record import TORCH_COMPILE, keys_of, setting_of
from optbench.optimizers import build as made_by
from optbench.optimizers import with_budget
from optbench.problem import Problem, build_model
from optbench.streams import Stream
from optbench.training.object_state.global_state import kept
from optbench.training.recipes import Recipe
from optbench.training.setup import budget_of
from optbench.training.steps import EngineFactory

spec = find_spec("optbench.engines")
if spec is not None and spec.origin is not None:
    from optbench import engines as found
else:  # the folder was deleted, so every step is plain
    found = None  # type: ignore[assignment]

AUTO, PLAIN = "auto", "plain"
WHOLE_STEPS = "compiled_mlp"  # takes many steps in a call, and shows no optimizer between them
# the order in which `auto` asks
NAMES: tuple[str, ...] = () if found is None else found.NAMES


def asked(config: Mapping[str, Any]) -> str:
    """Return the engine that a configuration asks for by `engine` or `compile`."""
    if config.get("compile"):
        return TORCH_COMPILE
    if "engine" in config:  # older configurations have record_steps instead
        return str(config["engine"])
    return PLAIN if config.get("record_steps") is False else AUTO


def agreeing(config: Mapping[str, Any], made: str | None) -> dict[str, Any]:
    """Return a configuration whose engine agrees with the one that made the run.

    The key becomes "auto" where the configuration asks for another engine.
    """
    agrees = made is None or asked(config) in (AUTO, made)
    return {**config} if agrees else {**config, **keys_of(AUTO)}


def factory(name: str, *, required: bool = True) -> EngineFactory | None:
    """Return the maker of the named engine for a training; None for plain steps.

    required: raise `UserError` where a named engine does not serve; else steps are plain.
    """
    check_choice("engine", name, (*ENGINES, TORCH_COMPILE))
    if name == PLAIN or (found is None and (name == AUTO or not required)):
        return None
    if found is None:
        raise UserError(
            f"{setting_of(name)}: this copy of optbench has no engines (the folder "
            f"optbench/engines is missing): use engine=plain, or leave it out"
        )
    return partial(found.select, name, required=required)


def serving(
    names: tuple[str, ...],
    problem: Problem,
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    recipe: Recipe,
) -> tuple[str, ...]:
    """Return the engines among `names` that serve a training, in their order."""
    if found is None:
        return ()
    training = (problem, model, optimizer, scheduler, recipe)
    return tuple(name for name in names if not found.refusal(name, *training))


def common(
    problem: Problem,
    optimizers: Iterable[Callable[..., Optimizer]],
    schedule: Callable[[Optimizer, int], LRScheduler | None] | None,
    *,
    decay_biases_and_norms: bool,
    device: torch.device | str,
    seed: int,
    recipe: Recipe,
) -> str:
    """Return the first engine of NAMES that serves all optimizers, else "plain"."""
    names = NAMES if torch.device(device).type == "cpu" else ()
    given = list(optimizers)
    with kept(problem, given, schedule), Stream(seed, "rehearsal"):
        model = build_model(problem, seed)
        for build in given:
            factory = with_budget(build, budget_of(problem))
            optimizer = made_by(factory, model, decay_biases_and_norms=decay_biases_and_norms)
            scheduler = schedule and schedules.build(schedule, optimizer, problem.total_steps)
            names = serving(names, problem, model, optimizer, scheduler, recipe)
    return (*names, PLAIN)[0]

"""The rehearsal of a run, which finds missing packages, data and classes early."""

from collections.abc import Callable

from optbench import optimizers, schedules
from optbench.config.build import results_of
from optbench.datasets import prepare
from optbench.formats.keys import KIND_KEYS, LABELS, RunConfig, part_of, settled
from optbench.problem import build_model, identity
from optbench.runner import engine, planning
from optbench.streams import Stream
from optbench.training.object_state.global_state import kept
from optbench.training.setup import budget_of


def rehearse(config: RunConfig, load: Callable[[RunConfig], prepare.Dataset]) -> None:
    """Load and build all parts of a run, and train nothing.

    load: from a configuration to its dataset. Raises `UserError` for a part that is missing, and
    the errors of the user's own code.
    """
    build(planning.plan(config, results_of(config), load=load, find=lambda *_: None))


def build(planned: planning.Plan) -> None:
    """Build model, optimizer and schedule of a planned run on the CPU, and drop them.

    Raises `UserError` for parts that do not fit, and the errors of model and optimizer.
    """
    asked = planning.arguments(planned)
    problem = asked["problem"]
    code = problem, asked["optimizer"], asked["schedule"]
    with kept(*code), Stream(planned.config["seed"], "rehearsal"):
        model = build_model(problem, planned.config["seed"])
        decay = asked["decay_biases_and_norms"]
        factory = optimizers.with_budget(asked["optimizer"], budget_of(problem))
        optimizer = optimizers.build(factory, model, decay_biases_and_norms=decay)
        scheduler = schedules.build(asked["schedule"], optimizer, problem.total_steps)
        if asked["engine"] is not None and engine.asked(planned.config) != engine.AUTO:
            # raises if it does not serve
            asked["engine"](problem, model, optimizer, scheduler, asked["recipe"])


def kind_of(config: RunConfig) -> str:
    """Return a key that is equal for runs which differ in seeds and numbers only."""
    parts = part_of(config, KIND_KEYS)
    parts |= {"logger": config.get("logger"), "engine": engine.asked(config)}
    numbers = {k: v for k, v in settled(config["optimizer"]).items() if k not in LABELS}
    numbers = {k: bool(v) if isinstance(v, int | float) else v for k, v in numbers.items()}
    return identity(parts | {"optimizer": numbers})

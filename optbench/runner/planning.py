"""The plan of a run before training: its identity, record, parts and cost."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import torch

from optbench.config import validate
from optbench.config.build import (
    build,
    build_problem,
    describe_problem,
    load_dataset,
    loggers,
    results_of,
)  # fmt: skip
from optbench.datasets import prepare
from optbench.formats.keys import (
    GROUPS,
    UNRECORDED_KEYS,
    Role,
    RunConfig,
    identity_part,
    part_of,
    settled,
)
from optbench.formats.older_code import sourceless
from optbench.formats.record import PlannedRecord
from optbench.formats.run import COUNTED
from optbench.problem import identity
from optbench.runner import engine
from optbench.runner.notices import switch_compilation, tell
from optbench.runs import locks, own_code
from optbench.runs.finished import find_finished
from optbench.training import device, step_cost
from optbench.training.recipes import recipe_of


@dataclass(frozen=True)
class Plan:
    """A run that is not yet trained, with a checked configuration and loaded data."""

    config: RunConfig
    group: Path  # the folder that the run's folder is made in
    device: torch.device
    dataset: prepare.Dataset
    record: PlannedRecord  # the beginning of run.json
    done: Path | None  # the folder of a finished run of the same identity
    released: int = 0  # `locks.release_log_position` before the search for `done`
    engine: str = engine.AUTO  # the engine's name, "plain", or "auto": the run chooses


def plan(
    config: RunConfig,
    group: Path,
    *,
    load: Callable[[RunConfig], prepare.Dataset] | None = None,
    find: Callable[[Path, str, Path], Path | None] = find_finished,
    released: int | None = None,
    chosen: str | None = None,
) -> Plan:
    """Check a configuration, load its data, and return the plan of the run.

    load, find: replace `load_dataset` and `find_finished`, for many plans together.
    released: `locks.release_log_position` at the time when `find` listed the finished runs.
    chosen: the engine of the run's sweep, if the configuration asks for "auto".
    Raises `UserError` for a mistake in the configuration or the data.
    """
    validate.check(config)
    loggers(config)  # a missing package is an error before any training
    # a search space decides which settings are tried, and belongs to none of them
    for side in ("optimizer", "schedule"):
        config = cast(RunConfig, {**config, side: settled(config[side])})
    if config["steps"] is not None:
        config = config | {"epochs": None}
    kept = {key: value for key, value in config.items() if key not in UNRECORDED_KEYS}
    where = device.choose(
        config["device"],
        num_threads=config["num_threads"],
        deterministic=config["deterministic"],
    )
    dataset = (load or load_dataset)(config)
    problem = describe_problem(config) | {"data_digest": dataset.digest}
    described = identity_part(config, Role.RUN)
    dataless = {key: value for key, value in problem.items() if key != "data_digest"}
    settings_hash = identity(described | {"problem": dataless, "device": where.type})
    # empty for classes of torch and optbench alone, so that earlier runs keep their identity
    code = own_code.code_of(part_of(config, GROUPS))
    shared = own_code.of_problem(config)
    run_id = identity(
        described
        | {"problem": problem, "device": where.type}
        | ({"code": code} if code else {})
        | ({"once": uuid4().hex} if sourceless(code) else {})
    )
    own_code.tell(code)
    tell(config)
    results = results_of(config)
    record: PlannedRecord = {
        "run_id": run_id,
        "problem_hash": identity(problem | ({"code": shared} if shared else {})),
        "settings_hash": settings_hash,  # of all but the data's bytes and the code
        "name": config["optimizer"]["name"],
        "seed": config["seed"],
        "config": kept,
        "problem": problem,
        "device": str(where),
        # not in the identity, since these two only change the rounding
        "num_threads": torch.get_num_threads(),
        "products": device.products(),
    }
    record["counted"] = list(COUNTED)
    if further := [name for name in dataset.task.metrics if name != "accuracy"]:
        record["metrics"] = further
    if code:
        record["code"] = code
        if folder := own_code.folder_of(code):
            record["code_folder"] = folder
    mark = locks.release_log_position(results) if released is None else released
    done = None if config["force"] else find(results, run_id, group)
    name = engine.asked(config)
    if name == engine.AUTO and chosen is not None:
        name = chosen
    if config["log"]["optimizer"] and name in (engine.AUTO, engine.WHOLE_STEPS):
        name = engine.PLAIN  # the optimizer is looked at after each step
    return Plan(config, group, where, dataset, record, done, mark, name)


def arguments(planned: Plan) -> dict[str, Any]:
    """Return the arguments of `optbench.training.loop.Training` for a run.

    Raises `UserError` where an argument cannot be made, or where this process has loaded other code
    than the process that planned the run.
    """
    config = planned.config
    switch_compilation(config)
    problem, recipe = build_problem(config, planned.dataset), recipe_of(config)
    watched = config["diagnostics"] == "layers"
    recipe.check(problem, planned.device, watched=watched)
    made = {
        "problem": problem,
        "optimizer": build("optimizer", config["optimizer"]),
        "seed": config["seed"],
        "schedule": build("schedule", config["schedule"]),
        "decay_biases_and_norms": config["decay_biases_and_norms"],
        "device": planned.device,
        "log_every": config["log"]["steps"],
        "eval_every": config["log"]["eval_epochs"],
        "eval_train_examples": config["log"]["eval_train_examples"],
        "eval_test": config["log"]["eval_test"],
        "layers": watched,
        "layers_every": config["log"]["layer_steps"],
        "engine": engine.factory(planned.engine, required=planned.engine == engine.asked(config)),
        "recipe": recipe,
        "sharpness": config["diagnostics"] == "sharpness",
        "log_optimizer": tuple(config["log"]["optimizer"] or ()),
    }
    code = own_code.code_of(part_of(config, GROUPS))
    own_code.check_unchanged(code, planned.record)
    return made


_costs: dict[str, dict[str, float] | None] = {}  # measured in this process


def cost(planned: Plan) -> dict[str, float] | None:
    """Return `step_cost.cost_of_run`, measured once for runs that differ in numbers."""
    kind = {k: v for k, v in planned.config["optimizer"].items() if k != "name"}
    kind = {k: bool(v) if isinstance(v, int | float) else v for k, v in kind.items()}
    key = identity(kind | {"problem": planned.record["problem_hash"]})
    if key not in _costs:
        given = ("problem", "optimizer", "seed", "decay_biases_and_norms", "device")
        asked = arguments(planned)  # not the run's, since a loss may count its calls
        _costs[key] = step_cost.cost_of_run(**{k: asked[k] for k in given})
    return _costs[key]

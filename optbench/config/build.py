"""Build a configuration's dataset, problem, optimizer and loggers."""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from torch import nn

from optbench.common.errors import UserError, own_line
from optbench.common.files import expanded
from optbench.common.names import did_you_mean, proposing
from optbench.config.trust import make
from optbench.datasets import prepare
from optbench.datasets.torchvision_shim import with_torchvision
from optbench.formats.groups import own_folders
from optbench.formats.keys import (
    DATA_SOURCES,
    FIRST_SOURCES,
    GROUPS,
    GROUPS_KEY,
    Node,
    Role,
    RunConfig,
    arguments_in,
    identity_part,
    part_of,
)
from optbench.initializers import initialize
from optbench.losses import as_function
from optbench.optimizers import Grouped
from optbench.problem import Problem
from optbench.runs.loggers import Loggers

EXTRAS = {  # the extra that installs a package of optimizers, by the package's Python name
    "pytorch_optimizer": "optimizers", "schedulefree": "optimizers", "prodigyopt": "optimizers",
}  # fmt: skip
FILLED_IN = {  # the groups whose YAML makes a partial call, and what optbench calls it with
    "optimizer": "the parameters", "model": "the inputs' shape and the number of classes",
    "loss": "outputs and targets", "schedule": "the optimizer and the number of steps",
}  # fmt: skip


def results_of(config: RunConfig) -> Path:
    """Return the folder that holds all results."""
    return Path(expanded(config["results_dir"]))


def load_dataset(config: RunConfig) -> prepare.Dataset:
    """Return a configuration's prepared dataset. The last dataset is kept in memory."""
    return _load_dataset(dataset_parts(config))


def dataset_parts(config: RunConfig) -> str:
    """Return the part of a configuration that determines its data, as JSON."""
    parts: dict[str, Any] = {key: config[key] for key in ("dataset", "preprocessing", "data")}
    if path := config["data"].get("path"):
        parts["file"] = _stamp(Path(expanded(str(path))))
    return json.dumps(parts, sort_keys=True)


def _stamp(path: Path) -> list[int] | None:
    """Return numbers that change when a file is written anew; None without a file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def prepare_dataset(parts: str) -> prepare.Dataset:
    """Load and prepare the dataset of `dataset_parts`."""
    config = json.loads(parts)
    source = {k: v for k, v in config["dataset"].items() if k != "preprocessing"}
    split = {k: v for k, v in config["data"].items() if k not in DATA_SOURCES}
    return prepare.prepare(build("dataset", source), preprocessing=config["preprocessing"], **split)


_load_dataset = lru_cache(maxsize=1)(prepare_dataset)


def describe_problem(config: RunConfig) -> dict[str, Any]:
    """Return the part of a configuration that defines the problem to minimise."""
    problem = identity_part(config, Role.PROBLEM)
    dataset = problem["dataset"]
    # a user's own function may mean something else by `path`, so the identity keeps its `path`
    own = str(dataset.get("_target_")).startswith("optbench.")
    sources = DATA_SOURCES if own else FIRST_SOURCES
    problem["dataset"] = {k: v for k, v in dataset.items() if k not in sources}
    if config["drop_last"]:
        # Older runs averaged this loss over whole batches only: the two kinds must not be mixed.
        problem["train_loss_over"] = "all examples"
    if _draws_masks(config["model"]):
        # older runs had other masks
        problem["dropout_masks"] = "16 bits"
    problem["dataset"].pop("preprocessing", None)  # the one that applies is at the top level
    return problem


def _draws_masks(model: Node) -> bool:
    """Return whether a model of optbench's has dropout."""
    shares = (value for key, value in model.items() if key.rpartition("_")[2] == "dropout")
    return model.get("_target_") == "optbench.deepobs.vae" or any(shares)


def build_problem(config: RunConfig, dataset: prepare.Dataset) -> Problem:
    """Build the problem of a configuration from plain Python objects."""
    settings = [field.name for field in fields(Problem) if field.name not in GROUPS]
    return Problem(
        dataset,
        model=build("model", config["model"]),
        loss=as_function(build("loss", config["loss"])),
        initializer=build_initializer(config["initializer"]),
        **part_of(config, settings),
    )


def build_initializer(init: Node) -> Callable[[nn.Module, torch.Generator], None]:
    """Return the configured initializer, or the function that `_target_` names."""
    if "_target_" in init:
        if str(init["_target_"]).startswith("torch.nn.init."):
            raise UserError(
                f"{init['_target_']} fills one tensor: give it as initializer.weight._target_, in "
                f"a YAML below `weight:`. An initializer's own _target_ fills a whole model"
            )
        return build("initializer", init | {"_partial_": True})
    weight = init.get("weight")
    if weight is not None:
        weight = build("initializer.weight", {"_partial_": True} | weight)
    return partial(initialize, weight=weight, bias=init.get("bias"))


def build(group: str, node: Node) -> Any:
    """Instantiate one group's `_target_` with its own keyword arguments."""
    if group == "optimizer" and isinstance(rules := node.get(GROUPS_KEY), Mapping):
        made = {name: _rule(rule) for name, rule in rules.items()}
        return Grouped(build(group, {k: v for k, v in node.items() if k != GROUPS_KEY}), made)
    if not node.get("_target_"):
        raise UserError(
            f"{group} needs a _target_: the YAML names a class or function, as in `_target_: "
            f"mymodule.MyClass`, at its left edge"
        )
    arguments = arguments_in(node)
    if group == "dataset":
        arguments.pop("_partial_", None)  # nothing is left that optbench would fill in
    try:
        made = with_torchvision(lambda: make(arguments))
        if group == "optimizer":  # `optimizers.build` checks its arguments itself
            return with_tuples(made)
        check_accepted(group, made)
        return made
    except (InstantiationException, TypeError, ValueError) as error:  # the latter two: wrong flags
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        text = str(error).replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception.", "")
        reason = f": {cause}" if cause and str(cause) not in text else ""
        words, target = " ".join(text.split()) + reason, str(node["_target_"])
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", words):
            words = f"{target} does not accept {unknown[1]}"
        elif lacking := re.search(r"missing \d+ required \S+ arguments?: ([^\")]+)", words):
            names = lacking[1].replace("'", "")
            if group in FILLED_IN and not node.get("_partial_"):
                words = (
                    f"{target} needs {names}: add `_partial_: true` to the YAML, so that optbench "
                    f"calls it with {FILLED_IN[group]}"
                )
            else:
                words = f"{target} needs {names}: add it to the YAML, or give +{group}.NAME=VALUE"
        elif "/" in target or target.endswith(".py"):
            words = f"_target_ is MODULE.NAME, as in net.Net of net.py, and no path: {target}"
        elif "Expected a callable target" in words and "module" in words:
            words = f"{target} is a module: name a class or function in it, as in {target}.NAME"
        elif "locating target" in words:
            words = without_target(target)
        elif cause is not None:
            words += own_line(cause)
        raise UserError(f"{group} cannot be made: {words}") from error


def with_tuples(made: Any) -> Any:
    """Return a partial call, with a tuple for a list where the default is a tuple."""
    if not isinstance(made, partial):
        return made
    with suppress(TypeError, ValueError):  # a callable without a signature
        for name, parameter in inspect.signature(made.func).parameters.items():
            given = made.keywords.get(name)
            if isinstance(parameter.default, tuple) and isinstance(given, list):
                made = partial(made.func, *made.args, **(made.keywords | {name: tuple(given)}))
    return made


def _rule(rule: Any) -> Any:
    """Return a rule of an optimizer's groups, with the class of its own optimizer."""
    own = rule.get("optimizer") if isinstance(rule, Mapping) else None
    if not isinstance(own, Mapping) or "_target_" not in own:
        return rule
    return {**rule, "optimizer": build("optimizer", {"_partial_": True} | dict(own))}


def without_target(target: str) -> str:
    """Return why Hydra does not find a `_target_`."""
    module, dot, name = target.rpartition(".")
    if (package := target.split(".")[0]) in EXTRAS and find_spec(package) is None:
        return (
            f"{target} is of a package that is not installed: pip install "
            f"'optbench[{EXTRAS[package]}]'"
        )
    if not dot:
        return f"_target_ is MODULE.NAME, as in torch.optim.SGD, and not {target}"
    try:
        made = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            return f"{module} cannot be imported: it imports {error.name}, which is not installed"
        places = [Path.cwd(), *own_folders]
        files = [path.stem for place in places for path in place.glob("*.py")]
        return (
            f"there is no module {error.name}{did_you_mean(error.name, files)}\nModules are found "
            f"in the current folder, in the folder of --config-dir, beside that folder, and where "
            f"packages are"
        )
    except Exception as error:  # the module's own code may raise anything
        return f"{module} cannot be imported: {type(error).__name__}: {error}"
    return f"{module} has no {name}{did_you_mean(name, dir(made))}"


def check_accepted(group: str, made: Any) -> None:
    """Raise `UserError` for an argument that the function of a partial call lacks."""
    if not isinstance(made, partial):
        return
    try:
        parameters = inspect.signature(made.func).parameters
    except (TypeError, ValueError):  # a builtin may have no signature
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    if unknown := [key for key in made.keywords if key not in parameters]:
        # The parameters without a default come first: the problem fills them in.
        own = [key for key, p in parameters.items() if p.default is not p.empty]
        raise UserError(
            f"{group} cannot be made: {made.func.__name__} does not accept {', '.join(unknown)}"
            f"{proposing(unknown[0], own)}It accepts: {', '.join(own) or 'nothing'}"
        )


def loggers(config: RunConfig) -> Loggers:
    """Build the configured loggers. Raise `UserError` if a package is missing."""
    nodes = {name: node for name, node in (config.get("logger") or {}).items() if node}
    return Loggers({name: build(f"logger.{name}", node) for name, node in nodes.items()})

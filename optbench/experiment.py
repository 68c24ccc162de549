"""From a resolved configuration to a finished run folder."""

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, NamedTuple

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from optbench import checkpoints, data, device, locks, runs, settings, step_cost
from optbench.cohort import train_together
from optbench.errors import UNWRITABLE, UserError
from optbench.initializers import initialize
from optbench.problem import Problem, identity
from optbench.progress import Show, progress, say
from optbench.run_files import read_record
from optbench.training import Training, Update

Config = dict[str, Any]
# What makes the problem, apart from the data's bytes; all optimizers compared share it.
PROBLEM_KEYS = (
    "model", "dataset", "preprocessing", "data", "loss", "initializer", "batch_size", "epochs",
    "steps", "shuffle", "precision",
)  # fmt: skip
# Keys that came later: a problem is described without them while they have these values, so that
# what was run before they existed keeps its identity.
LATER_KEYS: Config = {"drop_last": False, "weight_penalty": 0.0}
LATER_DATA_KEYS: Config = {"targets": "labels"}
LATER_LOG_KEYS: Config = {"layer_steps": None}
RUN_KEYS = ("optimizer", "schedule", "decay_biases_and_norms", "seed", "log", "deterministic")
NOT_ARGUMENTS = ("name", "search")  # the label, and what a tuned study tries
PLACES = ("root", "download")  # where a dataset lies is not what it is


class Outcome(NamedTuple):
    """How a run ended. known: it had been done before. signal: what interrupted it, or 0."""

    folder: Path
    status: str
    known: bool = False
    signal: int = 0


@dataclass(frozen=True)
class Plan:
    """A run that is not yet trained: its configuration has been checked and its data loaded."""

    config: Config
    group: Path  # the folder for the run's own
    device: torch.device
    dataset: data.Dataset
    record: Config  # the beginning of run.json
    done: Path | None  # the folder of a finished run of the same identity


def run(config: Config, group: Path, *, label: str = "") -> Outcome:
    """Train what `config` describes into a new folder of `group`, or find that it is done.

    Raises `UserError` for a mistake in the configuration or the data, before anything is written.
    """
    planned = plan(config, group)
    if planned.done is not None:
        return known(planned, planned.done)
    name = planned.record["name"]
    with interrupts() as received, progress(label or name, quiet=config["quiet"]) as show:
        outcome = complete(planned, show, lambda: bool(received))
    return outcome._replace(signal=received[0] if outcome.status == "interrupted" else 0)


def complete(
    planned: Plan,
    show: Show,
    stop: Callable[[], bool],
    opened: Callable[[Path], None] = lambda folder: None,
) -> Outcome:
    """Train a planned run into its folder, or the rest of one that was interrupted.

    Two processes with the same run take turns: the second finds it done. opened: told which
    folder, once there is one.
    """
    with _locked(planned, stop) as outcome:
        return outcome or _complete(planned, show, stop, opened)


@contextmanager
def _locked(planned: Plan, stop: Callable[[], bool]) -> Iterator[Outcome | None]:
    """Hold the run's lock; gives its outcome where another process finished it meanwhile."""
    results = Path(planned.config["results_dir"]).expanduser()
    run_id = planned.record["run_id"]

    def waiting(holder: str) -> None:
        say(f"{holder} has the run {run_id}; waiting for it", error=True)

    try:
        with locks.only_one(results, run_id, waiting=waiting, stop=stop) as waited:
            done = None
            if waited and not planned.config["force"]:
                done = runs.find_finished(results, run_id, planned.group)
            yield None if done is None else known(planned, done)
    except OSError as error:
        where = error.filename or results
        raise UserError(UNWRITABLE.format(where, error.strerror or error)) from error


def _complete(
    planned: Plan, show: Show, stop: Callable[[], bool], opened: Callable[[Path], None]
) -> Outcome:
    asked = arguments(planned)
    training = Training(**asked)
    folder = None
    if not planned.config["force"]:
        folder = _reopen(planned, training)
    updates = training.updates(stop)
    first = next(updates)  # a misfit leaves no folder
    new = folder is None
    folder = folder or new_folder(planned)
    opened(folder.path)
    if new:
        folder.record["cost"] = cost(planned, asked)  # in run.json at the end
    every = planned.config["checkpoint_seconds"]
    return Outcome(folder.path, _follow(folder, first, updates, show, training, every))


def _reopen(planned: Plan, training: Training) -> runs.RunFolder | None:
    """The folder of this run where it was begun and not finished, with `training` set to there."""

    def warn(text: str) -> None:
        say(f"warning: {text}", error=True)

    found = checkpoints.find(planned.group, planned.record["run_id"], warn)
    if found is None:
        return None
    path, state = found
    try:
        folder = runs.RunFolder.reopen(path, state["folder"])
    except (KeyError, TypeError, ValueError) as error:
        warn(f"{path} cannot be gone on with, so the run begins anew: {error}")
        return None
    training.load_state_dict(state["training"])
    say(f"going on from step {training.step} of {path}", error=True)
    return folder


def complete_together(
    planned: Sequence[Plan],
    shows: Sequence[Show],
    stop: Callable[[], bool],
    opened: Callable[[int, Path], None] = lambda place, folder: None,
) -> list[Outcome | Exception]:
    """Train runs of one `grouping.group_key` at once, each into a folder of its own.

    In place of an outcome stands what ended that run alone: its folder is marked as failed, if it
    has one. shows: of each run. A cohort that is interrupted leaves no checkpoints.
    """
    ended: dict[int, Outcome | Exception] = {}
    with ExitStack() as held:
        # in one order everywhere: two cohorts never wait for each other
        for i in sorted(range(len(planned)), key=lambda i: str(planned[i].record["run_id"])):
            if outcome := held.enter_context(_locked(planned[i], stop)):
                ended[i] = outcome
        left = [i for i in range(len(planned)) if i not in ended]
        ended |= _complete_together({i: planned[i] for i in left}, shows, stop, opened)
    return [ended[i] for i in range(len(planned))]


def _complete_together(
    planned: Mapping[int, Plan],
    shows: Sequence[Show],
    stop: Callable[[], bool],
    opened: Callable[[int, Path], None],
) -> dict[int, Outcome | Exception]:
    places = list(planned)
    asked = {i: arguments(planned[i]) for i in places}
    folders: dict[int, runs.RunFolder] = {}
    ended: dict[int, Outcome | Exception] = {}
    try:
        for number, update in train_together(list(asked.values()), stop=stop) if asked else ():
            i = places[number]
            if i in ended:
                continue  # its folder could not be written; the others go on
            try:
                if isinstance(update, Exception):
                    raise update
                if i not in folders:
                    planned[i].record["cohort"] = len(planned)
                    folders[i] = new_folder(planned[i])
                    opened(i, folders[i].path)
                    folders[i].record["cost"] = cost(planned[i], asked[i])
                _write(folders[i], update)
                shows[i](update)
                if update.status != "running":
                    folders[i].finish(update.status)
                    ended[i] = Outcome(folders[i].path, update.status)
            except Exception as error:
                ended[i] = error
                if i in folders:
                    _fail(folders[i], error)
    except BaseException as error:
        for i in folders.keys() - ended.keys():
            _fail(folders[i], error)
        raise
    return ended


def plan(
    config: Config,
    group: Path,
    *,
    load: Callable[[Config], data.Dataset] | None = None,
    find: Callable[[Path, str, Path], Path | None] = runs.find_finished,
) -> Plan:
    """Check a configuration, load its data, and say what the run is.

    load, find: in the place of `load_dataset` and `runs.find_finished`, for many plans at once.
    Raises `UserError` for a mistake in the configuration or the data.
    """
    settings.check(config)
    # the search space decides which settings are tried, and is no part of any of them
    settled = {key: value for key, value in config["optimizer"].items() if key != "search"}
    config = config | {"optimizer": settled}
    if config["steps"] is not None:
        config = config | {"epochs": None}
    kept = {key: value for key, value in config.items() if key not in ("figure", "claim")}
    where = device.choose(
        config["device"],
        num_threads=config["num_threads"],
        deterministic=config["deterministic"],
    )
    dataset = (load or load_dataset)(config)
    problem = describe_problem(config) | {"data_digest": dataset.digest}
    described = {key: config[key] for key in RUN_KEYS}
    described["log"] = {k: v for k, v in config["log"].items() if v != LATER_LOG_KEYS.get(k, ...)}
    if config["diagnostics"] is not None:
        described["diagnostics"] = config["diagnostics"]
    run_id = identity(described | {"problem": problem, "device": where.type})
    results = Path(config["results_dir"]).expanduser()
    record = {
        "run_id": run_id,
        "problem_hash": identity(problem),
        "name": config["optimizer"]["name"],
        "seed": config["seed"],
        "config": kept,
        "problem": problem,
        "device": str(where),
        # no part of the identity: it changes the rounding, and nothing that was asked for
        "num_threads": torch.get_num_threads(),
    }
    done = None if config["force"] else find(results, run_id, group)
    return Plan(config, group, where, dataset, record, done)


def known(planned: Plan, done: Path) -> Outcome:
    """The outcome of a run that was done before; each sweep's folder is complete by itself."""
    if done.parent.resolve() != planned.group.resolve():
        done = runs.copy_run(done, planned.group, planned.record["config"])
    return Outcome(done, read_record(done / "run.json")["status"], known=True)


def arguments(planned: Plan) -> dict[str, Any]:
    """The arguments of `optbench.training.train` for this run."""
    config = planned.config
    return {
        "problem": build_problem(config, planned.dataset),
        "optimizer": build("optimizer", config["optimizer"]),
        "seed": config["seed"],
        "schedule": build("schedule", config["schedule"]),
        "decay_biases_and_norms": config["decay_biases_and_norms"],
        "device": planned.device,
        "log_every": config["log"]["steps"],
        "eval_every": config["log"]["eval_epochs"],
        "eval_train_examples": config["log"]["eval_train_examples"],
        "eval_test": config["log"]["eval_test"],
        "layers": config["diagnostics"] == "layers",
        "layers_every": config["log"]["layer_steps"],
        "record": config["record_steps"],
    }


_costs: dict[str, dict[str, float] | None] = {}  # measured in this process


def cost(planned: Plan, asked: Mapping[str, Any]) -> dict[str, float] | None:
    """`step_cost.cost_of_run` for this run; once in a process where only numbers differ."""
    kind = {k: v for k, v in planned.config["optimizer"].items() if k != "name"}
    kind = {k: bool(v) if isinstance(v, int | float) else v for k, v in kind.items()}
    key = identity(kind | {"problem": planned.record["problem_hash"]})
    if key not in _costs:
        given = ("problem", "optimizer", "seed", "decay_biases_and_norms", "device")
        _costs[key] = step_cost.cost_of_run(**{k: asked[k] for k in given})
    return _costs[key]


def new_folder(planned: Plan) -> runs.RunFolder:
    """The folder that the run's updates are written to."""
    # any name may be a label, but not a folder's; one with a dot in front would be hidden
    plain = re.sub(r"^[.]|[^\w.+-]+", "_", planned.record["name"])[:60]
    name = f"{plain}-seed{planned.record['seed']}-{planned.record['run_id']}"
    return runs.RunFolder(planned.group, name, planned.record)


def load_dataset(config: Config) -> data.Dataset:
    """The prepared dataset of a configuration; the last one is kept for the next run of a sweep."""
    return _load_dataset(dataset_parts(config))


def dataset_parts(config: Config) -> str:
    """What decides which data a configuration has, as JSON."""
    parts = {key: config[key] for key in ("dataset", "preprocessing", "data")}
    return json.dumps(parts, sort_keys=True)


@lru_cache(maxsize=1)
def _load_dataset(parts: str) -> data.Dataset:
    return prepare_dataset(parts)


def prepare_dataset(parts: str) -> data.Dataset:
    """Load and prepare the dataset of `dataset_parts`."""
    config = json.loads(parts)
    source = {k: v for k, v in config["dataset"].items() if k != "preprocessing"}
    split = {k: v for k, v in config["data"].items() if k not in PLACES}
    return data.prepare(build("dataset", source), preprocessing=config["preprocessing"], **split)


def describe_problem(config: Config) -> Config:
    """The part of a configuration that says what is minimised, whatever the optimizer."""
    problem = {key: config[key] for key in PROBLEM_KEYS}
    for group in ("dataset", "data"):
        problem[group] = {k: v for k, v in problem[group].items() if k not in PLACES}
    problem["data"] = {k: v for k, v in problem["data"].items() if v != LATER_DATA_KEYS.get(k, ...)}
    problem |= {k: config[k] for k, default in LATER_KEYS.items() if config[k] != default}
    problem["dataset"].pop("preprocessing", None)  # the one in force stands at the top level
    return problem


def build_problem(config: Config, dataset: data.Dataset) -> Problem:
    """The problem of a configuration, as plain Python objects."""
    init = config["initializer"]
    weight = init.get("weight")
    return Problem(
        dataset,
        model=build("model", config["model"]),
        loss=build("loss", config["loss"]),
        initializer=partial(
            initialize,
            weight=None if weight is None else build("initializer.weight", weight),
            bias=init.get("bias"),
        ),
        **{k: config[k] for k in ("batch_size", "epochs", "steps", "shuffle", "precision")},
        **{k: config[k] for k in LATER_KEYS},
    )


def build(group: str, node: Config) -> Any:
    """Instantiate one group's `_target_` with its own keyword arguments."""
    arguments = {key: value for key, value in node.items() if key not in NOT_ARGUMENTS}
    try:
        return instantiate(arguments, _convert_="all")
    except (InstantiationException, TypeError, ValueError) as error:  # the latter of its flags
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        text = str(error).replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception.", "")
        reason = f": {cause}" if cause and str(cause) not in text else ""
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", text + reason):
            raise UserError(
                f"{group} cannot be made: {node['_target_']} does not accept {unknown[1]}"
            ) from error
        raise UserError(f"{group} cannot be made: {' '.join(text.split())}{reason}") from error


def _follow(
    folder: runs.RunFolder,
    first: Update,
    rest: Iterator[Update],
    show: Show,
    training: Training,
    every: float | None,
) -> str:
    """Write and show the updates up to the last; the run is marked failed if one cannot be had.

    every: seconds between two checkpoints; None: only when the run is interrupted.
    """
    saved = monotonic()
    try:
        update = first
        while True:
            _write(folder, update)
            show(update)
            due = every is not None and monotonic() - saved >= every
            if update.status == "interrupted" or (update.status == "running" and due):
                state = {"training": training.state_dict(), "folder": folder.state_dict()}
                checkpoints.save(folder.path, state)
                saved = monotonic()
            if update.status != "running":
                break
            update = next(rest)
        folder.finish(update.status)
    except BaseException as error:
        _fail(folder, error)
        raise
    if update.status != "interrupted":
        checkpoints.remove(folder.path)
    return update.status


def _fail(folder: runs.RunFolder, error: BaseException) -> None:
    with suppress(OSError):  # the disk may be what failed
        folder.finish("failed", f"{type(error).__name__}: {error}")


def _write(folder: runs.RunFolder, update: Update) -> None:
    try:
        folder.write(update)
    except OSError as error:
        raise UserError(f"cannot write {folder.path}: {error.strerror or error}") from error


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGUSR1 instead of dying, so that a run ends after a whole step.

    A second one has its usual effect at once.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGUSR1"):
        numbers.append(signal.SIGUSR1)  # what Slurm can send before it ends a job
    for number in numbers:
        before[number] = signal.signal(number, handle)
    try:
        yield received
    finally:
        restore()

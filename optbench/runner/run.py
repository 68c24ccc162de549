"""From a resolved configuration to a finished run folder."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple
from uuid import uuid4

import torch

from optbench.common.console import say
from optbench.common.errors import UNWRITABLE, CodeError, UserError, unwritable
from optbench.config import validate
from optbench.config.build import (
    Config,
    build,
    build_problem,
    describe_problem,
    load_dataset,
    loggers,
    results_of,
)  # fmt: skip
from optbench.datasets import prepare
from optbench.formats.keys import GROUPS, UNRECORDED_KEYS, Role, identity_part
from optbench.formats.older_code import sourceless
from optbench.formats.run import read_record
from optbench.problem import identity
from optbench.runner import engine
from optbench.runner.interrupts import interrupts
from optbench.runner.progress import Show, progress
from optbench.runs import checkpoints, locks, own_code
from optbench.runs import folder as runs
from optbench.training import device, object_state, saved_state, step_cost
from optbench.training.loop import Training
from optbench.training.steps import Update

UNSAVEABLE = (
    "no checkpoint can be written, since {}: if the run is interrupted, it restarts from the "
    "beginning"
)


class Outcome(NamedTuple):
    """How a run ended. known: it had been done before. signal: what interrupted it, or 0.

    folder: the run's; the one for it where it was interrupted while another process had it.
    """

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
    dataset: prepare.Dataset
    record: Config  # the beginning of run.json
    done: Path | None  # the folder of a finished run of the same identity
    released: int = 0  # `locks.released` before that was looked for
    engine: str = engine.AUTO  # that takes its steps, or "plain"; "auto": the run chooses itself


def run(config: Config, group: Path, *, label: str = "", chosen: str | None = None) -> Outcome:
    """Train what `config` describes into a new folder of `group`, or find that it is done.

    chosen: the engine of the run's sweep; see `plan`.
    Raises `UserError` for a mistake in the configuration or the data, before anything is written.
    """
    planned = plan(config, group, chosen=chosen)
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
    with locked(planned, stop) as outcome:
        return outcome or _complete(planned, show, stop, opened)


@contextmanager
def locked(planned: Plan, stop: Callable[[], bool]) -> Iterator[Outcome | None]:
    """Hold the run's lock; gives its outcome where another process finished it meanwhile, or where
    the wait for that process was interrupted."""
    results = results_of(planned.config)
    run_id = planned.record["run_id"]

    def waiting(holder: str) -> None:
        say(f"{holder} has the run {run_id}; waiting for it", error=True)

    with ExitStack() as held:
        try:
            lock = locks.only_one(
                results, run_id, since=planned.released, waiting=waiting, stop=stop
            )
            others = held.enter_context(lock)
        except locks.Stopped:
            yield Outcome(planned.group, "interrupted")
            return
        except OSError as error:
            where = error.filename or results
            raise UserError(UNWRITABLE.format(where, error.strerror or error)) from error
        done = None
        if others and not planned.config["force"]:
            done = runs.find_finished(results, run_id, planned.group)
        yield None if done is None else known(planned, done)


def _complete(
    planned: Plan, show: Show, stop: Callable[[], bool], opened: Callable[[Path], None]
) -> Outcome:
    asked = arguments(planned)
    training = Training(**asked)
    with ExitStack() as held:
        if planned.config["num_threads"] is None and planned.device.type == "cpu":
            threads = device.enough_threads(training.model, asked["problem"].batch_examples)
            planned.record["num_threads"] = held.enter_context(threads)
        # no part of the identity either
        planned.record["engine"] = training.engine.name if training.engine else engine.PLAIN
        folder = None
        if found := unfinished(planned):
            folder, state = found
            try:
                training.load_state_dict(state)
            except Exception as error:  # of many kinds: it may hold anything
                fail(folder, error)
                say(f"warning: {folder.path}: the run begins anew, for {error}", error=True)
                folder, training = None, Training(**asked)
        every = planned.config["checkpoint_seconds"]
        why = saved_state.unsaveable(training)
        warn_of_unseeded(training, asked)
        updates = training.updates(stop)
        first = next(updates)  # a misfit leaves no folder
        new = folder is None
        folder = folder or new_folder(planned)
        opened(folder.path)
        if why:
            _told.add(folder.path)
            say(f"{folder.path}: {UNSAVEABLE.format(why)}", error=True)
        if new:
            folder.record["cost"] = cost(planned)  # in run.json at the end
        return Outcome(folder.path, _follow(folder, first, updates, show, training, every))


def unfinished(planned: Plan) -> tuple[runs.RunFolder, Config] | None:
    """The folder of this run where it was begun and not finished, and its `Training.state_dict`.

    Raises `UserError` where the data or settings are no longer those that it was begun with.
    """

    def warn(text: str) -> None:
        say(f"warning: {text}", error=True)

    if planned.config["force"]:
        return None
    found = checkpoints.find(planned.group, planned.record, warn)
    if found is None:
        return None
    path, state = found
    try:
        folder = runs.RunFolder.reopen(path, state["folder"])
        step = state["training"]["step"]
        every = planned.config["log"]["steps"]
        if state["folder"]["rows"]["steps"] != step // every + (every > 1):  # one is of step 1
            raise ValueError("its step and its rows do not belong together")
    except (KeyError, TypeError, ValueError) as error:
        warn(f"{path} cannot be gone on with, so the run begins anew: {error}")
        return None
    except OSError as error:
        raise unwritable(path, error) from error
    before, now = state.get("num_threads"), planned.record["num_threads"]
    if before != now:
        warn(f"{path} goes on with {now} threads after {before}: equal within rounding only")
    before, now = state.get("products"), planned.record["products"]
    if before not in (None, now):
        warn(f"{path} goes on with products by {now} after {before}: equal within rounding only")
    before, now = state.get("engine"), planned.record["engine"]
    if before not in (None, now):
        warn(f"{path} goes on with engine={now} after {before}: equal within rounding only")
    folder.follow(loggers(planned.config), results_of(planned.config))
    say(f"going on from step {step} of {path}", error=True)
    return folder, state["training"]


def plan(
    config: Config,
    group: Path,
    *,
    load: Callable[[Config], prepare.Dataset] | None = None,
    find: Callable[[Path, str, Path], Path | None] = runs.find_finished,
    released: int | None = None,
    chosen: str | None = None,
) -> Plan:
    """Check a configuration, load its data, and say what the run is.

    load, find: in the place of `load_dataset` and `runs.find_finished`, for many plans at once.
    released: `locks.released` of the time from which `find` knows what is done.
    chosen: the engine of the run's sweep, where the configuration leaves the choice open.
    Raises `UserError` for a mistake in the configuration or the data.
    """
    validate.check(config)
    loggers(config)  # what is missing is said before anything is trained
    # the search space decides which settings are tried, and is no part of any of them
    settled = {key: value for key, value in config["optimizer"].items() if key != "search"}
    config = config | {"optimizer": settled}
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
    # runs of torch's and optbench's classes alone are described without it, as they ever were
    code = own_code.code_of({group: config[group] for group in GROUPS})
    shared = own_code.of_problem(config)
    run_id = identity(
        described
        | {"problem": problem, "device": where.type}
        | ({"code": code} if code else {})
        | ({"once": uuid4().hex} if sourceless(code) else {})
    )
    own_code.tell(code)
    results = results_of(config)
    record = {
        "run_id": run_id,
        "problem_hash": identity(problem | ({"code": shared} if shared else {})),
        "settings_hash": settings_hash,  # of all but the data's bytes and the code
        "name": config["optimizer"]["name"],
        "seed": config["seed"],
        "config": kept,
        "problem": problem,
        "device": str(where),
        # no part of the identity: it changes the rounding, and nothing that was asked for
        "num_threads": torch.get_num_threads(),
        "products": device.products(),  # likewise
    }
    if code:
        record["code"] = code
    mark = locks.released(results) if released is None else released
    done = None if config["force"] else find(results, run_id, group)
    name = engine.asked(config)
    if name == engine.AUTO and chosen is not None:
        name = chosen
    return Plan(config, group, where, dataset, record, done, mark, name)


def known(planned: Plan, done: Path) -> Outcome:
    """The outcome of a run that was done before; each sweep's folder is complete by itself."""
    with suppress(OSError):
        checkpoints.remove(done)  # of a process that was killed just after the end
    if done.parent.resolve() != planned.group.resolve():
        done = runs.copy_run(done, planned.group, planned.record["config"])
    elif "code" in planned.record:
        with suppress(OSError, ValueError):
            runs.note_reuse(done)
    return Outcome(done, read_record(done / "run.json")["status"], known=True)


def arguments(planned: Plan) -> dict[str, Any]:
    """The arguments of `optbench.training.loop.Training` for this run.

    Raises `UserError` where they cannot be made, or this process has loaded other code than the
    one that planned the run.
    """
    config = planned.config
    made = {
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
        "engine": engine.factory(planned.engine, required=planned.engine == engine.asked(config)),
    }
    code = own_code.code_of({group: config[group] for group in GROUPS})
    own_code.check_unchanged(code, planned.record)
    return made


_costs: dict[str, dict[str, float] | None] = {}  # measured in this process


def cost(planned: Plan) -> dict[str, float] | None:
    """`step_cost.cost_of_run` for this run; once in a process where only numbers differ."""
    kind = {k: v for k, v in planned.config["optimizer"].items() if k != "name"}
    kind = {k: bool(v) if isinstance(v, int | float) else v for k, v in kind.items()}
    key = identity(kind | {"problem": planned.record["problem_hash"]})
    if key not in _costs:
        given = ("problem", "optimizer", "seed", "decay_biases_and_norms", "device")
        asked = arguments(planned)  # its own: a loss may count its calls
        _costs[key] = step_cost.cost_of_run(**{k: asked[k] for k in given})
    return _costs[key]


def new_folder(planned: Plan) -> runs.RunFolder:
    """The folder that the run's updates are written to: a new one, or that of the same run where
    it was begun before and cannot be resumed."""
    # any name may be a label, but not a folder's; one with a dot in front would be hidden
    plain = re.sub(r"^[.]|[^\w.+-]+", "_", planned.record["name"])[:60]
    with_bytes = plain.encode(sys.getfilesystemencoding(), "replace")  # of the locale's encoding
    plain = with_bytes.decode(sys.getfilesystemencoding()).replace("?", "_")
    name = f"{plain}-seed{planned.record['seed']}-{planned.record['run_id']}"
    try:
        dead = None
        if not planned.config["force"]:
            dead = checkpoints.find_dead(planned.group, planned.record)
        folder = runs.RunFolder(planned.group, name, planned.record, instead_of=dead)
    except OSError as error:
        raise unwritable(planned.group, error) from error
    folder.follow(loggers(planned.config), results_of(planned.config))
    return folder


def abandon(config: Config, folder: Path, error: str) -> None:
    """Mark a run as failed whose process can no longer do it, also where it was logged."""
    if runs.abandon(folder, error):
        logged = loggers(config)
        logged.start(folder, results_of(config))
        logged.finish("failed")


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
            write(folder, update)
            show(update)
            # at step 0 there is nothing to save, and going on from there would repeat its row
            due = every is not None and update.step and monotonic() - saved >= every
            if update.status == "interrupted" or (update.status == "running" and due):
                save_if_possible(folder, training)
                saved = monotonic()
            if update.status != "running":
                break
            update = next(rest)
        finish(folder, update.status)
    except BaseException as error:
        fail(folder, error)
        raise
    return update.status


def write(folder: runs.RunFolder, update: Update) -> None:
    """Append the update's rows. Raises `UserError` where they cannot be written."""
    with _unwritable(folder):
        folder.write(update)


def warn_of_unseeded(training: Training, asked: Mapping[str, Any]) -> None:
    """Say where a random generator of the model's or the optimizer's own has no seed."""
    states = saved_state.generators(training)
    if not states:
        return
    again = saved_state.generators(Training(**asked))
    if unseeded := [path for path, state in states.items() if again.get(path) != state]:
        say(
            f"warning: {', '.join(unseeded)} draws random numbers that no seed sets, so that two "
            f"runs of one seed differ: give it a seed of its own, or draw from the global "
            f"generators, which the run's seed sets",
            error=True,
        )


def save_if_possible(folder: runs.RunFolder, training: Training) -> None:
    """Write the run's checkpoint, or leave none where something cannot be kept in one."""
    try:
        state = training.state_dict()
    except object_state.Unsaveable as error:
        checkpoints.remove(folder.path)  # that of a resumed run would repeat what followed it
        if folder.path not in _told:
            _told.add(folder.path)
            say(f"{folder.path}: {UNSAVEABLE.format(error)}", error=True)
    else:
        save(folder, state)


_told: set[Path] = set()  # that these runs restart


def save(folder: runs.RunFolder, training: Config) -> None:
    """Write the run's checkpoint. Raises `UserError` where it cannot be written."""
    with _unwritable(folder):
        checkpoints.save(folder.path, folder.record, folder.state_dict(), training)


def finish(folder: runs.RunFolder, status: str) -> None:
    """Record how the run ended. Raises `UserError` where that cannot be written."""
    with _unwritable(folder):
        folder.finish(status)
        if status != "interrupted":
            checkpoints.remove(folder.path)


def fail(folder: runs.RunFolder, error: BaseException) -> None:
    """Mark the run as failed. One that could not write goes on from its checkpoint another time;
    what an optimizer or a model raised may be mended in their code, so that run begins anew."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    stopped = isinstance(error, KeyboardInterrupt)
    with suppress(OSError):  # the disk may be what failed
        if not stopped and (isinstance(error, CodeError) or not isinstance(error, UserError)):
            checkpoints.remove(folder.path)
        folder.finish("interrupted" if stopped else "failed", None if stopped else text)


@contextmanager
def _unwritable(folder: runs.RunFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(folder.path, error) from error

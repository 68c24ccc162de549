"""From a resolved configuration to a finished run folder."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from optbench.common.console import say, warn
from optbench.common.errors import UNWRITABLE, UserError
from optbench.config.build import results_of
from optbench.formats.keys import ENGINES, RunConfig
from optbench.formats.record import engine_of, setting_of
from optbench.formats.run import read_record
from optbench.runner import engine, peak_memory
from optbench.runner.interrupts import interrupts
from optbench.runner.notices import tell_batch, tell_output, tell_share
from optbench.runner.planning import Plan, arguments, cost, plan
from optbench.runner.progress import Show, progress
from optbench.runner.reference import least_squares
from optbench.runner.writing import (
    finish,
    mark_failed,
    new_folder,
    save_if_possible,
    say_unsaveable,
    unfinished,
    write,
)
from optbench.runs import checkpoints, locks
from optbench.runs.claims import ClaimLost
from optbench.runs.finished import copy_run, find_finished, note_reuse
from optbench.runs.folder import RunFolder
from optbench.training import device, saved_state
from optbench.training.loop import Training
from optbench.training.steps import Update


class Outcome(NamedTuple):
    """How a run ended, and where its folder is.

    folder: of the run; of its group if the command was interrupted while another process had the
    run. known: an earlier command trained the run. signal: the signal that interrupted the run, or
    0. engines: the engine that made a known run, and the other one that the command asked for.
    """

    folder: Path
    status: str
    known: bool = False
    signal: int = 0
    engines: tuple[str, str] | None = None


def run(config: RunConfig, group: Path, *, label: str = "", chosen: str | None = None) -> Outcome:
    """Train the run of a configuration into `group`, or reuse a finished run.

    chosen: the engine of the run's sweep; see `plan`.
    Raises `UserError` for a mistake in the configuration or the data, before writing any file.
    """
    planned = plan(config, group, chosen=chosen)
    if planned.done is not None:
        return reuse_finished(planned, planned.done)
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
    """Train a planned run into its folder, or resume it if it was interrupted.

    If two processes ask for the same run, the second waits and reuses the result.
    opened: called with the run's folder, once it exists.
    """
    with locked(planned, stop) as outcome:
        return outcome or _complete(planned, show, stop, opened)


@contextmanager
def locked(planned: Plan, stop: Callable[[], bool]) -> Iterator[Outcome | None]:
    """Hold the run's lock; yield its outcome if it is done or the wait was stopped."""
    results = results_of(planned.config)
    run_id = planned.record["run_id"]

    def waiting(holder: str) -> None:
        say(f"{holder} has the run {run_id}; waiting for it", error=True)

    with ExitStack() as held:
        try:
            lock = locks.run_lock(
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
            done = find_finished(results, run_id, planned.group)
        yield None if done is None else reuse_finished(planned, done)


def _complete(
    planned: Plan, show: Show, stop: Callable[[], bool], opened: Callable[[Path], None]
) -> Outcome:
    asked = arguments(planned)
    training = Training(**asked)
    with ExitStack() as held:
        if planned.config["num_threads"] is None and planned.device.type == "cpu":
            threads = device.enough_threads(training.model, asked["problem"].batch_examples)
            planned.record["num_threads"] = held.enter_context(threads)
        # like the number of threads, no part of the run's identity
        planned.record["engine"] = name_of(training)
        if (least := reference(planned, training)) is not None:
            planned.record["reference"] = {"train_loss": least}
        folder = None
        if found := unfinished(planned):
            folder, state = found
            training = by_first_engine(planned, asked, training, folder)
            try:
                training.load_state_dict(state)
            except Exception as error:  # of many kinds, since a checkpoint may hold anything
                mark_failed(folder, error)
                warn(f"{folder.path}: the run restarts, for {error}")
                folder, training = None, Training(**asked)
        every = planned.config["checkpoint_seconds"]
        why = saved_state.unsaveable(training)
        if folder is None:  # a resumed run's generators have moved on
            warn_of_unseeded(training, asked)
        tell_share(asked["optimizer"], training)
        tell_output(training)
        tell_batch(training)
        updates = training.updates(stop)
        first = next(updates)  # before the folder is made, so that an error leaves no folder
        new = folder is None
        folder = folder or new_folder(planned)
        opened(folder.path)
        if why:
            say_unsaveable(folder, why)
        if new:
            folder.record["cost"] = cost(planned)  # written to run.json at the run's end
        measured = peak_memory.reset(planned.device)
        updates = chain([first], updates)
        status = _write_updates(folder, updates, show, training, every, measured=measured)
        return Outcome(folder.path, status)


_references: dict[tuple[str, int | None], float | None] = {}  # found in this process


def reference(planned: Plan, training: Training) -> float | None:
    """Return `least_squares` of a run's problem, found once for all its runs."""
    examples = planned.config["log"]["eval_train_examples"]
    key = planned.record["problem_hash"], examples
    if key not in _references:
        _references[key] = least_squares(training.problem, training.model, examples)
    return _references[key]


def name_of(training: Training) -> str:
    """Return the name of a training's engine, "plain" for torch's steps."""
    return training.engine.name if training.engine else engine.PLAIN


def by_first_engine(
    planned: Plan, asked: Mapping[str, Any], training: Training, folder: RunFolder
) -> Training:
    """Return the training of a resumed run, with the engine that the run began with.

    If the command asks for another engine, or the first one does not serve here, `training` keeps
    its own engine, and the run's record names both: A+B.
    """
    record = folder.record
    if not record["engine"]:
        return training
    names = record["engine"].split("+")
    first = names[-1]
    open_choice = engine.asked(planned.config) == engine.AUTO and first in ENGINES
    if open_choice and first != name_of(training):
        other = Training(**{**asked, "engine": engine.factory(first, required=False)})
        if name_of(other) == first:
            training = other
    now = name_of(training)
    if now not in names:
        warn(
            f"{folder.path} resumes with {setting_of(now)} after {record['engine']}: equal "
            f"within rounding only, and its times compare with those of no other run"
        )
        names.append(now)
    record["engine"] = "+".join(names)
    record["config"] = engine.agreeing(record["config"], record["engine"])
    return training


def reuse_finished(planned: Plan, done: Path) -> Outcome:
    """Return the outcome of a finished run, copied into the group of the plan."""
    with suppress(OSError):
        checkpoints.remove(done)  # left by a process that was killed just after the end
    made = engine_of(read_record(done / "run.json"))
    if done.parent.resolve() != planned.group.resolve():
        done = copy_run(done, planned.group, engine.agreeing(planned.record["config"], made))
    elif "code" in planned.record:
        with suppress(OSError, ValueError):
            note_reuse(done)
    asked = engine.asked(planned.config)
    other = made is not None and asked not in (engine.AUTO, made)
    status = read_record(done / "run.json")["status"]
    return Outcome(done, status, known=True, engines=(str(made), asked) if other else None)


def _write_updates(
    folder: RunFolder,
    updates: Iterator[Update],
    show: Show,
    training: Training,
    every: float | None,
    *,
    measured: bool,
) -> str:
    """Write and show all updates, and return the status; errors mark the run failed.

    every: seconds between two checkpoints; None: checkpoint only at an interrupt.
    """
    saved = monotonic()
    try:
        for update in updates:
            write(folder, update)
            show(update)
            # at step 0 there is nothing to save, and a resumed run would repeat its row
            due = every is not None and update.step and monotonic() - saved >= every
            if update.status == "interrupted" or (update.status == "running" and due):
                save_if_possible(folder, training)
                saved = monotonic()
        if measured:
            earlier = int(folder.record.get("peak_bytes") or 0)  # before the run was resumed
            folder.record["peak_bytes"] = max(earlier, peak_memory.peak_bytes(training.device))
        finish(folder, update.status)
    except ClaimLost:
        raise  # the folder is another worker's now
    except BaseException as error:
        mark_failed(folder, error)
        raise
    return update.status


def warn_of_unseeded(training: Training, asked: Mapping[str, Any]) -> None:
    """Warn of random generators inside model or optimizer that the seed does not set."""
    states = saved_state.generators(training)
    if not states:
        return
    again = saved_state.generators(Training(**asked))
    if unseeded := [path for path, state in states.items() if again.get(path) != state]:
        warn(
            f"{', '.join(unseeded)} draws random numbers that no seed sets, so that two "
            f"runs of one seed differ: give it a seed of its own, or draw from the global "
            f"generators, which the run's seed sets"
        )

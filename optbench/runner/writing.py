"""A run's folder while it is trained: made or resumed, written, and ended in every case."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optbench.common.console import say
from optbench.common.errors import CodeError, UserError, unwritable
from optbench.config.build import Config, loggers, results_of
from optbench.formats.keys import RunConfig
from optbench.runner.planning import Plan
from optbench.runs import checkpoints
from optbench.runs.finished import abandon
from optbench.runs.folder import RunFolder
from optbench.training import object_state
from optbench.training.loop import Training
from optbench.training.steps import Update

UNSAVEABLE = (
    "no checkpoint can be written, since {}: if the run is interrupted, it restarts from the "
    "beginning"
)


def new_folder(planned: Plan) -> RunFolder:
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
        folder = RunFolder(planned.group, name, planned.record, instead_of=dead)
    except OSError as error:
        raise unwritable(planned.group, error) from error
    folder.follow(loggers(planned.config), results_of(planned.config))
    return folder


def mark_abandoned(config: RunConfig, folder: Path, error: str) -> None:
    """Mark a run as failed whose process can no longer do it, also where it was logged."""
    if abandon(folder, error):
        logged = loggers(config)
        logged.start(folder, results_of(config))
        logged.finish("failed")


def unfinished(planned: Plan) -> tuple[RunFolder, Config] | None:
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
        folder = RunFolder.reopen(path, state["folder"])
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
    folder.record["engine"] = state.get("engine")
    folder.follow(loggers(planned.config), results_of(planned.config))
    say(f"going on from step {step} of {path}", error=True)
    return folder, state["training"]


def write(folder: RunFolder, update: Update) -> None:
    """Append the update's rows. Raises `UserError` where they cannot be written."""
    with _unwritable(folder):
        folder.write(update)


def save_if_possible(folder: RunFolder, training: Training) -> None:
    """Write the run's checkpoint, or leave none where something cannot be kept in one.

    Raises `UserError` where it cannot be written.
    """
    try:
        state = training.state_dict()
    except object_state.Unsaveable as error:
        checkpoints.remove(folder.path)  # that of a resumed run would repeat what followed it
        say_unsaveable(folder, error)
    else:
        with _unwritable(folder):
            checkpoints.save(folder.path, folder.record, folder.state_dict(), state)


_told: set[Path] = set()  # that these runs restart


def say_unsaveable(folder: RunFolder, why: object) -> None:
    """Say once of a run that it restarts where it is interrupted."""
    if folder.path not in _told:
        _told.add(folder.path)
        say(f"{folder.path}: {UNSAVEABLE.format(why)}", error=True)


def finish(folder: RunFolder, status: str) -> None:
    """Record how the run ended. Raises `UserError` where that cannot be written."""
    with _unwritable(folder):
        folder.finish(status)
        if status != "interrupted":
            checkpoints.remove(folder.path)


def mark_failed(folder: RunFolder, error: BaseException) -> None:
    """Mark the run as failed. One that could not write goes on from its checkpoint another time;
    what an optimizer or a model raised may be mended in their code, so that run begins anew."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    stopped = isinstance(error, KeyboardInterrupt)
    with suppress(OSError):  # the disk may be what failed
        if not stopped and (isinstance(error, CodeError) or not isinstance(error, UserError)):
            checkpoints.remove(folder.path)
        folder.finish("interrupted" if stopped else "failed", None if stopped else text)


@contextmanager
def _unwritable(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(folder.path, error) from error

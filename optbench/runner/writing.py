"""Make or resume the folder of a run in training, write its rows, and end it."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optbench.common.console import say, warn
from optbench.common.errors import CodeError, UserError, unwritable
from optbench.config.build import loggers, results_of
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
    """Make the run's folder, or reuse one whose run died before a checkpoint."""
    # any text may be a run's label, but not a folder's name; a leading dot would hide the folder
    plain = re.sub(r"^[.]|[^\w.+-]+", "_", planned.record["name"])[:60]
    with_bytes = plain.encode(sys.getfilesystemencoding(), "replace")
    plain = with_bytes.decode(sys.getfilesystemencoding()).replace("?", "_")
    name = f"{plain}-seed{planned.record['seed']}-{planned.record['run_id']}"
    try:
        dead = None
        if not planned.config["force"]:
            dead = checkpoints.find_dead(planned.group, planned.record)
        folder = RunFolder(planned.group, name, planned.record, instead_of=dead)
    except OSError as error:
        raise unwritable(planned.group, error) from error
    folder.attach_loggers(loggers(planned.config), results_of(planned.config))
    return folder


def mark_abandoned(config: RunConfig, folder: Path, error: str) -> None:
    """Mark the run of a dead process as failed, in its folder and in its loggers."""
    if abandon(folder, error):
        logged = loggers(config)
        logged.start(folder, results_of(config))
        logged.finish("failed")


def unfinished(planned: Plan) -> tuple[RunFolder, dict[str, Any]] | None:
    """Return the folder and `Training.state_dict` of an unfinished run, or None.

    Raises `UserError` where the data or settings have changed since the run began.
    """
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
        if state["folder"]["rows"]["steps"] != step // every + (every > 1):  # step 1 has a row too
            raise ValueError("its step and its rows do not belong together")
    except (KeyError, TypeError, ValueError) as error:
        warn(f"{path} cannot be resumed, so the run restarts: {error}")
        return None
    except OSError as error:
        raise unwritable(path, error) from error
    before, now = state.get("num_threads"), planned.record["num_threads"]
    if before != now:
        warn(f"{path} resumes with {now} threads after {before}: equal within rounding only")
    before, now = state.get("products"), planned.record["products"]
    if before not in (None, now):
        warn(f"{path} resumes with products by {now} after {before}: equal within rounding only")
    folder.record["engine"] = state.get("engine")
    folder.attach_loggers(loggers(planned.config), results_of(planned.config))
    say(f"resuming from step {step} of {path}", error=True)
    return folder, state["training"]


def write(folder: RunFolder, update: Update) -> None:
    """Append the update's rows. Raise `UserError` where they cannot be written."""
    with _unwritable(folder):
        folder.write(update)


def save_if_possible(folder: RunFolder, training: Training) -> None:
    """Write the run's checkpoint, or delete it where the state cannot be saved.

    Raises `UserError` where the file cannot be written.
    """
    try:
        state = training.state_dict()
    except object_state.Unsaveable as error:
        checkpoints.remove(folder.path)  # an old one would repeat the rows that followed it
        say_unsaveable(folder, error)
    else:
        with _unwritable(folder):
            checkpoints.save(folder.path, folder.record, folder.state_dict(), state)


_told: set[Path] = set()  # runs whose user knows that no checkpoint can be written


def say_unsaveable(folder: RunFolder, why: object) -> None:
    """Say once that a run restarts if it is interrupted, and why."""
    if folder.path not in _told:
        _told.add(folder.path)
        say(f"{folder.path}: {UNSAVEABLE.format(why)}", error=True)


def finish(folder: RunFolder, status: str) -> None:
    """Record how the run ended. Raise `UserError` where the files cannot be written."""
    with _unwritable(folder):
        folder.finish(status)
        if status != "interrupted":
            checkpoints.remove(folder.path)


def mark_failed(folder: RunFolder, error: BaseException) -> None:
    """Mark the run as failed, or as interrupted by Ctrl-C.

    A run that could not write keeps its checkpoint and resumes later. A run whose own code failed
    restarts, since the user may mend that code.
    """
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

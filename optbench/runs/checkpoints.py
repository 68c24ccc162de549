"""The checkpoint from which an unfinished run resumes bit for bit."""

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from optbench import __version__
from optbench.common.errors import UserError
from optbench.formats.keys import KEYS, SERIES_KEYS
from optbench.formats.older_code import all_changes, code_in, sourceless
from optbench.formats.record import UNFINISHED, PlannedRecord, RunRecord
from optbench.formats.run import read_record

CHECKPOINT_FILE = "checkpoint.pt"
CHECKPOINT_FORMAT = 4
RECORD_KEYS = ("run_id", "problem_hash", "num_threads", "products", "engine")
MADE_BY = {"format": CHECKPOINT_FORMAT, "optbench": __version__, "torch": str(torch.__version__)}


def save(
    folder: Path, record: PlannedRecord, rows: Mapping[str, Any], training: Mapping[str, Any]
) -> None:
    """Write a run's checkpoint so that a crash leaves the old one or the new one.

    record: the run's `run.json`. rows: `RunFolder.state_dict`. training: `Training.state_dict`.
    Raises OSError.
    """
    state = MADE_BY | {key: record.get(key) for key in RECORD_KEYS}
    state |= {"folder": rows, "training": training}
    temporary = folder / f"{CHECKPOINT_FILE}.tmp"
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # a new file, since "wb" would follow a link
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch's error for a write that fell short
                if isinstance(error.__context__, KeyboardInterrupt):  # a second Ctrl-C
                    raise error.__context__ from None
                raise OSError("the checkpoint could not be written as a whole") from error
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / CHECKPOINT_FILE)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(number)  # puts the renaming itself on the disk
        finally:
            os.close(number)


def remove(folder: Path) -> None:
    """Delete the checkpoint of a run that is over."""
    for name in (CHECKPOINT_FILE, f"{CHECKPOINT_FILE}.tmp"):
        (folder / name).unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Return the state in a checkpoint, after checking every byte against its CRC-32.

    Raises OSError, ValueError, and torch's errors for a file that torch did not write.
    """
    with zipfile.ZipFile(path) as archive:  # torch reads past a wrong checksum
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")
    # only tensors and plain values are read, so that a file from others runs no code
    return torch.load(path, weights_only=True)


def find(
    group: Path, asked: PlannedRecord, warn: Callable[[str], None]
) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest unfinished run in `group` with its checkpoint, or None.

    asked: the beginning of the run's `run.json`. `warn` is told where a run restarts: its
    checkpoint is damaged or of another version of torch or optbench, or the user's code has
    changed. A run whose code has no source restarts as well.
    Raises `UserError` where the run began with other data, or its files contradict each other.
    """
    found = []
    for path in group.glob(f"*-seed{asked['seed']}-*/{CHECKPOINT_FILE}"):
        try:
            record = read_record(path.parent / "run.json")
        except (OSError, ValueError) as error:
            if asked["run_id"] in path.parent.name:
                warn(f"{path.parent / 'run.json'} {error}: the run restarts")
            continue
        if record["status"] not in UNFINISHED:
            continue
        same = record.get("settings_hash") == asked["settings_hash"]
        before, now = code_in(record), code_in(asked)
        if sourceless(now):
            continue  # the plan of the run has warned
        if same and (names := all_changes(before, now)):
            warn(f"{path.parent} was begun before {names} changed, so the run restarts")
            continue
        if record["run_id"] == asked["run_id"] or same:
            check_same(path.parent, record, asked)
            found.append((str(record.get("started")), path))
    for _, path in sorted(found, reverse=True):
        try:
            state = load(path)
        except pickle.UnpicklingError:
            warn(
                f"{path} holds something else than tensors and plain values, which alone are read "
                f"from a checkpoint, so the run restarts"
            )
            continue
        except Exception as error:  # torch raises many kinds for files that it did not write
            text = " ".join(str(error).split())[:200]
            warn(f"{path} is damaged, so the run restarts ({type(error).__name__}: {text})")
            continue
        if not isinstance(state, dict) or any(state.get(k) != v for k, v in MADE_BY.items()):
            warn(f"{path} was made by another version, so the run restarts")
            continue
        if state.get("run_id") != asked["run_id"]:
            raise UserError(
                f"{path} is the checkpoint of another run, {state.get('run_id')}, than the "
                f"run.json beside it: put its own back, or delete it, and the run restarts"
            )
        return path.parent, state
    return None


def find_dead(group: Path, asked: PlannedRecord) -> Path | None:
    """Return the newest run of this identity that died before its first checkpoint.

    The caller holds the run's lock. A run whose code failed, or whose checkpoint is damaged, is
    not returned, so that its folder is kept.
    """
    found = []
    for path in group.glob(f"*-seed{asked['seed']}-*/run.json"):
        try:
            record = read_record(path)
        except (OSError, ValueError):
            continue
        ended = record["status"] in ("running", "interrupted") or record.get("process_died")
        own = record["run_id"] == asked["run_id"] and not (path.parent / CHECKPOINT_FILE).exists()
        if own and ended:
            found.append((str(record.get("started")), path.parent))
    return max(found)[1] if found else None


def check_same(folder: Path, record: RunRecord, asked: PlannedRecord) -> None:
    """Raise `UserError` where an unfinished run is not the one that is asked for.

    Nothing that changes the curves may differ, down to the bytes of the data.
    """
    changed = differences(record["problem"], asked["problem"])
    for key in (*SERIES_KEYS, "seed"):
        earlier = KEYS[key].before if key in KEYS else None  # of a version without the key
        before = record["config"].get(key, None if earlier is ... else earlier)
        changed += differences({key: before}, {key: asked["config"][key]})
    if changed:
        raise UserError(
            f"{folder} was begun with something else than is asked for now: {'; '.join(changed)}. "
            f"Put back what has changed, and it resumes; force=true restarts it"
        )


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """Return the differences between two nested mappings, as texts."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            text
            for name in dict.fromkeys([*before, *now])
            for text in differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if before == now else [f"{key} was {before!r} and is {now!r}"]

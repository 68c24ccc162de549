"""A run's checkpoint: what an unfinished run needs to go on, bit for bit, in its own folder."""

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from optbench import __version__
from optbench.common.errors import UserError
from optbench.formats.keys import SERIES_KEYS
from optbench.formats.older_code import all_changes, code_in, sourceless
from optbench.formats.run import read_record

FILE = "checkpoint.pt"
FORMAT = 4
# failed: its process died, or could not write; a run whose code failed leaves no checkpoint
UNFINISHED = ("running", "interrupted", "failed")
OF_THE_RUN = ("run_id", "problem_hash", "num_threads", "products", "engine")
MADE_BY = {"format": FORMAT, "optbench": __version__, "torch": str(torch.__version__)}


def save(
    folder: Path, record: Mapping[str, Any], rows: Mapping[str, Any], training: Mapping[str, Any]
) -> None:
    """Write a run's state so that a crash leaves the old one or the new one.

    record: its `run.json`. rows, training: `RunFolder.state_dict`, `Training.state_dict`: tensors
    and plain values. Raises OSError.
    """
    state = MADE_BY | {key: record.get(key) for key in OF_THE_RUN}
    state |= {"folder": rows, "training": training}
    temporary = folder / f"{FILE}.tmp"
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # a new one: a link in its place would be followed
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch's, of a write that fell short
                raise OSError("the checkpoint could not be written as a whole") from error
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / FILE)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(number)  # the renaming itself
        finally:
            os.close(number)


def remove(folder: Path) -> None:
    """Delete the checkpoint of a run that is over."""
    for name in (FILE, f"{FILE}.tmp"):
        (folder / name).unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, every byte of which has been checked against its CRC-32.

    Raises OSError, ValueError and whatever torch raises for a file that is none of its own.
    """
    with zipfile.ZipFile(path) as archive:  # torch reads past a wrong checksum
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")
    # nothing but tensors and plain values: a file from others runs no code
    return torch.load(path, weights_only=True)


def find(
    group: Path, asked: Mapping[str, Any], warn: Callable[[str], None]
) -> tuple[Path, dict[str, Any]] | None:
    """The newest unfinished run of this identity in `group`, and its checkpoint.

    asked: the beginning of its `run.json`. A checkpoint that is damaged, or was made by another
    version of torch or optbench, is not used, and `warn` is told: the run begins anew. So it does
    where the user's own code has changed since, or has no source to tell by.
    Raises `UserError` where a run was begun with other data, or its files disagree on what it is.
    """
    found = []
    for path in group.glob(f"*-seed{asked['seed']}-*/{FILE}"):
        try:
            record = read_record(path.parent / "run.json")
        except (OSError, ValueError) as error:
            if asked["run_id"] in path.parent.name:
                warn(f"{path.parent / 'run.json'} {error}: the run begins anew")
            continue
        if record["status"] not in UNFINISHED:
            continue
        same = record.get("settings_hash") == asked["settings_hash"]
        before, now = code_in(record), code_in(asked)
        if sourceless(now):
            continue  # it was said when the run was planned
        if same and (names := all_changes(before, now)):
            warn(f"{path.parent} was begun before {names} changed, so the run begins anew")
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
                f"from a checkpoint, so the run begins anew"
            )
            continue
        except Exception as error:  # torch raises many kinds for what is no checkpoint of its own
            text = " ".join(str(error).split())[:200]
            warn(f"{path} is damaged, so the run begins anew ({type(error).__name__}: {text})")
            continue
        if not isinstance(state, dict) or any(state.get(k) != v for k, v in MADE_BY.items()):
            warn(f"{path} was made by another version, so the run begins anew")
            continue
        if state.get("run_id") != asked["run_id"]:
            raise UserError(
                f"{path} is the checkpoint of another run, {state.get('run_id')}, than the "
                f"run.json beside it: put its own back, or delete it, and the run begins anew"
            )
        return path.parent, state
    return None


def find_dead(group: Path, asked: Mapping[str, Any]) -> Path | None:
    """The newest run of this identity in `group` whose process ended before its first checkpoint.

    The caller holds the run's lock. A run whose code failed, or whose checkpoint is damaged, keeps
    its folder.
    """
    found = []
    for path in group.glob(f"*-seed{asked['seed']}-*/run.json"):
        try:
            record = read_record(path)
        except (OSError, ValueError):
            continue
        ended = record["status"] in ("running", "interrupted") or record.get("process_died")
        own = record["run_id"] == asked["run_id"] and not (path.parent / FILE).exists()
        if own and ended:
            found.append((str(record.get("started")), path.parent))
    return max(found)[1] if found else None


def check_same(folder: Path, record: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise `UserError` where the unfinished run of that folder is not the one that is asked for.

    Nothing that makes the curves may differ, down to the bytes of the data.
    """
    changed = differences(record["problem"], asked["problem"])
    for key in (*SERIES_KEYS, "seed"):
        changed += differences({key: record["config"].get(key)}, {key: asked["config"][key]})
    if changed:
        raise UserError(
            f"{folder} was begun with something else than is asked for now: {'; '.join(changed)}. "
            f"Put back what has changed, and it goes on; force=true begins the run anew"
        )


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """What differs between two nested mappings, as texts."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            text
            for name in dict.fromkeys([*before, *now])
            for text in differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if before == now else [f"{key} was {before!r} and is {now!r}"]

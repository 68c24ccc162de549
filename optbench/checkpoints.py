"""A run's checkpoint: what an unfinished run needs to go on, bit for bit, in its own folder."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from optbench import __version__
from optbench.run_files import read_record

FILE = "checkpoint.pt"
FORMAT = 1
UNFINISHED = ("running", "interrupted")
MADE_BY = {"format": FORMAT, "optbench": __version__, "torch": str(torch.__version__)}


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) so that a crash leaves the old one or the new one.

    Raises OSError.
    """
    temporary = folder / f"{FILE}.tmp"
    try:
        with temporary.open("wb") as file:
            try:
                torch.save(MADE_BY | state, file)
            except RuntimeError as error:  # torch's, of a write that fell short
                raise OSError(f"checkpoint not written: {error}") from error
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
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def find(
    group: Path, run_id: str, warn: Callable[[str], None]
) -> tuple[Path, dict[str, Any]] | None:
    """The newest unfinished run of this identity in `group`, and its checkpoint.

    A checkpoint that is damaged, or was made by another version of torch or optbench, is not used,
    and `warn` is told: the run begins anew.
    """
    found = []
    for path in group.glob(f"*-{run_id}*/{FILE}"):
        try:
            record = read_record(path.parent / "run.json")
        except (OSError, ValueError) as error:
            warn(f"{path.parent / 'run.json'} {error}: the run begins anew")
            continue
        if record["run_id"] == run_id and record["status"] in UNFINISHED:
            found.append((str(record.get("started")), path))
    for _, path in sorted(found, reverse=True):
        try:
            state = load(path)
        except Exception as error:  # torch raises many kinds for what is no checkpoint of its own
            text = " ".join(str(error).split())[:200]
            warn(f"{path} is damaged, so the run begins anew ({type(error).__name__}: {text})")
            continue
        if not isinstance(state, dict) or any(state.get(k) != v for k, v in MADE_BY.items()):
            warn(f"{path} was made by another version, so the run begins anew")
            continue
        return path.parent, state
    return None

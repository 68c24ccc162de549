"""The call of a shared study: who begins it, who joins it, and who ends it."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import sleep
from typing import Any
from uuid import uuid4

from optbench import __version__
from optbench.common.console import say
from optbench.common.errors import UserError
from optbench.common.text import count
from optbench.formats import job_list, shared_study
from optbench.runs import claims
from optbench.sweeps.sharing.session import Session

VERSIONS = ("optbench", "torch", "device")  # equal for all workers of a call
ANOTHER_COMMAND = (
    "{folder} is being worked on with other settings: {theirs}. Wait until {workers} have ended, "
    "or give this study another name=NAME"
)
ANOTHER_VERSION = (
    "{folder} is being worked on with {theirs}, and this worker has {own}: their runs would not "
    "compare. Install the same versions here, or wait until {workers} have ended"
)
BUSY = (
    "{} is being worked on by {}: `optbench work {}` helps, and an ordinary sweep may have the "
    "folder when they have ended"
)


def versions(device: str) -> dict[str, str]:
    """Return the versions and the kind of device that all workers of a call share.

    device: the configuration's.
    """
    import torch

    kind = device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "optbench": __version__,
        "torch": str(torch.__version__).partition("+")[0],
        "device": kind,
    }


def enter(
    session: Session,
    folder: Path,
    results: Path,
    device: str,
    command: Mapping[str, Any],
    begin: Callable[[], None],
) -> None:
    """Join the call in a study's folder, or begin one.

    device: the configuration's. command: `command_of` the configuration. begin: writes the study's
    own files, for a new call. Raises `UserError` where the workers of the call have other versions
    or another command, and OSError where nothing can be written.
    """
    session.attach(folder, results)
    with session.files():
        call = shared_study.call_of(job_list.first_line(folder))
        if session.call is not None and session.call != call.get("id"):
            say(f"{folder} is whole, or another command has it now: nothing to do")
            sys.exit(0)
        own = versions(device)
        if call and (workers := present(session, folder, call)):
            names = ", ".join(worker.name for worker in workers)
            check(folder, call, own, command, names)
            job_list.shared.call = call
        else:
            call = {"id": uuid4().hex[:12], **own}
            job_list.shared.call = call
            session.begins = True
            begin()
        place = shared_study.call_folder(folder, call["id"])
        place.mkdir(parents=True, exist_ok=True)
        job_list.shared.own_list = place / f"{session.worker}.jsonl"
        shared_study.append(job_list.shared.own_list, session.info())
    session.look()


def present(session: Session, folder: Path, call: Mapping[str, Any]) -> list[shared_study.Worker]:
    """Return the workers of a call that may still be at work.

    Workers of other machines are watched for a while, but only where it matters: if a run of the
    call has failed, since a new call tries failed runs again, or if the call has another version of
    optbench.
    """
    assert session.heartbeats is not None
    workers = shared_study.read_workers(folder, call["id"])
    left = [one for one in workers if not one.left and not claims.is_dead_here(one.info)]
    failed = any(line.get("status") == "failed" for one in workers for line in one.lines)
    if not left or not (failed or call.get("optbench") != __version__):
        return left
    told = False
    seen = {one.name: _beat_of(session, one.name) for one in left}
    while left and all(_beat_of(session, one.name) == seen[one.name] for one in left):
        left = [one for one in left if not session.heartbeats.is_silent(one.info)]
        if not told:
            say(f"looking whether {count(len(left), 'worker')} of {folder} still work ...")
        told = True
        sleep(session.poll)
    return left


def _beat_of(session: Session, worker: str) -> str:
    try:
        return claims.beat_file(session.claim_folder, worker).read_text("ascii", "replace")
    except OSError:
        return ""


def check(
    folder: Path, call: Mapping[str, Any], own: Mapping[str, str], command: Mapping[str, Any],
    workers: str,
) -> None:  # fmt: skip
    """Raise `UserError` unless a call has this worker's versions and command."""
    if any(call.get(key) != own[key] for key in VERSIONS):
        theirs, mine = (
            ", ".join(f"{key} {found.get(key)}" for key in VERSIONS if call.get(key) != own[key])
            for found in (call, own)
        )
        raise UserError(
            ANOTHER_VERSION.format(folder=folder, theirs=theirs, own=mine, workers=workers)
        )
    first = job_list.first_line(folder).get("command") or {}
    if _essence(first) != _essence(command):
        theirs = " ".join(first.get("task", []))
        raise UserError(ANOTHER_COMMAND.format(folder=folder, theirs=theirs, workers=workers))


def _essence(command: Mapping[str, Any]) -> set[str]:
    words = [*command.get("task", ()), *command.get("hydra", ())]
    return {word for word in words if not job_list.is_cosmetic(word)}


def check_alone(folder: Path) -> None:
    """Raise `UserError` for an ordinary sweep in a folder that workers share.

    Only workers on this machine are seen.
    """
    call = shared_study.call_of(job_list.first_line(folder))
    if not call:
        return
    here = [
        one
        for one in shared_study.read_workers(folder, call["id"])
        if not one.left and one.info.get("place") == claims.place()
        and not claims.is_dead_here(one.info)
    ]  # fmt: skip
    if here:
        names = ", ".join(one.name for one in here)
        raise UserError(BUSY.format(folder, names, folder))


def finish(session: Session, folder: Path, draw: Callable[[], None]) -> None:
    """End the call of a whole study: draw its figures unless another worker does."""
    if session.trains and (leader := leader_of(session, folder)):
        say(f"{folder} is whole; {leader} draws its figures")
        return
    claim = session.first("close")
    if claim is None or not shared_study.call_of(job_list.first_line(folder)):
        say(f"{folder} is whole; another worker draws its figures")
        return
    try:
        draw()
        with session.files():
            if shared_study.call_of(job_list.first_line(folder)) == job_list.shared.call:
                job_list.shared.own_list = None
                job_list.close(folder)
    finally:
        claim.release()


def leader_of(session: Session, folder: Path) -> str:
    """Return the process that waits for a call's workers, if alive; else ""."""
    call = job_list.shared.call or {}
    for one in shared_study.read_workers(folder, call.get("id", "")):
        if one.info.get("trains") is False and not one.left and gives_signs(session, one):
            return one.name
    return ""


def gives_signs(session: Session, worker: shared_study.Worker) -> bool:
    """Wait for a heartbeat of a worker, and return whether there was one."""
    assert session.heartbeats is not None
    before = _beat_of(session, worker.name)
    while not session.heartbeats.is_silent(worker.info):
        if _beat_of(session, worker.name) != before:
            return True
        sleep(session.poll)
    return False

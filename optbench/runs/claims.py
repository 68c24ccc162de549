"""Claim runs for workers, on any number of machines with a shared file system.

A claim is a file that is made by `link`, which is atomic over NFS as well. Its holder's heartbeat
is a counter in another file. Observers judge a heartbeat by their own clock alone: a counter that
has not moved for so many seconds while they looked. Clocks that differ thus change nothing. A claim
is taken over by the next generation of it (`RUN.2` after `RUN.1`), so that of several workers one
gets it, and the earlier holder sees that its claim is lost.

The locks of `runs.locks` stay beside the claims: they hold between processes of one machine, and
need no heartbeat, but not all network file systems have them.
"""

import errno
import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple
from uuid import uuid4

from optbench.common.errors import UserError

CLAIM_FOLDER = ".claims"  # in the folder of all results
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
SILENT_BEATS = 3  # intervals without a heartbeat before a claim may be taken over, at least
Holder = Mapping[str, Any]  # worker, place, pid, started, every (seconds between heartbeats)


class ClaimLost(UserError):
    """The claim was taken over by another worker, which has the run now."""


class Claim(NamedTuple):
    """A claim that this process, or its parent, has made."""

    folder: Path
    name: str  # the run's id, or the name of a sweep's files
    generation: int
    token: str

    @property
    def path(self) -> Path:
        """The file of the claim."""
        return self.folder / f"{self.name}.{self.generation}"

    def holds(self) -> bool:
        """Return whether no other worker has taken the claim over."""
        if (self.folder / f"{self.name}.{self.generation + 1}").exists():
            return False
        return _read(self.path).get("token") == self.token

    def check(self) -> None:
        """Raise `ClaimLost` if another worker has taken the claim over."""
        if not self.holds():
            raise ClaimLost(f"another worker has taken over the run {self.name}")

    def release(self) -> None:
        """Give the claim back, unless it was taken over."""
        with suppress(OSError):
            if not self.holds():
                return
            # the oldest first: the newest one counts until it is gone as well
            for number in range(1, self.generation + 1):
                (self.folder / f"{self.name}.{number}").unlink(missing_ok=True)


class Heartbeats:
    """What this process has seen of other workers' heartbeats, by its own clock."""

    def __init__(self, folder: Path, stale: float) -> None:
        """Watch the heartbeats in a folder.

        stale: seconds without a heartbeat after which a worker counts as gone.
        """
        self.folder, self.stale = folder, stale
        self._seen: dict[str, tuple[str, float]] = {}  # by worker

    def is_silent(self, holder: Holder) -> bool:
        """Return whether a worker is gone: dead on this machine, or silent for too long."""
        if is_dead_here(holder):
            return True
        worker, every = str(holder.get("worker")), holder.get("every", 0.0)
        since = self._look(worker)
        every = every if isinstance(every, int | float) else 0.0
        return monotonic() - since > max(self.stale, SILENT_BEATS * every)

    def _look(self, worker: str) -> float:
        """Return when this process first saw a worker's counter as it is now."""
        count = ""
        with suppress(OSError):  # not there: perhaps not yet visible on this machine
            count = beat_file(self.folder, worker).read_text("ascii", "replace")
        if self._seen.get(worker, ("?", 0.0))[0] != count:
            self._seen[worker] = count, monotonic()
        return self._seen[worker][1]


def beat_file(folder: Path, worker: str) -> Path:
    """Return the file of a worker's heartbeat."""
    return folder / f"{worker}.beat"


def beat(folder: Path, worker: str, count: int) -> None:
    """Write a worker's heartbeat. Raises OSError.

    The file keeps its size and its place, so that a full disk does not stop the heartbeat.
    """
    number = os.open(beat_file(folder, worker), os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.write(number, f"{count:012d}".encode())
    finally:
        os.close(number)


def take(folder: Path, name: str, holder: Holder, silent: Callable[[Holder], bool]) -> Claim | None:
    """Claim a run, and return the claim; None if another worker has it.

    silent: whether the worker of a claim is gone; its claim is then taken over. The caller has to
    look once more whether the run is done: its last holder may have ended in this moment.
    Raises OSError where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generation = newest(folder, name)
    if generation:
        # a file without a holder is judged by itself
        holder_now = {"worker": f"{name}.{generation}"} | holder_of(folder, name, generation)
        if not silent(holder_now):
            return None
    claim = Claim(folder, name, generation + 1, uuid4().hex)
    return claim if _make(claim, holder) else None


def newest(folder: Path, name: str) -> int:
    """Return the generation of a claim; 0 if there is none."""
    return newest_of(folder).get(name, 0)


def newest_of(folder: Path) -> dict[str, int]:
    """Return the generation of each claim in a folder by its name."""
    found: dict[str, int] = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name, _, number = entry.name.rpartition(".")
            if number.isdecimal():
                found[name] = max(found.get(name, 0), int(number))
    return found


def holder_of(folder: Path, name: str, generation: int) -> dict[str, Any]:
    """Return who holds a claim; {} if it is gone."""
    return _read(folder / f"{name}.{generation}")


def _make(claim: Claim, holder: Holder) -> bool:
    """Make the file of a claim, and return whether it is ours."""
    text = json.dumps({**holder, "name": claim.name, "token": claim.token}) + "\n"
    temporary = claim.folder / f"{claim.token}.tmp"
    temporary.write_text(text, "utf-8")
    try:
        os.link(temporary, claim.path)
    except FileExistsError:
        # or ours: a server's first answer may have been lost, and the repeated call then fails
        return temporary.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            with claim.path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@cache
def place() -> str:
    """Return where process numbers are unique: host, boot and container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; "" if that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(") ")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]


def is_dead_here(holder: Holder) -> bool:
    """Return whether a worker was a process of this machine that has ended."""
    pid, when = holder.get("pid"), holder.get("started")
    known = isinstance(pid, int) and bool(when) and holder.get("place") == place()
    return known and started(int(str(pid))) != when

"""One process at a time for each run: a lock that the system releases when its holder dies."""

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no lock, and two processes with one run both do it
    fcntl = None  # type: ignore[assignment]

FOLDER = ".locks"
# the folder may come from others: no link is followed, and no pipe is waited for
PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
RELEASED = "released"  # a line for each lock that was given back: its run
POLL = 0.2  # seconds


class Stopped(Exception):
    """The wait for a lock was ended."""


def released(results: Path) -> int:
    """A mark of now: what is released later stands behind it."""
    try:
        return (results / FOLDER / RELEASED).stat().st_size
    except OSError:
        return 0


@contextmanager
def run_lock(
    results: Path,
    run_id: str,
    *,
    since: int = 0,
    waiting: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[bool]:
    """Hold the lock of a run, after waiting for whoever has it.

    Gives whether another process had it since `since`, a mark of `released`, or died with it: the
    run may be done. waiting: told once who has it. stop: True ends the wait with `Stopped`.
    POSIX record locks: they work over NFS as far as its server supports them.
    Raises OSError where the file cannot be made.
    """
    if fcntl is None:
        yield False
        return
    path = results / FOLDER / run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.is_symlink():  # the folder may come from others
        raise NotADirectoryError(errno.ENOTDIR, "it is a link, and not a folder", str(path.parent))
    waited = False
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | PLAIN, 0o666)
        try:
            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(number, 200).decode("utf-8", "replace").strip()
            os.close(number)
            if not waited:
                waiting(holder or "another process")
            waited = True
            if stop():
                raise Stopped from None
            time.sleep(POLL)
            continue
        except BaseException:
            os.close(number)
            raise
        if _is_there(path, number):
            break
        os.close(number)  # its holder removed it before we had the lock: another file counts now
    try:
        died = os.fstat(number).st_size > 0
        os.ftruncate(number, 0)
        os.write(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield waited or died or _was_released(path, since)
    finally:
        with suppress(OSError):  # a full disk, or a folder that is gone
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | PLAIN
            with os.fdopen(os.open(path.with_name(RELEASED), flags, 0o666), "a") as file:
                file.write(f"{run_id}\n")
        with suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(number)


def _was_released(path: Path, since: int) -> bool:
    try:
        with os.fdopen(os.open(path.with_name(RELEASED), os.O_RDONLY | PLAIN), "rb") as file:
            file.seek(since)
            return path.name.encode() in file.read().split()
    except OSError:
        return False


def _is_there(path: Path, number: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(number))
    except FileNotFoundError:
        return False

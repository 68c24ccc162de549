"""A lock for each run, which the system releases when the holder's process dies."""

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such lock: two processes may both train one run
    fcntl = None  # type: ignore[assignment]

LOCK_FOLDER = ".locks"
# the folder may come from others, so follow no link and wait for no pipe
SAFE_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
RELEASED_FILE = "released"  # a line for each lock that was released, with the run's id
POLL_SECONDS = 0.2


class Stopped(Exception):
    """The wait for a lock was interrupted."""


def release_log_position(results: Path) -> int:
    """Return the current end of the list of released locks, which grows later."""
    try:
        return (results / LOCK_FOLDER / RELEASED_FILE).stat().st_size
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
    """Wait for a run's lock, hold it, and yield whether the run may be done by now.

    The run may be done if another process released the lock after `since`, a position from
    `release_log_position`, or died with it. waiting: told once who holds the lock. stop: True ends
    the wait with `Stopped`.
    This relies on POSIX record locks, which work over NFS if its server supports them.
    Raises OSError where the lock's file cannot be made.
    """
    if fcntl is None:
        yield False
        return
    path = results / LOCK_FOLDER / run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.is_symlink():  # the folder may come from others
        raise NotADirectoryError(errno.ENOTDIR, "it is a link, and not a folder", str(path.parent))
    waited = False
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | SAFE_FLAGS, 0o666)
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
            time.sleep(POLL_SECONDS)
            continue
        except BaseException:
            os.close(number)
            raise
        if _is_there(path, number):
            break
        os.close(number)  # the last holder deleted this file, so a new file is the lock now
    try:
        died = os.fstat(number).st_size > 0
        os.ftruncate(number, 0)
        os.write(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield waited or died or _was_released(path, since)
    finally:
        with suppress(OSError):  # a full disk, or a folder that is gone
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | SAFE_FLAGS
            with os.fdopen(os.open(path.with_name(RELEASED_FILE), flags, 0o666), "a") as file:
                file.write(f"{run_id}\n")
        with suppress(OSError):
            if _is_there(path, number):  # not the next holder's, after `discard`
                path.unlink(missing_ok=True)
        os.close(number)


def discard(results: Path, run_id: str) -> None:
    """Take a run's lock from a holder that is gone or stopped.

    The next holder gets a new file.
    """
    with suppress(OSError):
        (results / LOCK_FOLDER / run_id).unlink(missing_ok=True)


def _was_released(path: Path, since: int) -> bool:
    try:
        number = os.open(path.with_name(RELEASED_FILE), os.O_RDONLY | SAFE_FLAGS)
        with os.fdopen(number, "rb") as file:
            file.seek(since)
            return path.name.encode() in file.read().split()
    except OSError:
        return False


def _is_there(path: Path, number: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(number))
    except FileNotFoundError:
        return False

"""One process at a time for each run: a lock that the system releases when its holder dies."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no lock, and two processes with one run both do it
    fcntl = None  # type: ignore[assignment]

FOLDER = ".locks"
POLL = 0.2  # seconds


@contextmanager
def only_one(
    results: Path,
    run_id: str,
    *,
    waiting: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[bool]:
    """Hold the lock of a run, after waiting for whoever has it; gives whether that was necessary.

    waiting: told once who has it. stop: True ends the wait; the lock is then not held.
    POSIX record locks: they work over NFS as far as its server supports them.
    Raises OSError where the file cannot be made.
    """
    if fcntl is None:
        yield False
        return
    path = results / FOLDER / run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(number, 200).decode("utf-8", "replace").strip()
            os.close(number)
            if not waited:
                waiting(holder or "another process")
            waited = True
            if stop():
                yield True
                return
            time.sleep(POLL)
            continue
        except BaseException:
            os.close(number)
            raise
        if _is_there(path, number):
            break
        os.close(number)  # its holder removed it before we had the lock: another file counts now
    try:
        os.ftruncate(number, 0)
        os.write(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield waited
    finally:
        path.unlink(missing_ok=True)
        os.close(number)


def _is_there(path: Path, number: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(number))
    except FileNotFoundError:
        return False

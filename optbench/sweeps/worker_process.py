"""How a worker process starts, and what it does: tasks, until the other end of its pipe closes."""

import faulthandler
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

TOLD = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n)]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def prepare(preload: Sequence[str]) -> None:
    """Begin to import modules once for all workers to come, where the system can fork a server.

    Worth doing early: it takes seconds, in which the caller can do something else.
    """
    context: Any = start_context()
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(list(preload))
        serve()


def serve() -> None:
    """Start the server that forks the workers, where it does not run already.

    It never sees a signal that is sent to all of a terminal's or a batch system's processes: while
    it imports, a Ctrl-C would end it.
    """
    resource_tracker.ensure_running()  # where it starts, it unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
    try:
        with plain():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def plain() -> Iterator[None]:
    """While a process is started: it shall have one thread, and not import our main module.

    Libraries read the environment where they are first imported. The main module may be a script
    of the user's that does things when it is imported.
    """
    kept, main = os.environ.copy(), sys.modules["__main__"]
    os.environ.update(dict.fromkeys(THREADS, "1"))
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for key in THREADS:
            del os.environ[key]
            if key in kept:
                os.environ[key] = kept[key]


def start_context() -> Any:
    # never a plain fork: threads of the parent's libraries would be missing in the child
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if forks else "spawn")


def work(pipe: Connection, output: str, setup: Callable[..., None], arguments: Any) -> None:
    """What a worker does: tasks, until the other end of the pipe is closed."""
    gc.freeze()  # what is shared with the server stays shared: nothing looks at it again
    # Ctrl-C goes to all processes of a terminal: the parent tells its workers what to do about it.
    # So does Slurm's SIGUSR1, and a batch system's SIGTERM.
    for number in TOLD:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD)  # the server has them blocked
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    with suppress(OSError):  # both ends have it open: it goes with them, however they end
        Path(output).unlink()
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.stdout = open(1, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    faulthandler.enable(2)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    setup(*arguments)
    tasks: SimpleQueue[bytes] = SimpleQueue()
    stopped = threading.Event()

    def listen() -> None:
        # In a thread, so that a stop is heard, and the parent's death, in the middle of a task.
        while True:
            try:
                kind, value = pipe.recv()
            except (EOFError, OSError):
                os._exit(0)
            if kind == "stop":
                stopped.set()
            else:
                stopped.clear()
                tasks.put(value)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        message: tuple[str, Any]
        try:
            function, given = pickle.loads(tasks.get())
            pipe.send(("began", None))
            result = function(
                *given, send=lambda value: pipe.send(("sent", value)), stop=stopped.is_set
            )
            message = "done", result
        except Exception as error:
            traceback.print_exc()
            message = "failed", f"{type(error).__name__}: {error}"
        sys.stdout.flush()
        sys.stderr.flush()
        pipe.send(message)

"""A worker process: its start, and its tasks until the parent's pipe closes."""

import faulthandler
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

STOP_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n)]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


# torch's optimizers import its compiler at their first step, which costs a second in each worker
PRELOAD = ("optbench.sweeps.worker", "torch._dynamo")


def prepare(device: str) -> None:
    """Begin to import what workers need once for all of them, if there is a fork server.

    Call this early: the imports take seconds, in which the caller can do something else. device:
    the configured one. With a GPU each worker imports for itself, since CUDA forbids forks.
    """
    context: Any = start_context()
    gpus = device != "cpu" and Path("/proc/driver/nvidia").exists()
    if context.get_start_method() == "forkserver" and not gpus:
        context.set_forkserver_preload(list(PRELOAD))
        ensure_server()


def ensure_server() -> None:
    """Start the server that forks the workers, unless it runs already.

    The server has all interrupts blocked, since a Ctrl-C during its imports would end it.
    """
    resource_tracker.ensure_running()  # first, since its start unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        with clean_start():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def clean_start() -> Iterator[None]:
    """Let processes that start within have one thread, and not our main module.

    Libraries read the number of threads from the environment at their first import. The main module
    may be a user's script, which each new process would import, and so run again.
    """
    kept, main = os.environ.copy(), sys.modules["__main__"]
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for key in THREAD_VARIABLES:
            del os.environ[key]
            if key in kept:
                os.environ[key] = kept[key]


def start_context() -> Any:
    # never a plain fork, which would lack the threads of the parent's libraries
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if forks else "spawn")


def run_tasks(pipe: Connection, output: str, setup: Callable[..., None], arguments: Any) -> None:
    """Run tasks in a worker until the parent's end of the pipe closes."""
    gc.freeze()  # the collector then skips the memory that is shared with the server
    # Ctrl-C, Slurm's SIGUSR1 and a batch system's SIGTERM go to all processes; workers ignore them,
    # since the parent tells its workers when to stop
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the server blocked them
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    with suppress(OSError):  # both processes have the file open; it is gone when both end
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
        # a thread, so that a stop or the parent's death is noticed in the middle of a task
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

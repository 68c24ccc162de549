"""A pool of worker processes that start once, take tasks in turn, and may die.

A task is a function that both sides can import, with its arguments. The pool does not know what
tasks do. A worker that dies or hangs is reported with its last output, and replaced.

No library does this. With pebble 5.2 a `kill -9` of an idle worker breaks the whole pool, workers
outlive a killed parent, a time limit does not tell whose output to read, and a task can neither
report nor be stopped.
"""

import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from time import monotonic, sleep
from typing import Any, NamedTuple

from optbench.sweeps.worker_process import clean_start, ensure_server, run_tasks, start_context

TICK_SECONDS = 0.2  # between two checks of signals and time limits
MAX_LAST_LINES = 12  # of a dead worker's output, in the error message


class Task(NamedTuple):
    """A call `function(*arguments, send=..., stop=...)` in a worker.

    `send` reports a value; `stop()` is true once the task must end. key: names the task in events.
    """

    key: Any
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Event(NamedTuple):
    """An event of a task: started, sent, printed, done, failed or died.

    value: what was sent or printed, the result, or why the task failed or its worker died.
    """

    key: Any
    kind: str
    value: Any = None


@dataclass
class Worker:
    """A process, with our end of its pipe, the file of its output, and its task."""

    number: int  # from 0; a replacement has the dead worker's number
    process: Any
    pipe: Connection
    output: Any
    task: Task | None = None
    since: float | None = None  # when the task began; None while the worker starts
    read: int = 0  # bytes of the output that were passed on
    late: bool = field(default=False)

    def printed(self) -> str:
        """Return the output since the last call."""
        self.output.seek(self.read)
        text: bytes = self.output.read()
        self.read += len(text)
        return text.decode("utf-8", "replace")


class Pool:
    """A pool of worker processes that stay between tasks.

    size: the number of workers. setup: called first in each worker, with its number and arguments.
    """

    def __init__(self, size: int, setup: Callable[..., None], *arguments: Any) -> None:
        self.size, self.setup = size, (setup, arguments)
        self._context = start_context()
        self._workers: list[Worker] = []

    def _start(self) -> Worker:
        ours, theirs = self._context.Pipe()
        handle, path = tempfile.mkstemp(prefix="optbench-worker-")  # the worker unlinks it
        output = os.fdopen(handle, "rb", buffering=0)
        if self._context.get_start_method() == "forkserver":
            ensure_server()
        setup, arguments = self.setup
        number = min(set(range(self.size)) - {worker.number for worker in self._workers})
        given = (theirs, path, setup, (number, *arguments))
        process = self._context.Process(target=run_tasks, args=given)
        with clean_start():
            process.start()
        theirs.close()
        return Worker(number, process, ours, output)

    def run(
        self,
        next_task: Callable[[], Task | None],
        *,
        time_limit: float | None = None,
        stop: Callable[[], Any] = lambda: False,
        waiting: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Yield events until no task is left.

        next_task: called when a worker is free; None means that no task is ready. The iterator ends
        at None if no task runs.
        time_limit: seconds for each task; a worker that needs longer is killed.
        stop: once true, running tasks are told to end, and no other begins.
        waiting: whether a task may be ready later, although none runs here.
        Leaving this iterator early kills the workers.
        """
        told = False
        try:
            while True:
                if stop() and not told:
                    told = True
                    for worker in self._busy():
                        _send(worker, ("stop", None))
                while not told and len(self._busy()) < self.size and (task := next_task()):
                    yield self._give(task)
                if not self._busy():
                    if told or not waiting():
                        return
                    sleep(TICK_SECONDS)
                    continue
                yield from self._listen(time_limit)
        except BaseException:
            self.close(at_once=True)
            raise

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.task is not None]

    def _give(self, task: Task) -> Event:
        free = [worker for worker in self._workers if worker.task is None]
        if not free:
            free.append(self._start())
            self._workers += free
        worker = free[0]
        worker.task, worker.since, worker.late = task, None, False
        _send(worker, ("task", pickle.dumps((task.function, task.arguments))))
        return Event(task.key, "started")

    def _listen(self, time_limit: float | None) -> Iterator[Event]:
        """Yield the events of busy workers within a tick."""
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes), TICK_SECONDS):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                kind, value = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._bury(worker, time_limit)
                continue
            if worker.task is None:
                continue
            key = worker.task.key
            if kind == "began":
                worker.since = monotonic()
                continue
            if kind in ("done", "failed"):
                worker.task = None
                if text := worker.printed():
                    yield Event(key, "printed", text)
            yield Event(key, kind, value)
        for worker in self._busy():
            waited = 0.0 if worker.since is None else monotonic() - worker.since
            if time_limit is not None and waited > time_limit:
                # SIGABRT makes faulthandler write where the task hangs; SIGKILL if that fails
                number = signal.SIGKILL if waited > time_limit + 2 else signal.SIGABRT
                if number == signal.SIGKILL or not worker.late:
                    os.kill(worker.process.pid, number)
                worker.late = True

    def _bury(self, worker: Worker, time_limit: float | None) -> Iterator[Event]:
        self._workers.remove(worker)
        worker.process.join(5)
        code, words = worker.process.exitcode, worker.printed().strip()
        worker.pipe.close()
        worker.output.close()
        if worker.task is None:
            if words:  # it died before its first task, as the next worker would
                raise RuntimeError(f"a worker process could not start:\n{words}")
            return
        reason = f"the time limit of {time_limit:g} s" if worker.late else _describe_exit(code)
        if words:
            reason = "\n".join([f"{reason}; its last words:", *_last_lines(words.splitlines())])
        yield Event(worker.task.key, "died", reason)

    def close(self, *, at_once: bool = False) -> None:
        """End the workers, or kill them immediately."""
        for worker in self._workers:
            if at_once:
                worker.process.kill()
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(5)
            worker.process.kill()
            worker.output.close()
        self._workers.clear()


def _send(worker: Worker, message: tuple[str, Any]) -> None:
    with suppress(OSError):  # `_listen` notices a dead worker
        worker.pipe.send(message)


def _last_lines(lines: list[str]) -> list[str]:
    """Return the last lines of output, or after a crash the main thread's stack."""
    # faulthandler writes the newest thread first, and the main one last
    dumps = [index for index, line in enumerate(lines) if "(most recent call first)" in line]
    if dumps:
        return lines[dumps[-1] :][:MAX_LAST_LINES]
    return lines[-MAX_LAST_LINES:]


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit status {code}"

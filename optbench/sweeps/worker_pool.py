"""A pool of worker processes: they start once, take tasks one by one, and may die without harm.

A task is a function that both sides can import, and its arguments. Nothing here knows what the
tasks do; a worker that ends or hangs is reported with its last words, and replaced.

No library takes its place. With pebble 5.2 a `kill -9` of an idle worker breaks the whole pool,
workers outlive a parent that is killed, a time limit does not tell whose last words to read, and a
task can neither report nor be told to stop.
"""

import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from time import monotonic
from typing import Any, NamedTuple

from optbench.sweeps.worker_process import plain, serve, start_context, work

TICK = 0.2  # seconds between two looks at signals and time limits
LAST_WORDS = 12  # lines


class Task(NamedTuple):
    """`function(*arguments, send=..., stop=...)`: `send` reports, `stop()` says that it must end.

    key: what the events of this task are known by.
    """

    key: Any
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Event(NamedTuple):
    """kind: started, sent (value: what), printed (text), done (result), failed or died (reason)."""

    key: Any
    kind: str
    value: Any = None


@dataclass
class Worker:
    """One process: our end of its pipe, the file of what it prints, and its task."""

    number: int  # from 0; one that takes a dead worker's place has its number
    process: Any
    pipe: Connection
    output: Any
    task: Task | None = None
    since: float | None = None  # when the task began; a worker that is starting has none
    read: int = 0  # bytes of the output that have been passed on
    late: bool = field(default=False)

    def printed(self) -> str:
        """What it has printed since the last time."""
        self.output.seek(self.read)
        text: bytes = self.output.read()
        self.read += len(text)
        return text.decode("utf-8", "replace")


class Pool:
    """Worker processes that stay.

    size: how many. setup: called first in each of them, with its number (from 0) and its arguments.
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
            serve()
        setup, arguments = self.setup
        number = min(set(range(self.size)) - {worker.number for worker in self._workers})
        given = (theirs, path, setup, (number, *arguments))
        process = self._context.Process(target=work, args=given)
        with plain():
            process.start()
        theirs.close()
        return Worker(number, process, ours, output)

    def run(
        self,
        next_task: Callable[[], Task | None],
        *,
        time_limit: float | None = None,
        stop: Callable[[], Any] = lambda: False,
    ) -> Iterator[Event]:
        """Yield what happens until there is no task left.

        next_task: called when a worker is free; None where there is nothing to do at present. The
        end is reached when it gives None while no task runs.
        time_limit: seconds for each task; a worker that needs longer is ended.
        stop: once true, running tasks are told to end and no other is begun.
        Whoever leaves this iterator early ends the workers, at once.
        """
        told = False
        try:
            while True:
                if stop() and not told:
                    told = True
                    for worker in self._busy():
                        _tell(worker, ("stop", None))
                while not told and len(self._busy()) < self.size and (task := next_task()):
                    yield self._give(task)
                if not self._busy():
                    return
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
        _tell(worker, ("task", pickle.dumps((task.function, task.arguments))))
        return Event(task.key, "started")

    def _listen(self, time_limit: float | None) -> Iterator[Event]:
        """What the busy workers say within a tick."""
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes), TICK):
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
                # faulthandler writes where it hangs, unless nothing in it runs any more
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
            if words:  # it never came to its first task, and the next would not either
                raise RuntimeError(f"a worker process could not start:\n{words}")
            return
        reason = f"the time limit of {time_limit:g} s" if worker.late else _how(code)
        if words:
            reason = "\n".join([f"{reason}; its last words:", *_last(words.splitlines())])
        yield Event(worker.task.key, "died", reason)

    def close(self, *, at_once: bool = False) -> None:
        """End the workers."""
        for worker in self._workers:
            if at_once:
                worker.process.kill()
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(5)
            worker.process.kill()
            worker.output.close()
        self._workers.clear()


def _tell(worker: Worker, message: tuple[str, Any]) -> None:
    with suppress(OSError):  # it is dead, which is seen when it is listened to
        worker.pipe.send(message)


def _last(lines: list[str]) -> list[str]:
    """The end of what was printed; of a crash, where it happened, which stands first."""
    # faulthandler goes from the newest thread to the main one
    dumps = [index for index, line in enumerate(lines) if "(most recent call first)" in line]
    if dumps:
        return lines[dumps[-1] :][:LAST_WORDS]
    return lines[-LAST_WORDS:]


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit status {code}"

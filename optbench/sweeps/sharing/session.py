"""This process as a worker of a shared study: its heartbeat, and its claims."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from optbench import __version__
from optbench.common.console import say
from optbench.common.text import count
from optbench.formats import job_list, shared_study
from optbench.runs import claims
from optbench.runs.claims import CLAIM_FOLDER, Claim, Heartbeats

STALE_SECONDS = 60.0  # the default of --stale
BEATS_PER_STALE = 12  # heartbeats in the time after which a worker counts as gone
POLL_SECONDS = 1.0  # between two looks at what others have done
FILE_WAIT_SECONDS = 0.05  # between two tries to get a study's own files
MARGIN_SECONDS = 30.0  # the end of --for, to write checkpoints in; a tenth of shorter times
LATE_WORDS = (
    "this worker was silent for more than {:g} s, and another one has taken over its {}: it stops, "
    "and what it had not written is lost. `optbench work {}` lets it help again"
)
TIME_WORDS = "the time is up: unfinished runs are at their checkpoints. `optbench work {}` goes on"


class Session:
    """A worker's part in a shared study.

    trains: False for a process that only waits for what others do, such as the one that has given
    a study to a scheduler.
    """

    def __init__(
        self,
        *,
        stale: float = STALE_SECONDS,
        seconds: float | None = None,
        parent: int | None = None,
        call: str | None = None,
        trains: bool = True,
    ) -> None:
        """Begin with the options of `optbench work`.

        stale: seconds without a heartbeat after which another worker's runs are taken over.
        seconds: after which this worker ends. parent: the process with which this worker ends.
        call: the only call to work for, since a scheduler may start a worker after the study's end.
        """
        self.call = call
        self.stale, self.trains, self.parent = stale, trains, parent
        self.every = stale / BEATS_PER_STALE
        self.poll = min(POLL_SECONDS, self.every)
        margin = min(MARGIN_SECONDS, (seconds or 0) / 10)
        self.until = None if seconds is None else monotonic() + seconds - margin
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:4]}"
        self.held: dict[str, Claim] = {}  # by run id
        self.lost: list[str] = []  # run ids that others have taken over
        self.begins = False  # whether this worker began the call
        self.folder = self.results = Path()
        self.outcomes: dict[str, dict[str, Any]] = {}  # of others in this call, by run id
        self.taken_over: set[str] = set()  # run ids of claims that were taken over
        self.heartbeats: Heartbeats | None = None
        self.watch: Callable[[], None] = lambda: None  # called while this process only waits
        self.at_end: Callable[[], object] = lambda: None
        self._read: dict[Path, int] = {}  # bytes of the lists of others
        self._looked = 0.0
        self._ended = threading.Event()
        self._guard = threading.Lock()

    # who it is

    def holder(self) -> dict[str, Any]:
        """Return who this worker is, for its claims."""
        pid = os.getpid()
        me = {"worker": self.worker, "host": socket.gethostname(), "pid": pid}
        return me | {
            "place": claims.place(), "started": claims.started(pid), "every": self.every,
        }  # fmt: skip

    def info(self) -> dict[str, Any]:
        """Return who this worker is, for its list."""
        found = self.holder() | {"optbench": __version__, "trains": self.trains}
        for key, name in (
            ("slurm_job", "SLURM_JOB_ID"), ("slurm_array", "SLURM_ARRAY_JOB_ID"),
            ("slurm_task", "SLURM_ARRAY_TASK_ID"), ("gpus", "CUDA_VISIBLE_DEVICES"),
        ):  # fmt: skip
            if os.environ.get(name):
                found[key] = os.environ[name]
        return found

    # the beginning and the end

    @property
    def claim_folder(self) -> Path:
        """The folder of the claims and heartbeats."""
        return self.results / CLAIM_FOLDER

    def attach(self, folder: Path, results: Path) -> None:
        """Begin to work in a study's folder: start the heartbeat. Raises OSError."""
        self.folder, self.results = folder, results
        self.claim_folder.mkdir(parents=True, exist_ok=True)
        self.heartbeats = Heartbeats(self.claim_folder, self.stale)
        claims.beat(self.claim_folder, self.worker, 0)
        threading.Thread(target=self._beat, daemon=True).start()

    def detach(self) -> None:
        """Leave the study: give back all claims, and note that in this worker's list."""
        if self.heartbeats is None:
            return
        self.at_end()
        self._ended.set()
        for run_id in list(self.held):
            self.release(run_id)
        with suppress(OSError):
            claims.beat_file(self.claim_folder, self.worker).unlink(missing_ok=True)
        own = job_list.shared.own_list
        if own is not None and own.exists():
            with suppress(OSError):
                shared_study.append(own, shared_study.LEFT)
        job_list.shared.leave()
        self.heartbeats = None

    def _beat(self) -> None:
        number = 0
        while not self._ended.wait(self.every):
            number += 1
            with suppress(OSError):  # a folder that is gone for a moment, as on a network
                claims.beat(self.claim_folder, self.worker, number)
            for run_id, claim in list(self.held.items()):
                with suppress(OSError):
                    if not claim.holds() and run_id in self.held:
                        self.lost.append(run_id)
            if self.parent is not None and os.getppid() != self.parent:
                self.parent = None
                os.kill(os.getpid(), signal.SIGTERM)

    # while it works

    def ending(self) -> bool:
        """Return whether this worker has to end: its time is up, or it came back too late."""
        return bool(self.lost) or self.is_time_up()

    def is_time_up(self) -> bool:
        """Return whether the time of `--for` is over."""
        return self.until is not None and monotonic() > self.until

    def last_words(self) -> tuple[str, int] | None:
        """Return why this worker ends before the study does, and its exit status; or None."""
        if self.lost:
            runs = count(len(set(self.lost)), "run")
            return LATE_WORDS.format(self.stale, runs, self.folder), 1
        return (TIME_WORDS.format(self.folder), 0) if self.is_time_up() else None

    def claim(self, run_id: str, label: str) -> Claim | None:
        """Claim a run; None if another worker has it. label: names the job to users."""
        assert self.heartbeats is not None
        if not self.trains:
            return None
        holder = self.holder() | {"job": label}
        found = claims.take(self.claim_folder, run_id, holder, self.heartbeats.is_silent)
        if found is not None:
            self.held[run_id] = found
            if found.generation > 1:
                self.taken_over.add(run_id)
        return found

    def release(self, run_id: str) -> None:
        """Give a run's claim back."""
        if claim := self.held.pop(run_id, None):
            claim.release()

    def is_due(self) -> bool:
        """Return whether it is time for another look at what others have done."""
        return monotonic() - self._looked >= self.poll

    def look(self) -> None:
        """Read what other workers have written about jobs of this call."""
        self._looked = monotonic()
        call = job_list.shared.call
        if call is None:
            return
        for path in shared_study.list_files(self.folder, call["id"]):
            if path == job_list.shared.own_list:
                continue
            with suppress(OSError):
                self._read_on(path)

    def _read_on(self, path: Path) -> None:
        begun = self._read.get(path, 0)
        with path.open("rb") as file:
            file.seek(begun)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]  # the rest is being written
        self._read[path] = begun + len(whole)
        for line in shared_study.parse_lines(whole):
            if "run_id" in line and line.get("status") in ("completed", "diverged", "failed"):
                self.outcomes[str(line["run_id"])] = line

    def claimed(self) -> dict[str, int]:
        """Return the generation of each claim in the folder by run id."""
        return claims.newest_of(self.claim_folder)

    def is_silent(self, run_id: str, generation: int) -> bool:
        """Return whether the holder of a claim is gone."""
        assert self.heartbeats is not None
        holder = claims.holder_of(self.claim_folder, run_id, generation)
        return self.heartbeats.is_silent({"worker": f"{run_id}.{generation}"} | holder)

    @contextmanager
    def files(self) -> Iterator[None]:
        """Hold the lock on the study's own files: the list of jobs, and the manifest."""
        with self._guard, self._held(f"files-{self.key}"):
            yield

    @property
    def key(self) -> str:
        """The name of this study among the claims."""
        return study_key(self.folder, self.results)

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        assert self.heartbeats is not None
        while True:
            found = claims.take(self.claim_folder, name, self.holder(), self.heartbeats.is_silent)
            if found is not None:
                break
            sleep(FILE_WAIT_SECONDS)
        try:
            yield
        finally:
            found.release()

    def first(self, what: str) -> Claim | None:
        """Claim a task that one worker does for all, such as the figures.

        Returns None if another worker has the task.
        """
        assert self.heartbeats is not None
        call = job_list.shared.call or {}
        name = f"{what}-{self.key}-{call.get('id', '')}"
        return claims.take(self.claim_folder, name, self.holder(), self.heartbeats.is_silent)


def study_key(folder: Path, results: Path) -> str:
    """Return a name for a study that is the same on all machines."""
    import hashlib

    with suppress(ValueError):
        folder = folder.absolute().relative_to(results.absolute())
    return hashlib.sha256(folder.as_posix().encode()).hexdigest()[:12]


class Sessions:
    """The session of this process; None in a process that shares no study."""

    current: Session | None = None


sessions = Sessions()


@contextmanager
def own_files() -> Iterator[None]:
    """Hold the lock on the study's own files, if the study is shared."""
    if (session := sessions.current) is None or session.heartbeats is None:
        yield
    else:
        with session.files():
            yield


def end() -> None:
    """Leave the shared study, at the end of the process's command."""
    if sessions.current is not None:
        sessions.current.detach()
        sessions.current = None


def say_last_words(session: Session) -> int | None:
    """Say why this worker ends early, and return its exit status; None if it does not."""
    words = session.last_words()
    if words is None:
        return None
    say(words[0], error=bool(words[1]))
    return words[1]

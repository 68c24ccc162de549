"""What Slurm and Ray have in common: workers that are started elsewhere, and waited for here.

The process of the command trains nothing. It composes the same jobs as the workers, waits for their
results, and so leads a study through its phases and draws its figures at the end.
"""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from optbench.common.console import say
from optbench.common.errors import UserError
from optbench.formats import job_list
from optbench.sweeps.sharing.session import Session, sessions

CHECK_SECONDS = 5.0  # between two questions to the scheduler
SILENT_CHECKS = 2  # in a row without a worker, before the command gives up


class Cluster(ABC):
    """Workers on a cluster, for one command."""

    def __init__(self, folder: Path) -> None:
        """folder: of the sweep, which all machines see at the same place."""
        self.folder = folder.absolute()
        self.begun = False
        self._checked, self._missing = 0.0, 0

    @abstractmethod
    def submit(self) -> str:
        """Start the workers, and return a sentence about them. Raises `UserError`."""

    @abstractmethod
    def alive(self) -> bool | None:
        """Return whether a worker is queued or running; None if that is not known."""

    @abstractmethod
    def cancel(self, *, waiting_only: bool = False) -> None:
        """End the workers, which write checkpoints first; or only those that have not begun."""

    @abstractmethod
    def ended_words(self) -> str:
        """Return what to do if all workers have ended before the study is whole."""

    def watch(self) -> None:
        """Start the workers at the first call, and later raise `UserError` if all have ended."""
        if not self.begun:
            self.begun = True
            say(self.submit())
            self._checked = monotonic()
            return
        if monotonic() - self._checked < CHECK_SECONDS:
            return
        self._checked = monotonic()
        self._missing = self._missing + 1 if self.alive() is False else 0
        if self._missing >= SILENT_CHECKS:
            raise UserError(self.ended_words())


def command_of(session: Session, folder: Path, options: Sequence[str]) -> list[str]:
    """Return the command of a worker for the call that this process has begun or joined."""
    call = (job_list.shared.call or {}).get("id", "")
    words = [sys.executable, "-m", "optbench", "work", str(folder), "--stale"]
    return [*words, f"{session.stale:g}", "--call", call, *options]


def lead(cluster: Cluster, launch: Callable[[], Any], *, wait: bool) -> Any:
    """Start the workers when a job is left for them, and wait for the jobs; return their results.

    wait: False ends this command once the workers are submitted.
    """
    session = sessions.current
    assert session is not None

    def watch() -> None:
        first = not cluster.begun
        cluster.watch()
        if first and not wait:
            say(f"`optbench status {cluster.folder}` shows how far they are")
            sys.exit(0)

    session.watch = watch
    session.at_end = lambda: cluster.cancel(waiting_only=True) if cluster.begun and wait else None
    try:
        return launch()
    except SystemExit:
        if cluster.begun and wait:
            cluster.cancel()
        raise


def working_folder() -> str:
    """Return the folder that workers start in, where the user's own modules are found."""
    return os.getcwd()  # noqa: PTH109

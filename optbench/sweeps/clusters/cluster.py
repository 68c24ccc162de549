"""The common part of Slurm and Ray: start workers elsewhere, and wait for them.

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
SILENT_CHECKS = 2  # answers in a row without a worker, after which the command gives up


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
        """End the workers, which write checkpoints first.

        waiting_only: end only the workers that have not begun.
        """

    @abstractmethod
    def ended_words(self) -> str:
        """Return what to do if all workers have ended before the study is whole."""

    def watch(self) -> None:
        """Start the workers at the first call; later raise `UserError` if all ended."""
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
    """Return the command that starts a worker for this process's call."""
    call = (job_list.shared.call or {}).get("id", "")
    words = [sys.executable, "-m", "optbench", "work", str(folder), "--stale"]
    return [*words, f"{session.stale:g}", "--call", call, *options]


def lead(cluster: Cluster, launch: Callable[[], Any], *, wait: bool) -> Any:
    """Start workers once a job is left for them, and return the jobs' results.

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

"""Ray: tasks that work through a study, on a cluster of Ray's or on this machine."""

import os
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from optbench.common.errors import UserError
from optbench.common.text import count
from optbench.sweeps.clusters.cluster import Cluster, command_of, working_folder
from optbench.sweeps.sharing.session import Session

CURRENT = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
CONNECT_SECONDS = 5.0
ENDED = (
    "all tasks of Ray have ended, and the study is not whole: {}. The same command starts them "
    "again, and goes on from the checkpoints"
)


def work(command: list[str], folder: str) -> int:
    """Run a worker in a process of its own, and return its exit status.

    The worker writes checkpoints and ends if Ray ends this process.
    """
    given = [*command, "--parent", str(os.getpid())]
    return subprocess.run(given, cwd=folder, check=False).returncode


class Ray(Cluster):
    """Tasks of Ray that work through a study."""

    def __init__(self, session: Session, folder: Path, options: Mapping[str, Any]) -> None:
        """options: those of `conf/hydra/launcher/ray.yaml`."""
        super().__init__(folder)
        self.session, self.options = session, options
        self.ray: Any = None
        self.tasks: list[Any] = []

    def submit(self) -> str:
        """Start a task for each worker."""
        ray, options = import_ray(), self.options
        where = options["address"]
        try:
            check_answers(where)
            # without an address Ray looks for the last cluster of this machine, alive or not
            ray.init(
                address=where or "local", log_to_driver=False, include_dashboard=False,
                configure_logging=False, ignore_reinit_error=True,
            )  # fmt: skip
        except Exception as error:  # of several kinds, also of the network
            raise UserError(
                f"there is no Ray cluster at {where or 'this machine'}: {error}. `ray start "
                f"--head` starts one; hydra.launcher.address=null uses this machine alone"
            ) from error
        self.ray = ray
        cpus, gpus = int(options["cpus"]), options["gpus"] or 0
        tasks = options["jobs"] or self._fitting(cpus, gpus)
        workers = [] if gpus else ["--workers", str(cpus)]
        command = command_of(self.session, self.folder, workers)
        remote = ray.remote(work).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=int(options["retries"]), name="optbench work"
        )
        self.tasks = [remote.remote(command, working_folder()) for _ in range(tasks)]
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        return f"{count(tasks, 'task')} on a Ray cluster of {count(nodes, 'node')}"

    def _fitting(self, cpus: int, gpus: float) -> int:
        """Return how many tasks the cluster can run at once."""
        found = self.ray.cluster_resources()
        each = [int(found.get("CPU", 0) // cpus)]
        each += [int(found.get("GPU", 0) // gpus)] if gpus else []
        if not min(each):
            raise UserError(
                f"no task fits into the Ray cluster: a task asks for {count(cpus, 'CPU')} and "
                f"{gpus:g} GPUs, and the cluster has {found.get('CPU', 0):g} and "
                f"{found.get('GPU', 0):g}"
            )
        return min(each)

    def alive(self) -> bool | None:
        """Return whether a task is queued or running."""
        with suppress(Exception):  # the cluster may be gone for a moment
            _, running = self.ray.wait(self.tasks, num_returns=len(self.tasks), timeout=0)
            return bool(running)
        return None

    def cancel(self, *, waiting_only: bool = False) -> None:
        """Cancel all tasks, whose workers then write checkpoints and end.

        waiting_only: let the workers end by themselves, since the study has ended.
        """
        if self.ray is None or not self.ray.is_initialized():
            return
        with suppress(Exception):  # the cluster may be gone
            for task in self.tasks:
                self.ray.cancel(task, force=not waiting_only)
        with suppress(Exception):
            if waiting_only:  # a cluster of this process alone would end with it
                self.ray.wait(self.tasks, num_returns=len(self.tasks), timeout=30)
            self.ray.shutdown()

    def ended_words(self) -> str:
        """Return how the tasks ended."""
        errors = []
        for task in self.tasks:
            try:
                if status := self.ray.get(task, timeout=1):
                    errors.append(f"exit status {status}")
            except Exception as error:
                errors.append(str(error).strip().splitlines()[0])
        return ENDED.format("; ".join(dict.fromkeys(errors)) or "without an error")


def check_answers(address: str | None) -> None:
    """Raise OSError if nothing listens at a cluster's address: Ray would try for minutes.

    address: "host:port", also behind "ray://"; "auto" is the cluster that Ray knows of, as in
    `ray.init`.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS")
        if address is None:
            with suppress(OSError):  # without the file Ray itself says that it knows of none
                address = CURRENT.read_text("utf-8").strip()
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def import_ray() -> Any:
    """Return Ray. Raise `UserError` without it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would ask a server on the network
    try:
        import ray
    except ImportError as error:
        raise UserError("hydra/launcher=ray needs Ray: pip install 'optbench[ray]'") from error
    return ray

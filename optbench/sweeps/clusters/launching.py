"""The common part of the Hydra launchers for clusters.

This module imports little, since Hydra loads the launchers at every start.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from optbench.common.imports import uncollected


class ClusterLauncher(Launcher):
    """A launcher that starts workers on a cluster, and waits for their results."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.cluster: Any = None

    @abstractmethod
    def make(self, session: Any, folder: Path) -> Any:
        """Return the cluster of this launcher. Raises `UserError` for bad options."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what a launch needs. Hydra calls `setup` before checking and launching."""
        from optbench.sweeps.sweep_loader import SweepLoader

        hydra_context.config_loader = SweepLoader.of(hydra_context.config_loader)
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        """Wait for the jobs of one batch, and return their results in the same order."""
        with uncollected():
            from optbench.sweeps import callback, launcher
            from optbench.sweeps.clusters.cluster import lead
            from optbench.sweeps.sharing.session import sessions

        with callback.exits():
            if self.cluster is None:
                folder = Path(self.config.hydra.sweep.dir)
                self.cluster = self.make(sessions.current, folder)
            return lead(
                self.cluster,
                lambda: launcher.launch(
                    self.context, self.config, self.task, job_overrides, initial_job_idx
                ),
                wait=bool(self.options.get("wait", True)),
            )

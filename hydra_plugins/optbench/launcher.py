"""`hydra/launcher=workers`: run a sweep's jobs in worker processes that stay.

Hydra requires the class here. `optbench.sweeps.launcher` does the work.
"""

from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from optbench.common.imports import uncollected


class WorkersLauncher(Launcher):
    """A launcher that runs jobs in worker processes, which share the cores or GPUs."""

    def __init__(self, workers: int | None = None, time_limit: float | None = None) -> None:
        self.workers, self.time_limit = workers, time_limit

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Prepare the workers. Hydra calls `setup` before checking and launching."""
        from optbench.sweeps import worker_process
        from optbench.sweeps.sweep_loader import SweepLoader

        hydra_context.config_loader = SweepLoader.of(hydra_context.config_loader)
        self.context, self.task, self.config = hydra_context, task_function, config
        worker_process.prepare(str(config.device))  # `callback` has done so before

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        """Run the jobs of one batch; return their `JobReturn` objects in the same order."""
        with uncollected():
            from optbench.sweeps import callback, concurrency, launcher

        with callback.exits():
            concurrency.check(self.workers, self.time_limit)
        return launcher.launch(
            self.context,
            self.config,
            self.task,
            job_overrides,
            initial_job_idx,
            workers=self.workers,
            time_limit=self.time_limit,
        )

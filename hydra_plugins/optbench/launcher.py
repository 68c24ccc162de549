"""`hydra/launcher=workers`: the jobs of a sweep in processes that stay.

Hydra asks that a launcher lives here; what it does is in `optbench.sweeps.launcher`.
"""

from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

# torch's optimizers import its compiler at their first step; a worker for itself needs a second
PRELOAD = ("optbench.sweeps.worker", "torch._dynamo")


class WorkersLauncher(Launcher):
    """A process for each core, each with its share of threads; on GPUs one for each of them."""

    def __init__(self, workers: int | None = None, time_limit: float | None = None) -> None:
        self.workers, self.time_limit = workers, time_limit

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra before the sweep is checked and launched."""
        from optbench.sweeps.sweep_loader import SweepLoader

        hydra_context.config_loader = SweepLoader(hydra_context.config_loader)  # type: ignore
        self.context, self.task, self.config = hydra_context, task_function, config
        if str(config.device) == "cpu" or not Path("/proc/driver/nvidia").exists():
            from optbench.sweeps import worker_process

            worker_process.prepare(PRELOAD)  # while this process imports torch too

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        """Run the jobs of one batch; their `JobReturn` objects come in the same order."""
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

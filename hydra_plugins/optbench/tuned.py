"""`-m hydra/sweeper=tuned`: equal tuning budgets, then new seeds for the best.

Hydra requires the class here. `optbench.tuning` makes the decisions.
"""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class TunedSweeper(Sweeper):
    """A sweeper that runs the phases of a tuned study for all problems and optimizers."""

    def __init__(self, params: Any = None) -> None:
        self.params = params or {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Store the configuration and the launcher. Hydra calls `setup` before `sweep`."""
        self.study, self.context = config, hydra_context
        self.launch = (
            Plugins.instance()
            .instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )
            .launch
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study. Hydra ignores the returned value."""
        from optbench.tuning import study

        def compose(overrides: list[str]) -> DictConfig:
            return self.context.config_loader.load_sweep_config(self.study, overrides)

        params = [f"{key}={value}" for key, value in self.params.items()]
        return study.run(self.study, [*params, *arguments], compose, self.launch)

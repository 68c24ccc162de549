"""`hydra/sweeper=grid`: Hydra's own sweeper, with settings of one optimizer alone.

Hydra requires the class here. `optbench.sweeps.grid` makes the jobs.
"""

from hydra.core.override_parser.types import Override

from optbench.config.hydra_internals import basic_sweeper


class GridSweeper(basic_sweeper.BasicSweeper):  # Hydra may load the sweeper's module twice
    """A sweeper over all combinations, where own settings vary one optimizer alone."""

    def split_arguments(  # type: ignore[override]  # Hydra's is static, but called on an instance
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Return the jobs of the sweep in batches."""
        from optbench.sweeps import grid

        assert self.config is not None
        jobs = grid.expand(overrides, str(self.config.hydra.runtime.choices.get("optimizer")))
        return list(self.split_overrides_to_chunks(jobs, max_batch_size))

"""`hydra/sweeper=grid`: Hydra's own sweeper, with settings of one optimizer alone.

Hydra asks that a sweeper lives here; the jobs are made in `optbench.sweeps.grid`.
"""

from hydra.core.override_parser.types import Override

from optbench.config.hydra_internals import basic_sweeper


class GridSweeper(basic_sweeper.BasicSweeper):  # Hydra may have loaded its module anew
    """Runs all combinations of the values, of an optimizer's own settings those of its jobs."""

    def split_arguments(  # type: ignore[override]  # Hydra's is static, and called on an instance
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Return the jobs in batches."""
        from optbench.sweeps import grid

        assert self.config is not None
        jobs = grid.expand(overrides, str(self.config.hydra.runtime.choices.get("optimizer")))
        return list(self.split_overrides_to_chunks(jobs, max_batch_size))

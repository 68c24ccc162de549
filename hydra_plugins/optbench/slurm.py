"""`hydra/launcher=slurm`: Slurm arrays that work through a sweep or a study.

Hydra requires the class here. `optbench.sweeps.clusters` does the work.
"""

from pathlib import Path
from typing import Any

from optbench.sweeps.clusters.launching import ClusterLauncher


class SlurmLauncher(ClusterLauncher):
    """A launcher that starts workers by Slurm, and waits for their results."""

    def make(self, session: Any, folder: Path) -> Any:
        """Return the cluster."""
        from optbench.sweeps.clusters import options, slurm

        return slurm.Slurm(session, folder, options.slurm(self.options))

"""The provenance of a run for its `run.json`: versions, machine and commit."""

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from optbench import __version__
from optbench.common.machine import cpu_name

CHECKOUT = Path(__file__).resolve().parents[2]  # the git checkout of optbench, if there is one


def versions() -> dict[str, str]:
    """Return the versions on which the numbers of a run depend."""
    import numpy
    import torch

    return {
        "optbench": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


@cache
def machine(device: str) -> dict[str, str]:
    """Return the parts of the machine that change times; no names of host or user."""
    import torch

    found = {"system": f"{platform.system()} {platform.machine()}", "cpu": cpu_name()}
    found |= {"cores": str(os.cpu_count()), "allocator": allocator()}
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def allocator() -> str:
    """Return the preloaded library that allocates memory; "system" without one."""
    words = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    maps = Path("/proc/self/maps")
    loaded = maps.read_text("utf-8", "replace") if words and maps.exists() else ""
    found = (p.name for p in map(Path, words) if "malloc" in p.name and p.resolve().name in loaded)
    return next(found, "system")


@cache
def git_commit(root: Path) -> str | None:
    """Return a checkout's commit, with `-dirty` if files differ; None without git."""
    if not (root / ".git").exists():
        return None
    # not `describe --dirty`, which locks the index: the lock would outlive a killed process
    git = ["git", "--no-optional-locks", "-C", str(root)]
    try:
        commit, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout
            for words in (
                ["describe", "--always", "--abbrev=40"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + "-dirty" * bool(changes.strip())

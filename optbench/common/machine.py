"""What a machine is."""

import platform
from functools import cache
from pathlib import Path


@cache
def cpu_name() -> str:
    """Return the name of the CPU, with its maker."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

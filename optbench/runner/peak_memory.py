"""The most memory that a run held: of its whole process on a CPU, of its tensors on CUDA."""

from pathlib import Path

import torch

# of Linux: "5" sets the peak of the resident memory to the present (`man proc_pid_clear_refs`)
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset(device: torch.device) -> bool:
    """Begin to measure; return whether this machine can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        CLEAR.write_text("5")
        return "VmHWM:" in STATUS.read_text()
    except OSError:
        return False


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes since `reset`, which was able to measure."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return 1024 * int(STATUS.read_text().partition("VmHWM:")[2].split()[0])

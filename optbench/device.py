"""Where a run computes: the device, its threads, and which library multiplies matrices."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import parent_process
from pathlib import Path

import torch
from torch import nn

from optbench.errors import UserError
from optbench.progress import say

SHARE = 3 * 10**6  # products of weights and examples in a step that make a thread worth its while


def choose(
    name: str, *, num_threads: int | None = None, deterministic: bool = False
) -> torch.device:
    """The device of that name ("auto": CUDA where there is one), with torch set up for it.

    deterministic: refuse what is not repeatable, and take one thread unless told otherwise, since
    sums are rounded differently by each number of threads.
    """
    if num_threads is None and deterministic:
        num_threads = 1
    if num_threads is not None:
        torch.set_num_threads(num_threads)
        warn_of_threads(num_threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)  # imports torch's compiler: a second
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", str(name))
    if match is None:
        raise UserError(f"device must be auto, cpu, cuda or cuda:NUMBER, not {name!r}")
    if name == "cpu":
        route_products_to_onednn()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"device={name}: this machine has no usable CUDA device (or torch {torch.__version__} "
            f"was built without CUDA). Use device=cpu, or device=auto to take what there is."
        )
    if int(match[1] or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name}: this machine has {torch.cuda.device_count()} CUDA devices, "
            f"numbered from 0"
        )
    return torch.device(name)


@cache
def warn_of_threads(count: int) -> None:
    """Say once that there are more threads than cores: they wait for each other."""
    if count > cores() and parent_process() is None:  # a worker's parent has said so
        words = f"num_threads={count}, and there are {cores()} CPU cores: a run is slower with more"
        say(f"warning: {words} threads than cores", error=True)


@cache
def route_products_to_onednn() -> bool:
    """Let oneDNN multiply float32 matrices on the CPU where that is as accurate; True if it does.

    PyTorch's default on x86 is MKL, which is slow on CPUs of other makers. The switch that routes
    to oneDNN allows it bfloat16, which it takes where the CPU has matrix units for it (AMX), so a
    product is tried and the switch is taken back where it is not float32-accurate.
    """
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # missing in the stubs
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(128, 512, generator=generator) for _ in range(2))
    exact = a.double() @ b.double().T
    default = setting.fp32_precision
    error_before = (a @ b.T - exact).abs().max()
    setting.fp32_precision = "bf16"
    if (a @ b.T - exact).abs().max() <= 4 * error_before:
        return True
    setting.fp32_precision = default
    return False


@contextmanager
def enough_threads(model: nn.Module, examples: int) -> Iterator[int]:
    """Within, no more threads than a step on so many examples has work for: to wait for another
    one costs more than it gives. Yields how many threads there are.

    Only linear layers are counted as small: the weights of others are used many times.
    """
    before = torch.get_num_threads()
    weights = [p.shape for p in model.parameters()]
    if max(map(len, weights), default=0) <= 2:
        products = sum(shape.numel() for shape in weights) * examples
        torch.set_num_threads(min(before, max(1, products // SHARE)))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """CPU cores that this process may use: its affinity, and its control groups' quota."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0)
    count = count or os.cpu_count() or 1
    for quota in _quotas():
        count = min(count, quota)
    return max(1, int(count))


def _quotas() -> Iterator[float]:
    root = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()  # version 2; "max": none
        yield float(quota) / float(period)
    with suppress(OSError, ValueError):
        quota = (root / "cpu/cpu.cfs_quota_us").read_text()  # version 1; -1: none
        if int(quota) > 0:
            yield int(quota) / int((root / "cpu/cpu.cfs_period_us").read_text())

"""The device of a run, its threads, and the library that multiplies its matrices."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import torch
from torch import nn

from optbench.common.console import warn
from optbench.common.errors import UserError
from optbench.common.machine import cpu_name

MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # missing in the stubs
ONEDNN_PRECISION = "bf16"  # the value of `fp32_precision` that routes products to oneDNN
MULTIPLICATIONS_PER_THREAD = 3 * 10**6  # in a step; with fewer, waiting costs more than it saves


def choose(
    name: str, *, num_threads: int | None = None, deterministic: bool = False
) -> torch.device:
    """Set torch up for a device and return the device; "auto" prefers CUDA.

    deterministic: refuse operations that are not repeatable, and use one thread by default, since
    the number of threads changes how sums are rounded.
    """
    if num_threads is None and deterministic:
        num_threads = 1
    if num_threads is not None:
        torch.set_num_threads(num_threads)
        warn_of_threads(num_threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)  # takes a second: imports the compiler
    device = usable(name)
    if device.type == "cpu":
        route_products_to_onednn(on_intel=deterministic)
    return device


def usable(name: str) -> torch.device:
    """Return a device by its name; "auto" prefers CUDA. Raises UserError if there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", str(name))
    if match is None:
        raise UserError(f"device must be auto, cpu, cuda or cuda:NUMBER, not {name!r}")
    if name == "cpu":
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
    """Warn once where a run has more threads than cores, which wait for each other."""
    if count > cores() and parent_process() is None:  # a worker's parent has warned
        words = f"num_threads={count}, and there are {cores()} CPU cores: a run is slower with more"
        warn(f"{words} threads than cores")


def route_products_to_onednn(*, on_intel: bool = False) -> bool:
    """Route float32 products on the CPU to oneDNN where it pays; return whether it does.

    PyTorch's default on x86 is MKL, which is slow on CPUs of other makers than Intel: oneDNN was
    1.2 to 2.2 times as fast on two of AMD, and 0.9 times on one of Intel. No timing decides, whose
    noise would change how a machine's runs round. The switch to oneDNN also allows bfloat16, which
    oneDNN uses on CPUs with matrix units (AMX). A trial product decides whether oneDNN is as
    accurate as float32.

    on_intel: whether CPUs of Intel, too, take oneDNN, so that machines of all makers take one
    library.
    """
    taken = (on_intel or "intel" not in cpu_name().lower()) and _is_accurate()
    MATMUL.fp32_precision = ONEDNN_PRECISION if taken else _default_precision()
    return taken


def products() -> str:
    """Return the library of float32 products on the CPU: "oneDNN" or "default"."""
    return "oneDNN" if MATMUL.fp32_precision == ONEDNN_PRECISION else "default"


@cache
def _default_precision() -> str:
    """Return the value of the switch before optbench changed it."""
    return str(MATMUL.fp32_precision)


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    before, MATMUL.fp32_precision = MATMUL.fp32_precision, precision
    try:
        yield
    finally:
        MATMUL.fp32_precision = before


@cache
def _is_accurate() -> bool:
    """Return whether oneDNN rounds a product's sums as float32 does."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(128, 512, generator=generator) for _ in range(2))
    exact = a.double() @ b.double().T
    errors = []
    for precision in (_default_precision(), ONEDNN_PRECISION):
        with _matmul_precision(precision):
            errors.append((a @ b.T - exact).abs().max().item())
    return errors[1] <= 4 * errors[0]


@contextmanager
def enough_threads(model: nn.Module, examples: int) -> Iterator[int]:
    """Limit the threads to those that a step has work for, and yield their number.

    Models with more than linear layers keep all threads: they use each weight many times.
    """
    before = torch.get_num_threads()
    weights = [p.shape for p in model.parameters()]
    if max(map(len, weights), default=0) <= 2:
        products = sum(shape.numel() for shape in weights) * examples
        torch.set_num_threads(min(before, max(1, products // MULTIPLICATIONS_PER_THREAD)))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Return how many CPU cores the process's affinity and control groups allow."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0)
    count = count or os.cpu_count() or 1
    for quota in _quotas():
        count = min(count, quota)
    return max(1, int(count))


def _quotas() -> Iterator[float]:
    root = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()  # cgroup v2; "max": no quota
        yield float(quota) / float(period)
    with suppress(OSError, ValueError):
        quota = (root / "cpu/cpu.cfs_quota_us").read_text()  # cgroup v1; -1: no quota
        if int(quota) > 0:
            yield int(quota) / int((root / "cpu/cpu.cfs_period_us").read_text())

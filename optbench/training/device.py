"""Where a run computes: the device, its threads, and which library multiplies matrices."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import parent_process
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from optbench.common.console import say
from optbench.common.errors import UserError

PRODUCTS: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # missing in the stubs
ONEDNN = "bf16"  # the switch's name for products by oneDNN
# times as fast; it was 2.2 on an AMD CPU and 0.9 on an Intel one, so noise changes no answer
CLEARLY = 1.3
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
        route_products_to_onednn(timed=not deterministic)
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


def route_products_to_onednn(*, timed: bool = True) -> bool:
    """Let oneDNN multiply float32 matrices on the CPU where that is as accurate and faster; True if
    it does.

    PyTorch's default on x86 is MKL, which is slow on CPUs of other makers. The switch that routes
    to oneDNN allows it bfloat16, which it takes where the CPU has matrix units for it (AMX), so
    products are tried, and the switch stays where it was unless they are float32-accurate.

    timed: also only where they take clearly less time; else the accuracy alone decides, which comes
    out the same in every process.
    """
    taken = onednn_is_faster() if timed else _is_accurate()
    PRODUCTS.fp32_precision = ONEDNN if taken else _default()
    return taken


def onednn_is_faster() -> bool:
    """Whether oneDNN is as accurate and clearly faster: by a trial, or as another process says."""
    return _onednn_decision[-1] if _onednn_decision else _is_accurate() and _is_faster()


_onednn_decision: list[bool] = []


def set_onednn_decision(pays: bool) -> None:
    """Take another process's `onednn_is_faster` for ours: all runs of a sweep are rounded alike."""
    _onednn_decision.append(pays)


def products() -> str:
    """Who multiplies float32 matrices on the CPU: "oneDNN", or torch's "default"."""
    return "oneDNN" if PRODUCTS.fp32_precision == ONEDNN else "default"


@cache
def _default() -> str:
    """The switch as it was found."""
    return str(PRODUCTS.fp32_precision)


@contextmanager
def _products(precision: str) -> Iterator[None]:
    before, PRODUCTS.fp32_precision = PRODUCTS.fp32_precision, precision
    try:
        yield
    finally:
        PRODUCTS.fp32_precision = before


@cache
def _is_accurate() -> bool:
    """Whether oneDNN rounds a product's sums as float32 does."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(128, 512, generator=generator) for _ in range(2))
    exact = a.double() @ b.double().T
    errors = []
    for precision in (_default(), ONEDNN):
        with _products(precision):
            errors.append((a @ b.T - exact).abs().max().item())
    return errors[1] <= 4 * errors[0]


@cache
def _is_faster() -> bool:
    """Whether oneDNN multiplies a layer's matrices in clearly less time than the default."""
    x, w, out = torch.ones(128, 784), torch.ones(512, 784), torch.empty(128, 512)
    seconds: dict[str, list[float]] = {_default(): [], ONEDNN: []}
    for _ in range(8):  # in turn: what else the machine does falls on both
        for precision, own in seconds.items():
            with _products(precision):
                torch.mm(x, w.t(), out=out)  # the caches are alike
                begun = perf_counter()
                torch.mm(x, w.t(), out=out)
                own.append(perf_counter() - begun)
    return min(seconds[ONEDNN]) * CLEARLY < min(seconds[_default()])


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

"""The number of a sweep's worker processes and threads, and the pool of workers."""

import atexit
from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig

from optbench.common.errors import UserError
from optbench.sweeps import worker
from optbench.sweeps.worker_pool import Pool


def check(workers: Any, time_limit: Any) -> None:
    """Raise `UserError` for a bad setting of the launcher."""
    for key, value, least in (("workers", workers, 1), ("time_limit", time_limit, 0)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = key != "workers" or isinstance(value, int)
        if value is not None and not (number and whole and value >= least and value > 0):
            kind = "a whole number of processes" if key == "workers" else "a number of seconds"
            raise UserError(f"hydra.launcher.{key} must be {kind} above 0, or null, not {value!r}")


def count_gpus(master: DictConfig, overrides: Sequence[Sequence[str]]) -> int:
    """Return how many GPUs the jobs can fill, with one worker each; 0 on the CPU.

    A job with a GPU's number, as in device=cuda:1, runs on that GPU in any worker. If all jobs
    have a number, one worker does them all.
    """
    devices = {str(master.device)}
    for words in overrides:
        devices |= {word.partition("=")[2] for word in words if word.startswith("device=")}
    wanted = any(name.startswith("cuda") for name in devices)
    if not wanted and (devices == {"cpu"} or not torch.cuda.is_available()):
        return 0
    shared = devices & {"cuda", "auto"}
    return max(1, torch.cuda.device_count()) if shared else 1


def split_cores(
    cores: int, count: int, threads: int | None, workers: int | None
) -> tuple[int, int]:
    """Return the number of processes, and of threads in each, to fill the cores.

    count: of jobs. threads, workers: the user's numbers, or None. Most models are too small to use
    two cores, so the first choice is a process for each core with one thread.
    """
    if workers is None:
        workers = max(1, min(count, cores // (threads or 1)))
    return workers, threads or max(1, cores // workers)


def asked_threads(master: DictConfig, overrides: Sequence[Sequence[str]]) -> int | None:
    """Return the largest `num_threads` of the jobs; None where none sets it."""
    asked = {master.num_threads, 1 if master.deterministic else None}
    for words in overrides:
        asked |= {w.partition("=")[2] for w in words if w.lstrip("+").startswith("num_threads=")}
    numbers = [int(value) for value in asked if str(value).isdecimal()]
    return max(1, *numbers) if numbers else None


_pools: dict[tuple[int, int, int], Pool] = {}


def worker_pool(size: int, threads: int, gpus: int) -> Pool:
    """Return this process's pool, whose warm workers serve the next batch as well.

    threads: in each worker. gpus: the number of GPUs, which the workers share out.
    """
    key = size, threads, gpus
    if key not in _pools:
        for other in _pools.values():
            other.close()
        _pools.clear()
        _pools[key] = Pool(size, worker.set_up, threads, gpus)
        atexit.register(_pools[key].close)
    return _pools[key]

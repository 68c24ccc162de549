"""One copy of a dataset for all processes of a machine, in a file in memory."""

import os
import tempfile
from functools import lru_cache
from itertools import count
from typing import IO, NamedTuple
from weakref import WeakKeyDictionary

import torch

from optbench.common.console import warn
from optbench.config import build
from optbench.datasets.prepare import Dataset
from optbench.formats.keys import RunConfig

_numbers = count()


class Place(NamedTuple):
    """The address of a shared dataset. number: tells datasets of the same path apart."""

    path: str
    number: int


_files: WeakKeyDictionary[Dataset, tuple[Place, IO[bytes]]] = WeakKeyDictionary()


def load(config: RunConfig) -> Dataset:
    """Return the dataset of a configuration, in memory that the workers share."""
    return _load(build.dataset_parts(config))


@lru_cache(maxsize=4)
def _load(parts: str) -> Dataset:
    dataset = build.prepare_dataset(parts)
    try:
        return share(dataset)
    except OSError as error:
        warn(f"each worker loads the dataset for itself, since it cannot be shared: {error}")
        return dataset


def share(dataset: Dataset) -> Dataset:
    """Return the same data in shared memory, which lasts as long as the result.

    Raises OSError where there is no room.
    """
    file, path = _file()
    try:
        torch.save(dataset.to_plain(), file)
    except RuntimeError as error:  # torch's error for a write that fell short
        raise OSError(str(error)) from error
    file.flush()
    mapped = _map(path)
    _files[mapped] = Place(path, next(_numbers)), file
    return mapped


def place(dataset: Dataset) -> Place | None:
    """Return the address of a dataset for other processes; None if it is not shared."""
    return _files[dataset][0] if dataset in _files else None


@lru_cache(maxsize=1)
def find(place: Place) -> Dataset:
    """Return the dataset that another process shared; the last one is kept."""
    return _map(place.path)


def _map(path: str) -> Dataset:
    return Dataset.from_plain(torch.load(path, mmap=True, weights_only=True))


def _file() -> tuple[IO[bytes], str]:
    """Return a new file and its path.

    The file lies in memory if possible, so that no killed process leaves it behind.
    """
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("optbench")
        return os.fdopen(number, "w+b"), f"/proc/{os.getpid()}/fd/{number}"
    file = tempfile.NamedTemporaryFile(prefix="optbench-")  # noqa: SIM115
    return file, file.name

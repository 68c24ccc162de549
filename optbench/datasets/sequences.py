"""Sequences (n, time, features): rows of digits, and the adding problem."""

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.datasets.loaders import mnist_5k
from optbench.datasets.raw import RawDataset

MARKED_EARLY = 10  # of the adding problem: the first marked step is one of so many


def mnist_rows() -> RawDataset:
    """Return the digits of `mnist_5k` as sequences of 28 rows, from top to bottom: (n, 28, 28)."""
    raw = mnist_5k()
    return raw._replace(train_x=raw.train_x[:, 0], test_x=raw.test_x[:, 0])


def adding(length: int = 40, train: int = 5000, test: int = 1000) -> RawDataset:
    """Return the adding problem of Hochreiter & Schmidhuber (1997).

    All sequences have one length. A step is a number, uniform in [-1, 1], and a mark. Two steps
    have the mark 1: one of the first ten, and one of the first half. Of the others, the first and
    the last step have the mark -1, and the rest 0. The target is 0.5 + (a + b) / 4 of the two
    numbers with the mark 1; the number of the first step counts as 0. A prediction is right if its
    error is below 0.04.
    """
    if length < 2 * MARKED_EARLY:
        raise UserError(
            f"dataset.length must be at least {2 * MARKED_EARLY}, of which the first marked number "
            f"is one of the first {MARKED_EARLY}, not {length!r}"
        )
    parts = (_adding(count, length, seed) for seed, count in enumerate((train, test)))
    return RawDataset(*(tensor for part in parts for tensor in part))


def _adding(count: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = 2 * torch.rand(count, length, generator=generator) - 1
    places = torch.rand(count, length // 2 - 1, generator=generator)
    first = places[:, :MARKED_EARLY].argmax(dim=1, keepdim=True)
    second = places.scatter(1, first, -1.0).argmax(dim=1, keepdim=True)
    marks = torch.zeros(count, length)
    marks[:, [0, -1]] = -1.0
    marks.scatter_(1, first, 1.0).scatter_(1, second, 1.0)
    counted = values.clone()
    counted[:, 0] = 0.0
    total = counted.gather(1, first) + counted.gather(1, second)
    return torch.stack([values, marks], dim=2), 0.5 + total[:, 0] / 4

"""Which examples are for training, for validation and for the test."""

from typing import NamedTuple

import torch
from torch import Tensor

from optbench.common.console import warn
from optbench.common.errors import UserError

TEST_SIZE = 0.2  # the default share of a test part that is drawn


class Split(NamedTuple):
    """Sorted places of examples. test: None for all of the test part."""

    train: Tensor
    val: Tensor
    test: Tensor | None


def generator_of(split_seed: int) -> torch.Generator:
    """Return the generator that draws only the test part, subset and validation part."""
    if not _is_int(split_seed) or not 0 <= split_seed < 2**63:
        raise UserError(
            f"data.split_seed={split_seed!r} is not a seed; allowed: a whole number from 0 to "
            "2**63 - 1."
        )
    return torch.Generator().manual_seed(split_seed)


def check_subset(subset: int | None) -> None:
    """Raise `UserError` unless `subset` is a whole number from 1, or None."""
    if subset is not None and (not _is_int(subset) or subset < 1):
        raise UserError(
            f"data.subset={subset!r} is not a number of examples; allowed: a whole number from 1, "
            "or null for all."
        )


def divide(n: int, test_size: float | int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the sorted places of training and of test examples, drawn among `n`."""
    count = _test_count(test_size, n)
    order = torch.randperm(n, generator=generator)
    return order[count:].sort().values, order[:count].sort().values


def split(
    n: int,
    n_test: int,
    *,
    val_size: float | int,
    subset: int | None,
    generator: torch.Generator,
    own_val: bool = False,
) -> Split:
    """Return which of `n` training and `n_test` test examples are used, and for what.

    own_val: the data have a validation part of their own, so that none is drawn.
    """
    if subset is not None and subset > n:
        warn(f"data.subset={subset} is more than the {n} training examples: all are used")
    order = torch.randperm(n, generator=generator)[:subset]
    n_val = 0 if own_val else _val_count(val_size, len(order))
    # Sorted, since only the choice of the examples must be random, not their order in memory.
    val, train = order[:n_val].sort().values, order[n_val:].sort().values
    if subset is None or subset >= n_test:
        return Split(train, val, None)
    # a random draw, since test sets are often ordered (the first half of MNIST's is easier)
    test = torch.randperm(n_test, generator=generator)[:subset].sort().values
    return Split(train, val, test)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _val_count(val_size: float | int, n: int) -> int:
    """Return the number of validation examples out of n, with one left for training."""
    if _is_int(val_size) and val_size >= 0:
        count = int(val_size)
    elif isinstance(val_size, float) and 0 <= val_size < 1:
        count = max(1, round(val_size * n)) if val_size > 0 else 0
    else:
        raise UserError(
            f"data.val_size={val_size!r} is neither a share nor a count; allowed: a share from 0 "
            f"to below 1 (0.1), or a whole number of examples (0 to {n - 1})."
        )
    if count >= n:
        raise UserError(
            f"data.val_size={val_size!r} leaves no training example: {count} of {n} would be held "
            f"out; allowed: at most {n - 1} examples. Lower it, or raise data.subset if it is set."
        )
    return count


def _test_count(test_size: float | int, n: int) -> int:
    """Return the number of test examples out of n, with one left for training."""
    whole = _is_int(test_size) and test_size >= 1
    if not whole and not (isinstance(test_size, float) and 0 < test_size < 1):
        raise UserError(
            f"data.test_size={test_size!r} is neither a share nor a count; allowed: a share "
            f"between 0 and 1 (0.2), or a whole number of examples (1 to {n - 1})."
        )
    count = int(test_size) if whole else max(1, round(test_size * n))
    if count >= n:
        raise UserError(
            f"data.test_size={test_size!r} leaves no training example: {count} of {n} would be the "
            f"test part; allowed: at most {n - 1} examples."
        )
    return count

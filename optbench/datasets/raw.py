"""Raw data, as a loader returns them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from optbench.tasks import Task


class RawDataset(NamedTuple):
    """The result of a loader: the data as published, before split and preprocessing."""

    train_x: Tensor  # (n, channels, height, width) or (n, features), uint8 or float
    train_y: Tensor  # (n,) integers from 0, or real numbers (n,) or (n, targets)
    test_x: Tensor
    test_y: Tensor


@dataclass(frozen=True, eq=False)
class Described:
    """Raw data with a task that the arrays alone do not tell.

    arrays: as a loader returns them, four or six; examples may be `StreamedImages`. task: None if
    the labels tell. digest: of the raw data; None: of the arrays' bytes.
    """

    arrays: Sequence[Any]
    task: Task | None = None
    digest: str | None = None

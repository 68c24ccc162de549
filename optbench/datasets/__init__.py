"""The datasets that a configuration can name, and the preparation of raw data."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from optbench.datasets.bag_of_words import bag_of_words
from optbench.datasets.composed import digit_and_parity, digit_lines, moving_digits
from optbench.datasets.image_files.folder import image_folder
from optbench.datasets.loaders import (
    breast_cancer,
    cifar10,
    cifar100,
    digits,
    emnist,
    fashion_mnist,
    kmnist,
    mnist,
    mnist_5k,
    svhn,
    wine,
)
from optbench.datasets.raw import Described, RawDataset
from optbench.datasets.sequences import adding, mnist_rows
from optbench.datasets.synthetic import (
    associative_recall,
    linear_map,
    linear_optimum,
    modular_addition,
)
from optbench.datasets.texts import Text, austen, text

if TYPE_CHECKING:
    from optbench.datasets.tables.loaders import csv, diamonds, letter

__all__ = [
    "Described",
    "RawDataset",
    "Text",
    "adding",
    "associative_recall",
    "austen",
    "bag_of_words",
    "breast_cancer",
    "cifar10",
    "cifar100",
    "csv",
    "diamonds",
    "digit_and_parity",
    "digit_lines",
    "digits",
    "emnist",
    "fashion_mnist",
    "image_folder",
    "kmnist",
    "letter",
    "linear_map",
    "linear_optimum",
    "mnist",
    "mnist_5k",
    "mnist_rows",
    "modular_addition",
    "moving_digits",
    "svhn",
    "text",
    "wine",
]


def __getattr__(name: str) -> Any:
    """Return a loader of tables.

    It imports pandas, which takes half a second that other data save.
    """
    if name in ("csv", "diamonds", "letter"):
        return getattr(import_module("optbench.datasets.tables.loaders"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

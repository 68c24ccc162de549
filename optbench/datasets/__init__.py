"""The datasets that a configuration can name, and the preparation of raw data."""

from optbench.datasets.composed import digit_and_parity, digit_lines, moving_digits
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
from optbench.datasets.prepare import RawDataset
from optbench.datasets.sequences import adding, mnist_rows

__all__ = [
    "RawDataset",
    "adding",
    "breast_cancer",
    "cifar10",
    "cifar100",
    "digit_and_parity",
    "digit_lines",
    "digits",
    "emnist",
    "fashion_mnist",
    "kmnist",
    "mnist",
    "mnist_5k",
    "mnist_rows",
    "moving_digits",
    "svhn",
    "wine",
]

"""The datasets that a configuration can name, and the preparation of raw data."""

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
from optbench.datasets.tables.loaders import csv, diamonds, letter

__all__ = [
    "RawDataset",
    "breast_cancer",
    "cifar10",
    "cifar100",
    "csv",
    "diamonds",
    "digits",
    "emnist",
    "fashion_mnist",
    "kmnist",
    "letter",
    "mnist",
    "mnist_5k",
    "svhn",
    "wine",
]

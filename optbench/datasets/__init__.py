"""The datasets that a configuration can name, and the preparation of raw data."""

from optbench.datasets.bag_of_words import bag_of_words
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
from optbench.datasets.synthetic import (
    associative_recall,
    linear_map,
    linear_optimum,
    modular_addition,
)
from optbench.datasets.tables.loaders import csv, diamonds, letter
from optbench.datasets.texts import Text, austen, text

__all__ = [
    "RawDataset",
    "Text",
    "associative_recall",
    "austen",
    "bag_of_words",
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
    "linear_map",
    "linear_optimum",
    "mnist",
    "mnist_5k",
    "modular_addition",
    "svhn",
    "text",
    "wine",
]

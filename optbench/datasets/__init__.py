"""The datasets that a configuration can name, and the preparation of raw data."""

from optbench.datasets.image_folder import image_folder
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

__all__ = [
    "RawDataset",
    "breast_cancer",
    "cifar10",
    "cifar100",
    "digits",
    "emnist",
    "fashion_mnist",
    "image_folder",
    "kmnist",
    "mnist",
    "mnist_5k",
    "svhn",
    "wine",
]

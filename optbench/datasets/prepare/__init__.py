"""Preparation of raw arrays: check, digest, subset, split, preprocess.

`prepare` alone decides which examples are trained on, and how the examples are scaled.
"""

from optbench.datasets.prepare.checks import LAYOUTS, PREPROCESSING_CHOICES, TARGETS
from optbench.datasets.prepare.dataset import Dataset, OwnPreparation
from optbench.datasets.prepare.pipeline import prepare
from optbench.datasets.raw import Described, RawDataset

__all__ = [
    "LAYOUTS",
    "PREPROCESSING_CHOICES",
    "TARGETS",
    "Dataset",
    "Described",
    "OwnPreparation",
    "RawDataset",
    "prepare",
]

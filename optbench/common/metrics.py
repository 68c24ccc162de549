"""What is known of a logged column: which values are good, and the worst of them."""

import math


def smaller_is_better(column: str) -> bool:
    """Whether small values of a logged column are the good ones: all but accuracies."""
    return "accuracy" not in column


def worst(column: str) -> float:
    """What a diverged run counts as: the worst value, so that no one averages over survivors."""
    if "accuracy" in column:
        return -math.inf
    return math.inf if "loss" in column else math.nan


def default_log(y: str) -> bool:
    """Whether the y axis is logarithmic where nobody says: losses and rates are."""
    return "accuracy" not in y and "seconds" not in y

"""What is known of a column stands in one place."""

import math

import pytest

from optbench.common.metrics import metric_of


@pytest.mark.parametrize(
    ("column", "smaller", "worst", "unit", "log", "label"),
    [
        ("train_loss", True, math.inf, "", True, "training loss"),
        ("running_loss", True, math.inf, "", True, "epoch-mean training loss"),
        ("val_loss", True, math.inf, "", True, "validation loss"),
        ("val_accuracy", False, -math.inf, "%", False, "validation accuracy"),
        ("test_accuracy", False, -math.inf, "%", False, "test accuracy"),
        ("seconds", True, math.nan, "s", False, "training time"),
        ("total_seconds", True, math.nan, "s", False, "total time"),
        ("lr", True, math.nan, "", True, "learning rate"),
        ("update_norm / grad_norm", True, math.nan, "", True, "update norm / grad norm"),
    ],
)
def test_a_column_has_direction_worst_value_unit_axis_and_label(
    column, smaller, worst, unit, log, label
):
    found = metric_of(column)
    assert (found.smaller, found.unit, found.log, found.label) == (smaller, unit, log, label)
    assert found.worst == worst or math.isnan(found.worst) == math.isnan(worst) is True
    assert found.percent == (unit == "%")


def test_titles_say_where_values_are_in_per_cent():
    assert metric_of("val_accuracy").title == "validation accuracy (%)"
    assert metric_of("train_loss").title == "training loss"

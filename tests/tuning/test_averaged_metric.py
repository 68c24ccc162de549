"""Trials may be judged by their averaged weights, where these exist."""

import pytest
from composed import configuration

from optbench.common.errors import UserError
from optbench.tuning import search
from optbench.tuning.study import check_averaged
from optbench.tuning.trials import untrained


def test_the_score_is_better_for_low_losses_and_high_accuracies():
    summary = {
        "averaged_val_loss": 0.5,
        "averaged_val_accuracy": 0.9,
        "best_averaged_val_loss": 0.4,
    }
    assert search.score(summary, "averaged_val_loss", "final") == 0.5
    assert search.score(summary, "averaged_val_loss", "best") == 0.4
    assert search.score(summary, "averaged_val_accuracy", "final") == -0.9


def test_the_untrained_average_is_the_untrained_model(tmp_path):
    head = "epoch,step,train_loss,train_accuracy,running_loss,val_loss,val_accuracy,test_loss,"
    rows = "test_accuracy,seconds,total_seconds,averaged_val_loss\n0,0,2,0.1,,2.5,0.2,,,0,0,\n"
    (tmp_path / "epochs.csv").write_text(head + rows, "utf-8")
    assert untrained(tmp_path)["averaged_val_loss"] == 2.5
    assert untrained(tmp_path)["averaged_val_accuracy"] == 0.2


def test_a_metric_of_averages_needs_averages():
    plain, averaged = configuration(), configuration("averaging.kind=ema")
    check_averaged("val_loss", [plain])
    check_averaged("averaged_val_loss", [averaged])
    with pytest.raises(UserError, match=r"no weights are averaged: averaging\.kind=ema"):
        check_averaged("averaged_val_loss", [averaged, plain])

"""Extreme numbers and degenerate data: what happens is defined."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from made_runs import make_run

from optbench import losses, models
from optbench.analysis.table import load_runs
from optbench.commands import plot
from optbench.common.errors import UserError
from optbench.datasets import prepare
from optbench.formats.run import COLUMNS, read_record, read_rows
from optbench.initializers import initialize
from optbench.problem import Problem
from optbench.runs.folder import RunFolder
from optbench.training.loop import Training
from optbench.training.steps import Update

SGD = partial(torch.optim.SGD, lr=0.1)
NORMED = partial(models.mlp, hidden=[8], batch_norm=True)


def examples(labels: list[int], features: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(labels), features, generator=generator), torch.tensor(labels)


def problem_of(train_y: list[int], test_y: list[int], **changes) -> Problem:
    dataset = prepare.prepare(
        (*examples(train_y), *examples(test_y)), preprocessing="none", val_size=0
    )
    settings = {"batch_size": 4, "epochs": 2, "loss": losses.cross_entropy}
    settings |= {"model": partial(models.mlp, hidden=[8]), "initializer": initialize} | changes
    return Problem(dataset, **settings)


def trained(problem: Problem) -> list[Update]:
    return list(Training(problem, SGD, log_every=1).updates())


def losses_of(updates: list[Update]) -> list[float]:
    return [row["train_loss"] for update in updates for row in update.steps]


@pytest.mark.parametrize("labels", [[0], [2]])
def test_one_training_example_is_trained_on(labels):
    updates = trained(problem_of(labels, [0, 1], batch_size=8))
    assert updates[-1].status == "completed"
    assert len(losses_of(updates)) == 2
    assert all(map(math.isfinite, losses_of(updates)))


def test_one_training_example_leaves_none_for_validation():
    with pytest.raises(UserError, match="leaves no training example"):
        prepare.prepare((*examples([0]), *examples([0, 1])), val_size=0.1)


def test_a_class_that_is_missing_in_training_is_counted_in_the_test():
    updates = trained(problem_of([0, 2, 0, 2, 2], [0, 1, 2]))
    assert updates[-1].status == "completed"
    row = updates[-1].epoch
    assert row["test_accuracy"] <= 2 / 3  # class 1 is there, and was never seen


@pytest.mark.parametrize("labels", [[0, -1], [0, 5000], [0, 2**40]])
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(UserError, match=r"train_y holds labels from .* renumber"):
        prepare.prepare((*examples(labels), *examples([0])))


@pytest.mark.parametrize("drop_last", [False, True])
def test_a_batch_larger_than_the_dataset_is_the_dataset(drop_last):
    labels = [0, 1, 0, 1, 1]
    whole = losses_of(trained(problem_of(labels, [0], batch_size="full")))
    larger = losses_of(trained(problem_of(labels, [0], batch_size=10**9, drop_last=drop_last)))
    assert larger == whole


def test_a_last_batch_of_one_joins_the_one_before_under_batch_norm():
    updates = trained(problem_of([0, 1, 0, 1, 1], [0], model=NORMED))  # 5 in batches of 4
    assert updates[-1].status == "completed"
    assert updates[-1].step == 2  # one of 5 in each epoch


@pytest.mark.parametrize(("labels", "batch_size"), [([0, 1, 0], 1), ([0], 4), ([1], "full")])
def test_batches_of_one_under_batch_norm_are_refused_before_training(labels, batch_size):
    problem = problem_of(labels, [0, 1], model=NORMED, batch_size=batch_size)
    with pytest.raises(UserError, match="batch of one example"):
        trained(problem)


def scaled(factor: float):
    def loss(logits, labels):
        return losses.cross_entropy(logits, labels) * factor

    return loss


@pytest.mark.parametrize(
    ("factor", "status", "steps"),
    [
        (math.nan, "diverged", 0),
        (math.inf, "diverged", 0),
        (-math.inf, "diverged", 0),
        (1e38, "diverged", 1),  # finite, until the first step has been taken with it
        (1e-44, "completed", 2),  # denormal in float32
        (0.0, "completed", 2),
    ],
)
def test_losses_of_any_size_end_as_a_result(factor, status, steps):
    updates = trained(problem_of([0, 1, 0, 1], [0], loss=scaled(factor)))
    assert updates[-1].status == status
    assert (updates[-1].step >= steps) if status == "diverged" else (updates[-1].step == steps)
    first = updates[0].epoch["train_loss"]
    assert math.isfinite(first) == (abs(factor) < math.inf)


VALUES = (
    *[0.0, -0.0, 1.0, 5e-324, -5e-324, 1e-45, 2.2250738585072014e-308, 1.7976931348623157e308],
    *[3.4028234663852886e38, 1e300, -1e300, math.inf, -math.inf, math.nan, 0.1, 1 / 3],
)


def test_every_number_comes_back_from_the_files(tmp_path):
    record = read_record(make_run(tmp_path / "like") / "run.json")
    record["config"] |= {"epochs": None, "steps": len(VALUES) - 1}
    folder = RunFolder(tmp_path / "runs", "a", record)
    for step, value in enumerate(VALUES):
        row = dict.fromkeys(COLUMNS["epochs"], value) | {"epoch": step, "step": step}
        steps = [{"step": step, "epoch": step, "train_loss": value, "lr": value, "seconds": step}]
        row |= {"seconds": step, "total_seconds": step}
        folder.write(Update(step, len(VALUES), steps=steps, epoch=row))
    folder.finish("completed")
    kept = read_record(folder.path / "run.json")  # JSON has no NaN: strict readers take it
    for rows, name in (("epochs", "val_loss"), ("steps", "lr")):
        got = read_rows(folder.path / f"{rows}.csv", kept)[name]
        np.testing.assert_allclose(got, VALUES, rtol=1e-8, atol=0)
    assert kept["summary"]["best_train_loss"] == -1e300


@pytest.mark.filterwarnings("error:.*traceback")
def test_extreme_numbers_are_drawn_and_tabled(tmp_path: Path):
    """They are drawn: nothing is left out, nothing ends in a traceback."""
    for seed, value in enumerate(("1e300", "5e-324", "inf", "nan", "-1e300", "0")):
        path = make_run(tmp_path / f"r{seed}", "adam" if seed % 2 else "sgd", seed) / "epochs.csv"
        head, *lines = path.read_text().splitlines()
        cells = [line.split(",") for line in lines]
        for row in cells[3:]:
            row[2], row[5], row[7] = value, value, value
        path.write_text("\n".join([head, *map(",".join, cells)]) + "\n")
    table = load_runs(tmp_path)
    assert table["run"].nunique() == 6
    result = plot.draw_all([tmp_path], tmp_path / "out", plot.Options(formats=["svg"]))
    assert result.problems == []
    assert all(path.exists() for path in result.paths)

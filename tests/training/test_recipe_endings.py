"""A run ends without progress, at a target or after its seconds, and says which."""

from functools import partial

import pytest
from torch.optim import SGD

from optbench.training.loop import Training
from optbench.training.recipes import Recipe
from optbench.training.recipes.endings import EarlyStopping, Endings, StopAt

SLOW, FAST = partial(SGD, lr=0.01), partial(SGD, lr=0.5, momentum=0.9)


def updates_of(problem, optimizer=SLOW, recipe=None, **settings):
    return list(Training(problem, optimizer, seed=3, recipe=recipe, **settings).updates())


def rows_of(updates) -> list[dict]:
    rows = [update.epoch for update in updates if update.epoch]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def expected_end(values: list[float], patience: int) -> int | None:
    """The place of the evaluation that early stopping ends at, by its definition."""
    for place in range(len(values)):
        best = values.index(min(values[: place + 1]))
        if place - best >= patience:
            return place
    return None


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_early_stopping_ends_after_evaluations_without_a_better_value(make_problem, patience):
    problem = make_problem(epochs=40)
    whole = rows_of(updates_of(problem, FAST))
    place = expected_end([row["val_loss"] for row in whole[1:]], patience)
    assert place is not None
    updates = updates_of(problem, FAST, Recipe(early_stopping=EarlyStopping(patience)))
    assert (updates[-1].status, updates[-1].stopped) == ("completed", "early_stopping")
    assert rows_of(updates) == whole[: place + 2]


def test_better_is_larger_for_an_accuracy():
    endings = Endings(EarlyStopping(2, "val_accuracy"), StopAt(), None)
    values = (0.1, 0.5, 0.4, 0.6, 0.6, 0.6)
    found = [endings.reason({"val_accuracy": v, "seconds": 1.0}, last=False) for v in values]
    assert found == [None] * 5 + ["early_stopping"]


@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy", "train_loss", "running_loss"])
def test_a_run_ends_at_its_target(make_problem, metric):
    problem = make_problem(epochs=8)
    whole = rows_of(updates_of(problem))
    target = whole[3][metric]
    updates = updates_of(problem, recipe=Recipe(stop_at=StopAt(metric, target)))
    assert updates[-1].stopped == "stop_at"
    ended = [row["step"] for row in whole[1:]][: len(rows_of(updates)) - 1]
    assert rows_of(updates)[-1]["step"] == ended[-1]
    better = [r[metric] <= target if "loss" in metric else r[metric] >= target for r in whole[1:]]
    assert len(ended) == better.index(True) + 1


def test_a_target_that_is_not_reached_leaves_the_run_as_it_is(make_problem):
    problem = make_problem()
    updates = updates_of(problem, recipe=Recipe(stop_at=StopAt("val_loss", 1e-9)))
    assert updates[-1].stopped is None
    assert rows_of(updates) == rows_of(updates_of(problem))


def test_a_target_at_the_last_step_is_reached(make_problem):
    problem = make_problem()
    target = rows_of(updates_of(problem))[-1]["train_loss"]
    assert updates_of(problem, recipe=Recipe(stop_at=StopAt("train_loss", target)))[-1].stopped


def test_seconds_end_a_run_within_an_epoch_with_an_evaluation(make_problem):
    updates = updates_of(make_problem(epochs=30), recipe=Recipe(budget_seconds=1e-9))
    assert (updates[-1].status, updates[-1].stopped) == ("completed", "budget_seconds")
    rows = rows_of(updates)
    assert [row["step"] for row in rows] == [0, 1]
    assert rows[-1]["val_loss"] is not None


def test_seconds_that_last_leave_the_run_as_it_is(make_problem):
    problem = make_problem()
    updates = updates_of(problem, recipe=Recipe(budget_seconds=1e6))
    assert updates[-1].stopped is None
    assert rows_of(updates) == rows_of(updates_of(problem))


def test_only_the_seconds_of_training_count(make_problem, monkeypatch):
    """The clock advances by a second at each look; evaluations look at it, too."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("optbench.training.loop.perf_counter", lambda: float(next(ticks)))
    updates = updates_of(make_problem(epochs=30), recipe=Recipe(budget_seconds=20.0))
    assert updates[-1].stopped == "budget_seconds"
    last = updates[-1].epoch
    assert 20.0 <= last["seconds"] < last["total_seconds"]


def test_the_test_set_is_measured_where_a_run_ends_early(make_problem):
    problem, recipe = make_problem(epochs=40), Recipe(early_stopping=EarlyStopping(1))
    ended = rows_of(updates_of(problem, FAST, recipe, eval_test="end"))
    each = rows_of(updates_of(problem, FAST, recipe, eval_test="each"))
    assert all(row["test_loss"] is None for row in ended[:-1])
    assert ended[-1] == each[-1]


def test_a_target_comes_before_patience_and_patience_before_seconds():
    row = {"val_loss": 1.0, "seconds": 9.0}
    made = Endings(EarlyStopping(1), StopAt("val_loss", 1.0), 5.0)
    assert made.reason(row, last=False) == "stop_at"
    made = Endings(EarlyStopping(1), StopAt(), 5.0)
    assert made.reason(row, last=False) == "budget_seconds"
    assert made.reason(row, last=False) == "early_stopping"
    assert made.reason(row, last=True) is None

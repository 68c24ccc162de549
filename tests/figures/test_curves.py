"""What the figures draw: the data of their lines against values computed by hand."""

import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import SEVEN, make_run, sweep
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from optbench.analysis.table import load_runs
from optbench.common.errors import UserError
from optbench.figures import style
from optbench.figures.curves import aggregate, curves
from optbench.figures.looks import shade
from optbench.figures.sensitivity import sensitivity


def line(axes: Axes, start: str) -> Line2D:
    (found,) = [one for one in axes.lines if str(one.get_label()).startswith(start)]
    return found


def legend(axes: Axes) -> list[str]:
    box = axes.get_legend()
    assert box is not None
    return [text.get_text() for text in box.get_texts()]


def ydata(figure: Figure, start: str, panel: int = 0) -> np.ndarray:
    return np.asarray(line(figure.axes[panel], start).get_ydata(), dtype=float)


def by_hand(table: pd.DataFrame, column: str, **keys: object) -> np.ndarray:
    for key, value in keys.items():
        table = table[table[key] == value]
    return np.array([group[column].median() for _, group in table.groupby("step")])


def test_lines_are_medians_over_seeds(tmp_path: Path) -> None:
    table = load_runs(sweep(tmp_path, ("adam", "sgd"), 3))
    for x in ("epoch", "step", "seconds"):
        figure = curves(table, x=x)
        for name in ("adam", "sgd"):
            drawn = line(figure.axes[0], name)
            np.testing.assert_array_equal(
                np.asarray(drawn.get_ydata()), by_hand(table, "train_loss", optimizer=name)
            )
            np.testing.assert_allclose(
                np.asarray(drawn.get_xdata()), by_hand(table, x, optimizer=name)
            )
        assert figure.axes[0].get_yscale() == "log"
        assert legend(figure.axes[0]) == ["sgd", "adam"]  # from the highest end to the lowest
    assert "median of 3 seeds, band: min to max" in str(figure.get_supxlabel())
    assert curves(table, "test_accuracy").axes[0].get_yscale() == "linear"


def test_band_is_min_to_max(tmp_path: Path) -> None:
    table = load_runs(sweep(tmp_path, ("adam",), 4))
    figure = curves(table, "val_loss", log=False)
    (band,) = figure.axes[0].collections
    corners = band.get_paths()[0].vertices
    last = table[table["epoch"] == 10]["val_loss"]
    ends = np.asarray(corners)[np.asarray(corners)[:, 0] == 10][:, 1]
    assert {ends.min(), ends.max()} == {last.min(), last.max()}


def test_diverged_runs_count_and_are_marked(tmp_path: Path) -> None:
    make_run(tmp_path / "0", seed=0)
    make_run(tmp_path / "1", seed=1, diverged_at=90)
    table = load_runs(tmp_path)
    drawn = ydata(curves(table), "adam")
    assert np.isfinite(drawn[:3]).all()
    assert np.isnan(drawn[3:]).all()  # the median of a number and infinity
    make_run(tmp_path / "2", seed=2)
    table = load_runs(tmp_path)
    figure = curves(table)
    alive = table[table["status"] == "completed"]
    worst_alive = np.array([group["train_loss"].max() for _, group in alive.groupby("step")])
    np.testing.assert_array_equal(ydata(figure, "adam")[3:], worst_alive[3:])
    assert legend(figure.axes[0]) == ["adam\n(1 of 3 diverged)"]
    cross = line(figure.axes[0], "_diverged")
    assert list(np.asarray(cross.get_xdata())) == [2.0]  # the last finite row
    accuracy = ydata(curves(table, "test_accuracy"), "adam")
    low = np.array([group["test_accuracy"].min() for _, group in alive.groupby("step")])
    np.testing.assert_array_equal(accuracy[3:], low[3:])


def test_a_run_without_steps_counts_as_diverged(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam",), 2)
    path = make_run(tmp_path / "bad", seed=2, diverged_at=0) / "steps.csv"
    path.write_text("step,epoch,train_loss,lr,seconds\n")
    table = load_runs(tmp_path, rows="steps")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = curves(table, x="step")
    assert legend(figure.axes[0]) == ["adam\n(1 of 3 diverged)"]
    alive = table[table["status"] == "completed"]
    highest = np.array([group["train_loss"].max() for _, group in alive.groupby("step")])
    np.testing.assert_array_equal(ydata(figure, "adam"), highest)


def test_panels_and_lines_are_the_keys_asked_for(tmp_path: Path) -> None:
    for norm in (False, True):
        for name in ("default", "he"):
            sweep(tmp_path, ("adam", "sgd"), 2, model__batch_norm=norm, initializer__name=name)
    table = load_runs(tmp_path)
    figure = curves(table, facet=["model.batch_norm", "initializer"])
    titles = [axes.get_title(loc="left").replace("\n", ", ") for axes in figure.axes]
    expected = [
        f"model.batch_norm = {b}, initializer = {i}"
        for b in ("false", "true")
        for i in ("default", "he")
    ]
    assert titles == expected
    part = table[(table["model.batch_norm"] == True) & (table["initializer.name"] == "default")]  # noqa: E712
    np.testing.assert_array_equal(
        ydata(figure, "sgd", 2), by_hand(part, "train_loss", optimizer="sgd")
    )
    figure = curves(table, facet=["initializer"], lines="model.batch_norm")
    assert len(figure.axes) == 4  # one optimizer in each, or a line would mix two
    with pytest.raises(UserError, match="initializer"):
        curves(table, facet=["model.batch_norm"])


def test_a_sweep_of_settings_has_a_panel_for_each_optimizer(tmp_path: Path) -> None:
    for lr in (1e-4, 1e-3, 1e-2, 1e-1):
        for name in ("adam", "sgd", "rmsprop"):
            bad = 50 if name == "adam" and lr == 0.1 else None
            sweep(tmp_path, (name,), 2, lr=lr, diverged_at=bad)
    table = load_runs(tmp_path)
    figure = curves(table)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["adam", "rmsprop", "sgd"]
    figure = sensitivity(table)
    drawn = ydata(figure, "adam")
    last = table[(table["optimizer"] == "adam") & (table["epoch"] == 10)]
    expected = [
        group["train_loss"].median() for _, group in last.groupby("optimizer.lr", observed=True)
    ]
    np.testing.assert_allclose(sorted(drawn[:3]), sorted(expected))
    assert math.isnan(drawn[3])
    cross = line(figure.axes[0], "_diverged")
    assert (list(np.asarray(cross.get_xdata())), list(np.asarray(cross.get_ydata()))) == (
        [0.1],
        [1.0],
    )
    assert "adam\n(2 of 8 diverged)" in legend(figure.axes[0])
    with pytest.raises(UserError, match="two values"):
        sensitivity(table, x="batch_size")


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e308])
def test_hard_values_draw_without_warnings(tmp_path: Path, value: float) -> None:
    table = load_runs(sweep(tmp_path, ("adam", "sgd"), 2))
    table.loc[(table["optimizer"] == "adam") & (table["epoch"] > 4), "train_loss"] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for log in (True, False):
            curves(table, log=log).savefig(tmp_path / "x.png")
    table["train_loss"] = -1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves(table).savefig(tmp_path / "x.png")


def test_wrong_names_are_explained(tmp_path: Path) -> None:
    table = load_runs(make_run(tmp_path / "a"))
    with pytest.raises(UserError, match="train_loss, train_accuracy"):
        curves(table, "cost")
    with pytest.raises(UserError, match="epoch, step, seconds"):
        curves(table, x="hours")
    with pytest.raises(UserError, match=r"model\.batch_norm"):
        curves(table, facet=["model.batchnorm"])
    with pytest.raises(UserError, match=r"optimizer\.lr"):
        curves(table, lines="lr")


def test_colours_are_fixed_and_distinct() -> None:
    looks = {name: style.style_of(name) for name in style.LOOKS}
    assert len({to_hex(look.color) for look in looks.values()}) == len(looks)
    assert len({looks[name].marker for name in SEVEN}) == 7
    for name, sibling in (("amsgrad", "adam"), ("textbook_adam", "adam"), ("textbook_sgd", "sgd")):
        assert style.style_of(name).color == style.style_of(sibling).color
        assert style.style_of(name).dashes != style.style_of(sibling).dashes
    assert style.style_of("never_heard_of_it") == style.style_of("never_heard_of_it")
    for name in [*looks, "some", "other"]:
        for index in range(4):
            assert shade(style.style_of(name), index, 4).marker


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 4))
def test_the_order_of_runs_changes_nothing(random: object, bad: int) -> None:
    generator = np.random.default_rng(bad)
    runs = []
    for index in range(5):
        length = 6 if index >= bad else 3 + index % 2
        runs.append(
            pd.DataFrame(
                {
                    "run": str(index),
                    "status": "completed" if length == 6 else "diverged",
                    "step": np.arange(length),
                    "epoch": np.arange(length) / 2,
                    "train_loss": generator.random(length),
                }
            )
        )
    first = aggregate(pd.concat(runs), "train_loss", "epoch")
    random.shuffle(runs)  # type: ignore[attr-defined]
    second = aggregate(pd.concat(runs), "train_loss", "epoch")
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    table = [run["train_loss"].to_numpy() for run in runs]
    padded = np.array([np.append(values, [math.inf] * (6 - len(values))) for values in table])
    expected = np.median(padded, axis=0)
    np.testing.assert_array_equal(first.median, np.where(np.isfinite(expected), expected, math.nan))


def test_a_line_of_an_equal_budget_in_seconds_ends_at_the_budget() -> None:
    runs = [
        pd.DataFrame(
            {
                "run": str(length),
                "status": status,
                "step": np.arange(length),
                "seconds": np.linspace(0, 1 + length / 1000, length),
                "train_loss": np.linspace(2, length / 10, length),
            }
        )
        for length, status in (
            (6, "completed"),
            (8, "completed"),
            (9, "completed"),
            (3, "diverged"),
        )
    ]
    found = aggregate(pd.concat(runs[:3]), "train_loss", "seconds")
    assert len(found.x) == 6  # steps 0 to 4, and the ends
    assert (found.x[-1], found.median[-1], found.final) == (1.008, 0.8, 0.8)
    assert (found.low[-1], found.high[-1]) == (0.6, 0.9)
    at = [run["train_loss"][4] for run in runs[:3]]
    assert found.median[-2] == np.median(at)
    assert len(aggregate(pd.concat(runs[:3]), "train_loss", "step").x) == 6
    lost = aggregate(pd.concat(runs), "train_loss", "seconds")  # one of four is infinitely bad
    assert lost.final == pytest.approx((0.8 + 0.9) / 2)
    assert lost.diverged == 1


def test_a_rate_that_only_diverged_lies_within_the_axis(tmp_path: Path) -> None:
    for index, lr in enumerate((0.1, 1.0, 1e20)):
        make_run(tmp_path / str(index), "sgd", lr=lr, diverged_at=40 if lr > 1 else None)
    axes = sensitivity(load_runs(tmp_path)).axes[0]
    low, high = axes.get_xlim()
    assert low < 0.1
    assert high > 1e20


def test_epochs_end_where_the_runs_end(tmp_path: Path) -> None:
    axes = curves(load_runs(sweep(tmp_path, ("adam", "sgd"), 1, epochs=20))).axes[0]
    axes.figure.draw_without_rendering()
    assert axes.get_xlim() == (0, 20)
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_a_marker_at_the_end_is_whole(tmp_path: Path) -> None:
    figure = curves(load_runs(sweep(tmp_path, ("adam", "sgd"), 1, epochs=6)))
    (axes,) = figure.axes
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    paint = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    assert axes.get_xlim() == (0, 6)
    for one in axes.lines:
        x, y = axes.transData.transform((6, float(np.asarray(one.get_ydata())[-1])))
        beyond = paint[round(len(paint) - y), round(x) + 2]  # two pixels outside of the axes
        assert np.abs(beyond - to_rgb(one.get_color())).max() < 0.1


def test_accuracies_are_shown_where_their_lines_differ(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    make_run(tmp_path / "lost", "momentum", 0, diverged_at=90)
    table = load_runs(tmp_path)
    figure = curves(table, "test_accuracy")
    low, high = figure.axes[0].get_ylim()
    late = table[(table["epoch"] > 3) & (table["status"] == "completed")]["test_accuracy"]
    assert table["test_accuracy"].min() < 0.15 < low < late.min() < late.max() < high
    assert "leaves out" in str(figure.get_label())
    cross = line(figure.axes[0], "_diverged")
    assert (np.asarray(cross.get_ydata()) >= low).all()


def test_an_accuracy_with_one_value_after_the_first_draws_without_a_warning(tmp_path: Path) -> None:
    make_run(tmp_path / "one", epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves(load_runs(tmp_path), "test_accuracy")


def test_settings_of_one_optimizer_are_in_order_and_too_many_make_panels(tmp_path: Path) -> None:
    rates = (0.0001, 0.001, 0.01, 0.1)
    for momentum in (0.0, 0.5, 0.9):
        for lr in rates:
            sweep(tmp_path, ("momentum",), 1, lr=lr, optimizer__momentum=momentum)
    table = load_runs(tmp_path)
    figure = curves(table)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["momentum = 0", "momentum = 0.5", "momentum = 0.9"]
    (box,) = figure.legends
    assert [text.get_text() for text in box.get_texts()] == [f"lr={lr:g}" for lr in rates]
    one = curves(table[table["optimizer.momentum"] == 0.9])
    assert legend(one.axes[0]) == [f"lr={lr:g}" for lr in rates]
    darkness = [sum(one_line.get_color()) for one_line in one.axes[0].lines]
    assert darkness == sorted(darkness)  # from dark to light


def test_lines_that_are_asked_for_get_panels_where_they_would_be_too_many(tmp_path: Path) -> None:
    for lr in (0.0001, 0.001, 0.01, 0.1):
        for name in ("he", "default", "xavier"):
            sweep(tmp_path, ("sgd",), 1, lr=lr, initializer__name=name)
    figure = curves(load_runs(tmp_path), lines="initializer")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [f"lr = {lr:g}" for lr in (0.0001, 0.001, 0.01, 0.1)]
    (box,) = figure.legends
    names = [f"initializer={name}" for name in ("default", "he", "xavier")]
    assert [text.get_text() for text in box.get_texts()] == names

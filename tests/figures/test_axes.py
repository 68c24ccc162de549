"""Axes show every value: losses of 0 and below, runs that diverged before the first step."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from in_process import sub_command
from made_runs import make_run, sweep
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optbench.analysis import summary
from optbench.analysis.comparison import compare
from optbench.analysis.final_values import divergence_limit
from optbench.analysis.table import load_runs
from optbench.commands import report as report_command
from optbench.figures.axes import limit_y, set_log_y, short_locator, wrapped
from optbench.figures.curves import curves
from optbench.figures.depth import layers_by_depth
from optbench.figures.finals import finals
from optbench.figures.kinds import times_fit
from optbench.figures.layers import over_time
from optbench.figures.sensitivity import sensitivity
from optbench.figures.trials import rate_scatter, tuning_budget
from optbench.formats.run import COLUMNS, read_csv
from optbench.trajectories import contours
from optbench.trajectories.descent import Trajectory
from optbench.trajectories.functions import quadratic

LOSSES = ("train_loss", "running_loss", "val_loss", "test_loss")


def with_losses(folder: Path, change) -> Path:
    """Runs whose logged losses are changed: the same in epochs.csv and steps.csv."""
    for path in [*folder.rglob("epochs.csv"), *folder.rglob("steps.csv")]:
        frame = pd.read_csv(path)
        for column in set(LOSSES) & set(frame):
            frame[column] = change(frame[column])
        frame.to_csv(path, index=False, na_rep="nan")
    return folder


def shown(axes: Axes) -> np.ndarray:
    """The share of the axis at which each drawn point lies: 0 the lower end, 1 the upper."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    points = np.column_stack([np.zeros(len(values)), values])
    return axes.transAxes.inverted().transform(axes.transData.transform(points))[:, 1]


def note_of(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


def everything_is_shown(figure: Figure) -> None:
    figure.draw_without_rendering()
    for axes in figure.axes:
        places = shown(axes)
        assert len(places)
        assert np.isfinite(places).all()
        assert places.min() >= 0
        assert places.max() <= 1


@pytest.mark.parametrize(
    ("values", "scale", "word"),
    [
        ([0.1, 2.0], "log", ""),
        ([-1.0, -3.0], "linear", "linear"),
        ([-1.0, 2.0], "linear", "linear"),
        ([0.0, 0.0], "linear", "linear"),
        ([0.0, 1.0, 2.0], "linear", "linear"),
        ([0.0, 0.002, 2.0], "symlog", "logarithmic above 0.001"),
        ([math.nan, math.inf], "linear", ""),
        ([math.nan, 0.5], "log", ""),
    ],
)
def test_scale_has_a_place_for_every_value(values, scale, word):
    axes = Figure().add_subplot()
    axes.plot(values)
    note = set_log_y([axes], values)
    assert axes.get_yscale() == scale
    assert word in note
    assert bool(note) == bool(word)


@pytest.mark.parametrize("shift", [-3.0, -0.5, -2.3])
def test_curves_of_losses_below_zero_are_drawn(tmp_path, shift):
    table = load_runs(with_losses(sweep(tmp_path, ("adam", "sgd"), 2), lambda v: v + shift))
    figure = curves(table)
    everything_is_shown(figure)
    assert figure.axes[0].get_yscale() == "linear"
    assert "the axis is linear" in note_of(figure)


def test_losses_that_reach_zero_keep_their_decades(tmp_path):
    folder = with_losses(sweep(tmp_path, ("adam", "sgd"), 1), lambda v: np.where(v < 0.2, 0, v))
    folder = with_losses(folder, lambda v: v**3)
    figure = curves(load_runs(folder))
    everything_is_shown(figure)
    assert figure.axes[0].get_yscale() == "symlog"
    assert "linear below it, to show values of 0" in note_of(figure)


def test_a_negative_loss_that_blows_up_does_not_squeeze_the_others(tmp_path):
    sweep(tmp_path, ("adam",), 1)
    with_losses(make_run(tmp_path / "lost", "sgd", 0), lambda v: v + 1e6 * (v < 2.2))
    table = load_runs(with_losses(tmp_path, lambda v: v - 3.0))
    figure = curves(table)
    low, high = figure.axes[0].get_ylim()
    assert -3.2 < low < high < 5
    assert "1 line goes above the axis" in note_of(figure)
    assert "as far above the untrained value as the lowest" in note_of(figure)
    assert "further above the untrained value" in str(finals(table, "train_loss").get_label())


def test_limit_of_a_loss_depends_on_its_sign(tmp_path):
    table = load_runs(sweep(tmp_path / "a", ("adam",), 1))
    assert divergence_limit(table, "train_loss") == pytest.approx(4 * 2.3)
    shifted = table.assign(train_loss=table["train_loss"] - 3)
    least = float(shifted["train_loss"].min())
    assert divergence_limit(shifted, "train_loss") == pytest.approx(2 * -0.7 - least)
    assert divergence_limit(shifted.assign(train_loss=0.0), "train_loss") == math.inf
    axes = Figure().add_subplot()
    axes.plot([-2.0, 50.0])
    note = limit_y([axes], shifted, "train_loss", pd.Series([-2.0, 50.0]))
    assert "1 above the axis" in note
    assert axes.get_ylim()[0] <= -2.0


def test_rates_and_trials_of_negative_losses_are_drawn(tmp_path):
    for index, lr in enumerate(np.geomspace(1e-3, 1, 6)):
        phase = {"phase": "trials"}
        make_run(tmp_path / f"{index}", "adam", 0, lr=float(lr), **phase)
    with_losses(tmp_path, lambda v: v - 3.0)
    table = load_runs(tmp_path)
    for figure in (sensitivity(table), rate_scatter(table), tuning_budget(table)):
        everything_is_shown(figure)
        assert "the axis is linear" in note_of(figure)
    figure = finals(table, "train_loss")
    points = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "")]
    assert sum(len(np.asarray(line.get_xdata())) for line in points) == 6


def test_layers_without_a_gradient_are_drawn(tmp_path):
    folder = make_run(tmp_path / "run", "adam", 0, diagnostics="layers")
    rows = [
        [step / 36, step, layer, kind, depth, std, std, ratio]
        for step in (1, 36)
        for layer, kind, depth, std, ratio in (
            ("0", "linear", 1, 1.0, 0.0), ("2", "linear", 2, 0.3, 1e-3),
            ("4", "linear", 3, 0.1, 0.2), ("all", "model", 0, 0.1, 0.0),
        )
    ]  # fmt: skip
    names = ["epoch", "step", "layer", "kind", "depth"]
    names += ["activation_std", "output_grad_std", "update_ratio"]
    frame = pd.DataFrame(rows, columns=names).reindex(columns=list(COLUMNS["layers"]))
    frame.to_csv(folder / "layers.csv", index=False)
    layers = load_runs(tmp_path, rows="layers")
    figure = layers_by_depth(layers)
    everything_is_shown(figure)
    assert "axis of the update / weights is" in note_of(figure)
    figure = over_time(layers, "update_ratio")
    everything_is_shown(figure)
    assert "the axis is linear" in note_of(figure)


def test_a_path_that_ends_in_the_minimum_is_drawn_to_its_end():
    function = quadratic()
    points = np.array([[4.0, 1.0], [1.0, 0.5], [0.0, 0.0]])
    losses = np.array([3.0, 1e-4, 0.0]) + function.least
    figure = contours.still(function, [Trajectory("adam", "adam", points, losses)])
    axes = figure.axes[1]
    figure.draw_without_rendering()
    places = shown(axes)
    assert np.isfinite(places).all()
    assert places.min() > 0


def test_runs_that_all_diverge_at_once_are_told_and_tabled(tmp_path, capsys):
    """The loss of every run is not a number before the first step."""
    sweep(tmp_path, ("adam", "sgd"), 2, diverged_at=0)
    with_losses(tmp_path, lambda v: v * math.nan)
    assert sub_command("plot")([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "all 4 runs diverged before the first step" in printed.err
    assert "look at the loss, the model and the data" in printed.err
    text = (tmp_path / "summary.md").read_text()
    assert text.count("diverged") >= 5
    assert "is first by" not in text
    assert report_command.main([str(tmp_path)]) == 0
    assert "all 4 runs diverged" in (tmp_path / "report.html").read_text()
    assert sub_command("plot")([str(tmp_path), "--kind", "curves"]) == 1
    assert "all runs diverged" in capsys.readouterr().err
    assert sub_command("plot")([str(tmp_path), "--target", "0.5"]) == 1
    assert "no run logged a finite loss" in capsys.readouterr().err
    frame = summary.summary(load_runs(tmp_path))
    assert np.isinf(frame["train_loss_median"]).all()


def test_runs_that_diverge_later_are_told_at_once(tmp_path, capsys):
    sweep(tmp_path, ("adam", "sgd"), 1, diverged_at=80)
    assert sub_command("plot")([str(tmp_path)]) == 0
    assert "all 2 runs diverged: there is nothing to compare" in capsys.readouterr().err
    assert len(read_csv(tmp_path / "000" / "epochs.csv")["step"]) > 1


@pytest.mark.parametrize(
    ("name", "width", "shown"),
    [
        ("batch_norm_place = after", 15, "batch_norm_\nplace = after"),
        ("initializer=xavier_uniform", 16, "initializer=\nxavier_uniform"),
        ("initializer.bias=0.1", 16, "initializer.\nbias=0.1"),
        ("adam lr=0.001, eps=1e-08", 16, "adam lr=0.001,\neps=1e-08"),
        ("rate=0.12345", 8, "rate=\n0.12345"),
        ("unbreakable", 8, "unbreaka\nble"),
    ],
)
def test_names_break_at_their_signs_before_they_break_inside_a_word(name, width, shown):
    assert wrapped(name, width) == shown


@pytest.mark.parametrize(("low", "high"), [(80, 240), (0.4, 1.6), (0.00012, 0.0004), (83, 95)])
def test_ticks_of_a_part_of_a_decade_reach_its_lower_end(low, high):
    ticks = short_locator(low, high).tick_values(low, high)
    inside = [tick for tick in ticks if low <= tick <= high]
    assert len(inside) >= 4
    assert math.log(inside[0] / low) < math.log(high / low) / 3


def test_times_at_the_start_are_no_figure(tmp_path):
    for index, name in enumerate(("sgd", "adam")):
        make_run(tmp_path / str(index), name)
    made = compare([tmp_path])
    assert times_fit(made)
    at_start = replace(made, options=made.options._replace(target="1e9"), _made={})
    assert not times_fit(at_start)

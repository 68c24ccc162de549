"""Every kind of figure: that its lines carry the table's numbers, that a kind is asked for by its
name, and what is written beside it."""

import json
import math
import re
import shutil
import warnings
from functools import partial
from itertools import combinations, pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from in_process import sub_command
from made_runs import make_run, sweep
from matplotlib import rc_context, rcParams
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from optbench.analysis.comparison import Options, compare
from optbench.analysis.final_values import final_values
from optbench.analysis.series import assign_series
from optbench.analysis.table import load_runs
from optbench.analysis.time_to_target import time_to_target
from optbench.analysis.trials import trial_scores
from optbench.common.errors import UserError
from optbench.figures import kinds, style
from optbench.figures.cost import cost
from optbench.figures.curves import curves
from optbench.figures.depth import layers_by_depth
from optbench.figures.finals import finals
from optbench.figures.looks import series_of
from optbench.figures.over_problems import cd_diagram, profile_figure
from optbench.figures.panels import TooManyPanels, add_warning
from optbench.figures.save import lay_out, save
from optbench.figures.sensitivity import sensitivity
from optbench.figures.time_to_target import time_to_target_figure
from optbench.figures.trials import rate_scatter
from optbench.formats.run import COLUMNS
from optbench.report.draw import draw_all
from optbench.trajectories.contours import still
from optbench.trajectories.descent import run_optimizer
from optbench.trajectories.functions import FUNCTIONS

main = sub_command("plot")

CONF = Path(__file__).resolve().parents[2] / "conf" / "optimizer"
COST = {"step_ms": 0.5, "state_bytes": 800, "parameters": 100}


def named(axes, name: str) -> list[Line2D]:
    return [line for line in axes.lines if str(line.get_label()) == name]


def xs(line: Line2D) -> list[float]:
    return [float(x) for x in np.asarray(line.get_xdata(), dtype=float)]


def ys(line: Line2D) -> list[float]:
    return [float(y) for y in np.asarray(line.get_ydata(), dtype=float)]


def seen(figure: Figure, text: Text) -> bool:
    """Whether it is drawn: matplotlib keeps labels of ticks outside the limits, unpainted."""
    if not (text.get_visible() and text.get_text().strip()):
        return False
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = axis._update_ticks()
            every = [*axis.majorTicks, *axis.minorTicks]
            if any(text in (tick.label1, tick.label2) for tick in every if tick not in shown):
                return False
    return True


def layer_rows(folder: Path, scale: float) -> None:
    """A layers.csv of three weight layers and an activation at the first step and at step 36."""
    rows = [
        {"epoch": step / 36, "step": step, "layer": depth, "kind": kind, "depth": depth,
         "activation_std": scale * depth * step, "output_grad_std": scale / depth,
         "update_ratio": 1e-3 * scale * depth}
        for step in (1, 36) for depth in (1, 2, 3) for kind in ("linear", "relu")
    ]  # fmt: skip
    columns = COLUMNS["layers"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "layers.csv", index=False)


def test_final_values_are_dots_with_n_and_quartiles(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 6)
    make_run(tmp_path / "bad", "sgd", 6, diverged_at=40)
    table = load_runs(tmp_path)
    axes = finals(table, "val_loss").axes[0]
    values = final_values(table, "val_loss")
    owner = table.drop_duplicates("run").set_index("run")["optimizer"].astype(str)
    for name in ("adam", "sgd"):
        (dots,) = named(axes, name)
        own = values[owner == name].to_numpy(float)
        assert sorted(xs(dots)) == sorted(own[np.isfinite(own)])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["adam", "sgd"]  # best on top
    assert [text.get_text() for text in axes.texts] == ["n = 6", "n = 7"]
    adam = values[owner == "adam"].to_numpy(float)
    (box,) = [patch for patch in axes.patches if patch.get_y() < 0]
    low, high = np.quantile(adam, [0.25, 0.75], method="inverted_cdf")
    assert (box.get_x(), box.get_x() + box.get_width()) == pytest.approx((low, high))
    assert len(named(axes, "_diverged")) == 1
    medians = [path.vertices[0, 0] for lines in axes.collections for path in lines.get_paths()]
    assert medians == pytest.approx([np.median(values[owner == n]) for n in ("adam", "sgd")])


def test_a_run_that_blew_up_does_not_squeeze_the_others(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 3)
    table = load_runs(tmp_path)
    last = ~table["run"].duplicated(keep="last") & (table["optimizer"] == "sgd")
    table.loc[last & (table["seed"] == 0), "val_loss"] = 1e25
    figure = finals(table, "val_loss")
    near = final_values(table, "val_loss").nsmallest(5)
    low, high = figure.axes[0].get_xlim()
    assert low < near.min() < near.max() < high < 2 * near.max()
    assert "1 beyond the axis" in str(figure.get_label())


def test_costs_are_points_of_bytes_and_milliseconds(tmp_path: Path) -> None:
    for seed, ms in enumerate((0.4, 0.5, 0.9)):
        make_run(tmp_path / f"a{seed}", "adam", seed, record={"cost": COST | {"step_ms": ms}})
        make_run(tmp_path / f"s{seed}", "sgd", seed, lr=0.1 + seed,
                 record={"cost": COST | {"step_ms": 0.1, "state_bytes": 0}})  # fmt: skip
    axes = cost(load_runs(tmp_path)).axes[0]
    (adam,), (sgd,) = named(axes, "adam"), named(axes, "sgd")  # whatever the learning rate
    assert (xs(adam), ys(adam)) == ([8.0], [0.5])
    assert (xs(sgd), ys(sgd)) == ([0.0], [0.1])
    assert [0.4, 0.9] in [ys(line) for line in axes.lines]
    make_run(tmp_path / "other" / "x", "adam", 9)
    with pytest.raises(UserError, match="cost"):
        cost(load_runs(tmp_path / "other"))


def test_layers_by_depth_are_those_of_the_weights(tmp_path: Path) -> None:
    for seed, scale in enumerate((1.0, 2.0, 4.0)):
        layer_rows(make_run(tmp_path / f"{seed}", "adam", seed), scale)
    table = load_runs(tmp_path, rows="layers")
    figure = layers_by_depth(table)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "outputs (std), first step"
    assert titles[3] == "outputs (std), last step"
    drawn = [ys(named(axes, "adam")[0]) for axes in figure.axes]
    assert drawn[0] == [2, 4, 6]  # the middle of the three
    assert drawn[3] == [72, 144, 216]
    assert drawn[1] == drawn[4] == [2, 1, pytest.approx(2 / 3)]
    assert drawn[2] == pytest.approx([0.002, 0.004, 0.006])
    (band,) = figure.axes[0].collections
    at_one = {y for x, y in band.get_paths()[0].vertices if x == 1}
    assert at_one == {1, 4}
    layer_rows(make_run(tmp_path / "other", "adam", 0, batch_size=7), 1.0)
    panels = [axes.get_label() for axes in layers_by_depth(load_runs(tmp_path, rows="layers")).axes]
    assert len(panels) == 12
    assert panels[0] == "outputs (std), first step, batch_size = 7"
    assert panels[9] == "outputs (std), last step, batch_size = 128"
    for size in range(8, 14):
        layer_rows(make_run(tmp_path / f"other{size}", "adam", 0, batch_size=size), 1.0)
    many = load_runs(tmp_path, rows="layers")
    with pytest.raises(TooManyPanels, match="batch_size"):
        layers_by_depth(many)
    for size in range(8, 14):
        shutil.rmtree(tmp_path / f"other{size}")
    lines = layers_by_depth(load_runs(tmp_path, rows="layers"), "batch_size").axes[0].lines
    assert [str(line.get_label()) for line in lines] == ["batch_size=7", "batch_size=128"]


def test_settings_that_need_too_many_panels_become_each_optimizers_best(tmp_path: Path) -> None:
    names = [f"own{n}" for n in range(25)]
    for name, lr in product(names, (0.1, 0.01)):
        make_run(tmp_path / "runs" / f"{name}-{lr}", name, lr=lr)
    table = load_runs(tmp_path)
    with pytest.raises(TooManyPanels):
        curves(table)
    made = compare([tmp_path])
    drawn, skipped = kinds.draw(made, [], problems := [])
    assert (skipped, problems) == ([], [])
    (axes,) = drawn["curves"].axes
    lines = {str(line.get_label()): ys(line)[-1] for line in axes.lines}
    finals = table.groupby(["optimizer", "optimizer.lr"], observed=True)["train_loss"].last()
    assert lines == pytest.approx(finals.groupby("optimizer", observed=True).min().to_dict())
    assert "each optimizer at its best setting by final train loss" in drawn["curves"].get_label()
    assert len(drawn["test"].axes) == 1
    with pytest.raises(UserError, match="do not fit one figure"):  # panels that were asked for
        kinds.draw(compare([tmp_path], Options(facet=["optimizer"])), ["curves"], [])


def test_figures_that_are_too_large_share_a_sentence(tmp_path: Path) -> None:
    for size, name in product(range(1, 26), ("adam", "sgd")):
        make_run(tmp_path / f"{name}-{size}", name, batch_size=size)
    drawn, _ = kinds.draw(compare([tmp_path]), [], problems := [])
    (problem,) = problems
    assert problem.startswith("train_loss-epoch, test_accuracy-epoch: 25 panels (by batch_size)")
    assert "profile" in drawn


def test_ranks_profiles_and_times_carry_their_numbers(tmp_path: Path) -> None:
    ranks = pd.Series({"adam": 1.25, "sgd": 2.0, "momentum": 2.75})
    axes = cd_diagram(ranks, [["adam", "sgd"]], 8).axes[0]
    dots = {tuple(xs(line)) for line in axes.lines if len(line.get_xdata()) == 1}
    assert dots == {(1.25,), (2.0,), (2.75,)}
    assert "adam (1.25)" in [text.get_text() for text in axes.texts]
    times = pd.DataFrame({"p": {"a": 10.0, "b": 20.0}, "q": {"a": 10.0, "b": math.inf}})
    (a, b) = profile_figure(times).axes[0].lines
    assert set(ys(a)) == {1.0}
    assert set(ys(b)) == {0.0, 0.5}
    found = time_to_target(load_runs(sweep(tmp_path, ("adam", "sgd"), 3)), "val_loss")
    steps, seconds = time_to_target_figure(found).axes
    for axes, clock in ((steps, "steps"), (seconds, "seconds")):
        points = [line for line in axes.lines if line.get_label() != "_diverged"]
        drawn = sorted(xs(line)[0] for line in points if len(line.get_xdata()) == 1)
        assert drawn == sorted(found.frame[clock])


def test_trials_are_points_at_their_rates(tmp_path: Path) -> None:
    for index, lr in enumerate((1e-4, 2e-4, 1e-2, 1.0)):
        for name in ("adam", "sgd"):
            lost = 9 if lr == 1.0 else None
            make_run(tmp_path / f"{name}{index}", name, lr=lr, diverged_at=lost, phase="trials")
    trials = load_runs(tmp_path)
    axes = rate_scatter(trials).axes[0]
    scores = trial_scores(trials, "val_loss", "final")
    for name in ("adam", "sgd"):
        own = scores[scores["optimizer"] == name].sort_values("lr")
        color = style.style_of(name).color
        mine = [line for line in axes.lines if line.get_color() == color]
        points, best, lost = mine
        assert list(zip(xs(points), ys(points), strict=True)) == [
            (row.lr, row.score) for row in own.itertuples() if math.isfinite(row.score)
        ]
        first = own["score"].iloc[:2].min()  # of the half decade from 1e-4 on
        assert ys(best) == [first, own["score"].iloc[2]]
        assert xs(lost) == [1.0]


def test_ways_over_a_plane_are_the_points_of_the_paths() -> None:
    function = FUNCTIONS["ravine"]()
    paths = [
        run_optimizer(function, partial(torch.optim.SGD, lr=lr), steps=20)._replace(label=f"{lr}")
        for lr in (0.01, 0.05)
    ]
    plane, curve = still(function, paths).axes
    drawn = [np.transpose(line.get_data()) for line in plane.lines]
    for path in paths:
        assert any(np.array_equal(points, path.points) for points in drawn)
        gap = path.losses - function.least
        assert any(np.array_equal(ys(line), gap) for line in curve.lines)


def test_small_multiples_share_one_legend(tmp_path: Path) -> None:
    for norm in (False, True):
        for name in ("default", "he"):
            sweep(tmp_path, ("adam", "sgd"), 2, model__batch_norm=norm, initializer__name=name)
    table = load_runs(tmp_path)
    figure = curves(table, facet=["model.batch_norm", "initializer"])
    assert [axes.get_legend() for axes in figure.axes] == [None] * 4
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["adam", "sgd"]
    labels = [(axes.get_xlabel() != "", axes.get_ylabel() != "") for axes in figure.axes]
    assert labels == [(False, True), (False, False), (True, True), (True, False)]


def test_a_kind_is_asked_for_by_its_name(tmp_path: Path, capsys) -> None:
    sweep(tmp_path / "r", ("adam", "sgd", "momentum"), 6)
    folder, out = str(tmp_path / "r"), tmp_path / "o"
    assert main([folder, "-o", str(out), "--kind", "ranks", "finals", "--format", "png"]) == 0
    assert {path.name for path in out.iterdir()} == {
        "critical_difference.png", "critical_difference.txt",
        "final_train_loss.png", "final_train_loss.txt",
    }  # fmt: skip
    capsys.readouterr()
    assert main([folder, "-o", str(out), "--kind", "rank"]) == 1
    err = capsys.readouterr().err
    assert "Did you mean ranks?" in err
    assert all(name in err for name in kinds.KINDS)
    assert main([folder, "-o", str(out), "--kind", "layers"]) == 1
    assert "diagnostics=layers" in capsys.readouterr().err
    assert main([folder, "-o", str(out), "--kind", "all", "--format", "svg"]) == 0
    err = capsys.readouterr().err
    assert {line.split(": ")[1] for line in err.splitlines() if line.startswith("does not")} == {
        "grid", "learning_rate", "profile", "budget", "layers", "cost", "rate_decay"
    }  # fmt: skip
    # one that does not apply does not stop the others
    other = tmp_path / "other"
    assert main([folder, "-o", str(other), "--kind", "layers", "ranks", "--format", "png"]) == 1
    assert "does not apply: layers: no run has a layers.csv" in capsys.readouterr().err
    assert (other / "critical_difference.png").exists()
    assert main([folder, "-o", str(out), "--style", "poster"]) == 1
    assert "paper, notebook, talk" in capsys.readouterr().err
    assert main([folder, "-o", str(out), "--columns", "3"]) == 1


def test_layers_are_drawn_where_they_were_logged(tmp_path: Path) -> None:
    for seed in range(2):
        layer_rows(make_run(tmp_path / f"{seed}", "adam", seed), 1.0)
    result = draw_all([tmp_path], options=Options(formats=["png"]))
    assert "layers.png" in {path.name for path in result.paths}


def test_captions_say_what_is_drawn_and_every_warning(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 3)
    make_run(tmp_path / "bad", "sgd", 3, diverged_at=40)
    result = draw_all([tmp_path], options=Options(formats=["svg"]))
    text = (tmp_path / "train_loss-epoch.txt").read_text("utf-8")
    first, axes, shown, meaning, *warnings = text.splitlines()
    assert first == "Loss curves."
    assert axes == (
        "Training loss (cross entropy, nats) against passes over the training set (epochs)."
    )
    assert shown == "Shown: sgd (1 of 4 diverged), adam."
    assert "mnist_5k, mlp, batch size 128" in meaning
    assert "median of 3 to 4 seeds, band: min to max" in meaning
    assert result.warnings
    assert warnings == [f"Warning: {text}." for text in result.warnings]


def test_a_figure_has_one_line_of_warning_and_says_where_the_rest_is(tmp_path: Path) -> None:
    table = load_runs(sweep(tmp_path, ("adam", "sgd"), 2))

    def printed(warnings: list[str]) -> str:
        figure = curves(table)
        before = figure.get_supxlabel()
        add_warning(figure, warnings, "x.txt")
        assert figure.get_supxlabel().startswith(f"{before}\n")
        return figure.get_supxlabel().removeprefix(f"{before}\n")

    assert printed(["a"]) == "Warning: a"
    assert printed(["a", "b"]) == "2 warnings: see x.txt"
    assert printed(["few " * 50]) == "1 warning: see x.txt"


def test_sizes_and_styles_change_the_figure_and_nothing_else(tmp_path: Path) -> None:
    table = load_runs(sweep(tmp_path, ("adam", "sgd"), 2))
    before = dict(rcParams)
    wide = curves(table)
    for columns, width in style.WIDTHS.items():
        with style.use(columns=columns):
            figure = curves(table)
        assert figure.get_figwidth() == width
        assert "median of 2 seeds" in str(figure.get_label())
        assert figure.legends  # above, and the small print is in the caption alone
        hidden = [text for text in figure.findobj() if getattr(text, "get_text", str)() == str(
            figure.get_supxlabel())]  # fmt: skip
        assert not any(text.get_visible() for text in hidden)
    with style.use("talk"):
        talk = curves(table)
    size = talk.axes[0].xaxis.label.get_size() / wide.axes[0].xaxis.label.get_size()
    assert size == pytest.approx(style.STYLES["talk"][0])
    assert talk.get_figwidth() > wide.get_figwidth()
    assert dict(rcParams) == before
    with rc_context():
        import matplotlib.style

        matplotlib.style.use("optbench.paper")
        assert rcParams["pdf.fonttype"] == 42


@pytest.mark.parametrize(
    ("look", "columns"),
    [
        ("paper", None),
        pytest.param("paper", 1, marks=pytest.mark.slow),
        pytest.param("talk", 2, marks=pytest.mark.slow),
    ],
)
def test_texts_stay_in_the_figure_and_titles_apart(
    tmp_path: Path, look: str, columns: int | None
) -> None:
    grid = ["initializer", "model.batch_norm"]
    for norm in (False, True):
        for name in ("xavier_normal", "he_normal"):
            for lr in (0.001, 5000.0):
                keys = {"model__batch_norm": norm, "initializer__name": name, "lr": lr}
                sweep(tmp_path, ("adam", "rmsprop", "sgd"), 1, **keys)
    table = load_runs(tmp_path)
    one = table[(table["initializer.name"] == "he_normal") & (table["model.batch_norm"] == False)]  # noqa: E712
    for run in one["run"].unique():
        layer_rows(Path(run), 1e3)
    layers = load_runs(tmp_path, rows="layers")
    slow = table[table["optimizer.lr"] == 0.001]
    with style.use(look, columns), warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = {
            "curves": curves(one),
            "panels": curves(slow, facet=grid[:1], lines="model.batch_norm"),
            "grid": curves(slow, facet=grid),
            "accuracy": curves(slow, "test_accuracy", facet=grid),
            "learning_rate": sensitivity(table, facet=grid),
            "finals": finals(slow, "test_accuracy", grid),
            "layers": layers_by_depth(layers),
            "time_to_target": time_to_target_figure(time_to_target(slow, "val_loss")),
        }
        for name, figure in figures.items():
            figure.draw_without_rendering()
            dots = figure.dpi / 72 * 2  # two points
            width, height = figure.bbox.size
            drawn = [text for text in figure.findobj(Text) if seen(figure, text)]
            for text in drawn:
                box = text.get_window_extent()
                inside = min(box.x0, box.y0, width - box.x1, height - box.y1) > -dots
                assert inside, (name, text.get_text(), box.bounds, (width, height))
            titles = [
                text.get_window_extent()
                for text in drawn
                if text in [a._left_title for a in figure.axes]
            ]
            for first, second in combinations(titles, 2):
                apart = max(
                    first.x0 - second.x1, second.x0 - first.x1,
                    first.y0 - second.y1, second.y0 - first.y1,
                )  # fmt: skip
                assert apart > -dots, name


def test_fonts_are_embedded(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    draw_all([tmp_path], options=Options(formats=["pdf", "svg"], kinds=["curves"]))
    pdf = (tmp_path / "train_loss-epoch.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType
    assert b"/Type3" not in pdf
    svg = (tmp_path / "train_loss-epoch.svg").read_text("utf-8")
    assert "<text" not in svg  # outlines


def shipped() -> list[str]:
    files = [*CONF.glob("*.yaml"), *CONF.glob("textbook/*.yaml")]
    return [str(yaml.safe_load(path.read_text("utf-8"))["name"]) for path in files]


def test_no_two_optimizers_look_the_same() -> None:
    names = shipped()
    assert len(names) > 20
    looks = style.looks([*names, *(f"mine{index}" for index in range(200))])
    assert len(set(looks.values())) == len(looks)
    assert all(style.style_of(name) == looks[name] for name in names)
    # on a page, which has no markers, as well
    thirty = style.looks(f"my alpha, beta={index}" for index in range(30))
    assert len({look[:2] for look in thirty.values()}) == 30
    # those of one kind of line differ in their colours to the eye
    for name in style.LOOKS:
        for other in style.LOOKS:
            one, two = style.LOOKS[name], style.LOOKS[other]
            if name < other and one.dashes == two.dashes:
                channels = [
                    [int(to_hex(look.color)[at : at + 2], 16) for at in (1, 3, 5)]
                    for look in (one, two)
                ]
                assert np.abs(np.subtract(*channels)).max() >= 40, (name, other)


def test_an_optimizer_looks_the_same_in_every_figure_of_a_study(tmp_path: Path) -> None:
    names = ("mine", "adam", "yours")
    for name in names:
        for lr in (1e-3, 1e-2):
            sweep(tmp_path, (name,), 2, lr=lr)
    table = load_runs(tmp_path)
    one = load_runs(sweep(tmp_path / "one", names, 2))
    colours = {}
    figures: list[Figure] = [curves(one), sensitivity(table), finals(one, "val_loss")]
    for figure in figures:
        for name in names:
            (line,) = named(figure.axes[0], name)
            colours.setdefault(name, set()).add((to_hex(line.get_color()), line.get_marker()))
    assert all(len(seen) == 1 for seen in colours.values()), colours
    # also in a part of the study, where another of the same hash is missing
    twins = [name for name in (f"o{i}" for i in range(400)) if style.hashed(name)[:2]]
    by_hash: dict[style.LineStyle, list[str]] = {}
    for name in twins:
        by_hash.setdefault(style.hashed(name), []).append(name)
    first, second = next(group for group in by_hash.values() if len(group) > 1)[:2]
    both = style.looks([first, second])
    assert both[first] != both[second]
    with style.use(names=[first, second]):
        assert style.style_of(second) == both[second]
        (entry,) = series_of(assign_series(one[one["optimizer"] == "mine"]).runs, assign_series(
            one[one["optimizer"] == "mine"]))  # fmt: skip
        assert entry[2] == style.style_of("mine")


@pytest.mark.parametrize("rates", [(0.01, 0.02), (0.001, 0.003, 0.01, 0.02), (1e-4, 1e-2, 1.0)])
@pytest.mark.parametrize("columns", [None, 1])
def test_labels_of_learning_rates_do_not_meet(
    tmp_path: Path, rates: tuple[float, ...], columns: int | None
) -> None:
    for lr in rates:
        sweep(tmp_path, ("adam", "sgd"), 1, lr=lr)
    with style.use(columns=columns):
        figure = sensitivity(load_runs(tmp_path))
        figure.draw_without_rendering()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    labels = [*axes.get_xticklabels(), *axes.get_xticklabels(minor=True)]
    boxes = sorted(
        (label.get_window_extent() for label in labels
         if label.get_text() and low <= label.get_position()[0] <= high),
        key=lambda box: box.x0,
    )  # fmt: skip
    assert len(boxes) >= 2
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


@pytest.mark.filterwarnings("error")
def test_a_figure_grows_until_its_texts_leave_room_for_it(tmp_path: Path) -> None:
    with style.rc():
        figure = Figure(figsize=(2, 0.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([1, 2])
        figure.supxlabel("a warning\nof several\nlines", fontsize=8)
    save(figure, tmp_path, "small", ["png"])
    assert figure.get_figheight() > 0.6
    assert axes.get_position().height > 0.1


def test_the_sweep_may_name_style_and_columns(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 1)
    (tmp_path / "figure.json").write_text(json.dumps({"style": "talk", "columns": 2}))
    draw_all([tmp_path], options=Options(formats=["svg"], kinds=["curves"]))
    svg = (tmp_path / "train_loss-epoch.svg").read_text("utf-8")
    assert re.search(rf'width="{style.WIDTHS[2] * 72:g}pt"', svg)


def test_phases_of_a_problem_share_the_axis_of_their_times(tmp_path: Path) -> None:
    for phase, lr in (("tuned", 0.003), ("default", 1e-5)):
        sweep(tmp_path, ("adam", "sgd"), 2, phase=phase, lr=lr)
    found = time_to_target(load_runs(tmp_path), "val_loss", "0.9")
    steps = [axes.get_xlim() for axes in time_to_target_figure(found).axes[::2]]
    assert len(steps) == 2
    assert steps[0] == steps[1]


def test_ticks_stand_apart_and_words_stay_whole_in_narrow_panels(tmp_path: Path) -> None:
    found = time_to_target(load_runs(sweep(tmp_path, ("adam", "sgd"), 2)), "val_loss")
    found.frame[["seconds", "seconds_min", "seconds_max"]] /= 100
    with style.use("talk", 1):
        figure = time_to_target_figure(found)
        lay_out(figure)
    assert [axes.get_xlabel() for axes in figure.axes] == ["optimizer\nsteps", "training\ntime (s)"]
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert len(boxes) > 1
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


@pytest.mark.parametrize("known", [(), ("adam", "lion", "soap")])
def test_own_optimizers_share_no_colour_while_there_are_others(known: tuple[str, ...]) -> None:
    left = len(style.OTHERS) - sum(name in style.FIELD for name in known)
    for prefix in ("my ", "lr=0.", "variant-"):
        own = style.looks([*known, *(f"{prefix}{index}" for index in range(left))])
        assert len({look.color for look in own.values()}) == len(own)

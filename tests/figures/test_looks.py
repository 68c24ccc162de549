"""A colour is an optimizer, a shade or a marker its setting: in every figure alike."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run, sweep
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from optbench.analysis.comparison import Options, compare
from optbench.analysis.time_to_target import time_to_target
from optbench.figures import style
from optbench.figures.curves import MAX_BANDS, curves
from optbench.figures.looks import categorical_style, lightness, looks_of_runs, shade
from optbench.figures.sensitivity import sensitivity
from optbench.figures.time_to_target import time_to_target_figure
from optbench.report.collect import collect

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


def hue(color: object) -> float:
    return colorsys.rgb_to_hls(*to_rgb(color))[0]


def two_settings(folder: Path, momenta: tuple[float, ...] = (0.0, 0.9)) -> Path:
    """Runs of one optimizer: six learning rates by values of its momentum."""
    for momentum in momenta:
        for lr in RATES:
            for seed in range(2):
                where = folder / f"{momentum}-{lr}-{seed}"
                make_run(where, "momentum", seed, lr, optimizer__momentum=momentum)
    return folder


def colors_of(figure: Figure) -> set[str]:
    lines = [line for axes in figure.axes for line in axes.lines]
    return {to_hex(line.get_color()) for line in lines if line.get_marker() in style.MARKERS}


def test_a_setting_looks_the_same_in_panels_and_in_rows(tmp_path: Path) -> None:
    made = compare([two_settings(tmp_path)])
    rows, panels = made.series(), made.spread()
    assert (rows.facet, panels.facet) == ([], ["optimizer.momentum"])
    looks = looks_of_runs(rows)
    assert looks == looks_of_runs(panels)
    by_setting = dict(zip(rows.runs["variant"], rows.runs["run"].map(looks), strict=True))
    assert len(set(by_setting.values())) == len(by_setting) == 12
    found = time_to_target(made, "val_loss", 1.5)
    axes = time_to_target_figure(found).axes[0]
    drawn = [line for line in axes.lines if line.get_marker() in style.MARKERS]
    arrived = found.frame[np.isfinite(found.frame["steps"])]
    want = [by_setting[name] for name in arrived["optimizer"]]
    assert len(want) > 3
    assert [(line.get_color(), line.get_marker()) for line in drawn] == [
        (look.color, look.marker) for look in want[::-1]
    ]


def test_every_figure_of_one_optimizer_has_its_colour(tmp_path: Path) -> None:
    made = compare([two_settings(tmp_path)])
    own = hue(style.style_of("momentum").color)
    times = time_to_target_figure(time_to_target(made, "val_loss", 1.5))
    for figure in (curves(made), sensitivity(made), times):
        for color in colors_of(figure):
            assert hue(color) == pytest.approx(own, abs=0.01)
    data = collect([tmp_path])
    lines = [*data["names"], *(line for panel in data["rates"] for line in panel["lines"])]
    assert len(lines) == 14
    for line in lines:
        assert hue(line["color"]) == pytest.approx(own, abs=0.01)


@pytest.mark.parametrize("name", [*style.LOOKS, "amsgrad", "mine"])
def test_shades_of_an_optimizer_go_from_dark_to_light_and_stay_visible(name: str) -> None:
    base = style.style_of(name)
    assert shade(base, 0, 1) == base
    for count in (2, 9, 30):
        light = [lightness(shade(base, index, count).color) for index in range(count)]
        assert light == sorted(light)
        assert light[-1] - light[0] > 0.37
        assert light[-1] < 0.65


def test_a_legend_of_several_optimizers_settings_is_grey(tmp_path: Path) -> None:
    for lr in RATES[:4]:
        sweep(tmp_path / str(lr), ("adam", "sgd", "rmsprop"), 1, lr=lr)
    figure = curves(compare([tmp_path]))
    assert [axes.get_title("left") for axes in figure.axes] == ["adam", "rmsprop", "sgd"]
    handles = figure.legends[0].legend_handles
    greys = [to_rgb(handle.get_color()) for handle in handles]
    assert all(np.ptp(grey) < 0.01 for grey in greys)
    assert [grey[0] for grey in greys] == sorted(grey[0] for grey in greys)
    for axes in figure.axes:
        assert [line.get_marker() for line in axes.lines] == [h.get_marker() for h in handles]


def test_words_of_the_problem_have_colours_that_no_optimizer_has(tmp_path: Path) -> None:
    for name in ("he", "xavier", "default"):
        sweep(tmp_path / name, ("sgd", "adam"), 1, initializer__name=name)
    figure = curves(compare([tmp_path], Options(lines="initializer")), lines="initializer")
    first, second = ([line.get_color() for line in axes.lines] for axes in figure.axes)
    assert first == second
    assert len(set(first)) == 3
    assert not {*first} & {style.style_of(name).color for name in ("sgd", "adam")}
    for name in ("he", "xavier", "default"):  # a learning rate beside it has dashes
        sweep(tmp_path / f"{name} slow", ("sgd",), 1, initializer__name=name, lr=0.1)
    made = compare([tmp_path], Options(where=["optimizer=sgd"], lines="initializer"))
    plan = made.series(None, "initializer")
    looks = dict(zip(plan.runs["variant"], plan.runs["run"].map(looks_of_runs(plan)), strict=True))
    assert len(set(looks.values())) == len(looks) == 6
    assert len({look.color for look in looks.values()}) == 3
    assert len({look.dashes for look in looks.values()}) == 2
    every = [categorical_style(index, ["sgd"]) for index in range(60)]
    assert len(set(every)) == 60


def test_numbers_of_the_problem_are_shades_too(tmp_path: Path) -> None:
    for size in (1, 32, "full"):
        sweep(tmp_path / str(size), ("momentum",), 1, batch_size=size)
    figure = curves(compare([tmp_path]), lines="batch_size")
    own = hue(style.style_of("momentum").color)
    assert len(colors_of(figure)) == 3
    assert all(hue(color) == pytest.approx(own, abs=0.01) for color in colors_of(figure))


def test_only_the_best_line_of_a_full_panel_has_a_band(tmp_path: Path) -> None:
    for index in range(MAX_BANDS):
        sweep(tmp_path / str(index), ("adam",), 2, lr=0.001 * 2**index)
    figure = curves(compare([tmp_path]))
    assert len(figure.axes[0].collections) == MAX_BANDS
    assert "only of the best" not in str(figure.get_label())
    sweep(tmp_path / "one more", ("adam",), 2, lr=1.0)
    figure = curves(compare([tmp_path]))
    (band,) = figure.axes[0].collections
    best = min(figure.axes[0].lines, key=lambda line: float(np.asarray(line.get_ydata())[-1]))
    assert to_hex(band.get_facecolor()[0]) == to_hex(best.get_color())
    assert "only of the best" in str(figure.get_label())


def test_a_full_figure_of_times_leaves_out_who_never_arrived(tmp_path: Path) -> None:
    made = compare([two_settings(tmp_path)])
    hard = time_to_target(made, "val_loss", float(made.finals("val_loss").median()))
    never = int((hard.frame["reached"] == 0).sum())
    assert 0 < never < 12
    figure = time_to_target_figure(hard)
    assert len(figure.axes[0].get_yticklabels()) == 12 - never
    assert f"{never} left out, which never reached it" in str(figure.get_label())
    none = time_to_target(made, "val_loss", 1e-9)
    assert len(time_to_target_figure(none).axes[0].get_yticklabels()) == 12

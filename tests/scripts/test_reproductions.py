"""Verdicts on rebuilt figures: a wrong study turns them red; pages are those of the runs."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import optbench
from optbench import datasets, initializers, losses, models, prepare
from scripts.results import packed
from scripts.results.reproductions import __main__ as program
from scripts.results.reproductions import checks, figures, frames, page, studies

KEPT = [name for name in studies.names() if studies.load(name).table.exists()]
TABLE = "adadelta_1"  # a study whose runs are committed


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The study of Zeiler's table 1: its YAML, our committed values, the published ones."""
    study = studies.load(TABLE)
    folder = tmp_path_factory.mktemp("runs")
    packed.unpack(study.table, folder)
    return study.spec, frames.ours(study, folder), frames.published(study)


def curves(**shapes: float) -> pd.DataFrame:
    """Curves that fall from 1, as optimizers' do: x from 1 to 50, 1 / x to a power."""
    x = np.arange(1.0, 51)
    parts = [pd.DataFrame({"series": n, "x": x, "value": x**-power}) for n, power in shapes.items()]
    return pd.concat(parts, ignore_index=True)


SPEC = {"checks": [{"curves": [10, 50], "within": 0.15}, {"order": [20, 50], "discordant": 0}]}
PUBLISHED = curves(Adam=1.0, SGD=0.5, AdaGrad=0.7)


def word(ours: pd.DataFrame, published: pd.DataFrame = PUBLISHED, spec=SPEC) -> str:
    return checks.verdict(checks.judge(spec, ours, published))


def test_true_curves_are_reproduced():
    noise = np.random.default_rng(0).normal(1, 0.05, len(PUBLISHED))
    assert word(PUBLISHED.assign(value=PUBLISHED["value"] * noise)) == "reproduced"


def test_optimizer_under_anothers_name_is_not_reproduced(table):
    renamed = {"Adam": "SGD", "SGD": "Adam"}
    assert word(PUBLISHED.assign(series=PUBLISHED["series"].replace(renamed))) == "not"
    spec, ours, published = table
    renamed = {"AdaGrad": "SGD", "SGD": "AdaGrad"}
    wrong = checks.judge(spec, ours.assign(series=ours["series"].replace(renamed)), published)
    assert {check.what.split()[0] for check in wrong if not check.held} == {"AdaGrad", "SGD"}


@pytest.mark.parametrize("value", [1e-3, 0.1, 2.3])
def test_constant_is_not_reproduced(value):
    assert word(PUBLISHED.assign(value=value)) == "not"
    assert word(PUBLISHED, PUBLISHED.assign(value=value)) == "not"


def test_ignored_learning_rate_is_not_reproduced(table):
    spec, ours, published = table
    assert word(ours, published, spec) == "reproduced"
    at_one_rate = ours[ours["x"] == 0.01].set_index("series")["value"]
    ignored = ours.assign(value=ours["series"].map(at_one_rate))
    assert word(ignored, published, spec) == "not"


def test_missing_series_diverged_run_and_missing_cells_are_not_reproduced(table):
    assert word(PUBLISHED[PUBLISHED["series"] == "Adam"]) == "not"
    assert word(PUBLISHED.assign(value=np.inf)) == "not"
    spec, ours, published = table
    few = ours[ours["x"] > 0.001]
    assert word(few, published, spec) != "reproduced"


def test_shuffled_labels_are_not_reproduced():
    published = frames.published(studies.load("adam_1"))
    raw = datasets.mnist_5k()
    order = torch.randperm(len(raw.train_y), generator=torch.Generator().manual_seed(0))
    found = {}
    for name, y in (("true", raw.train_y), ("shuffled", raw.train_y[order])):
        data = prepare((raw.train_x, y, raw.test_x, raw.test_y), preprocessing="scale")
        problem = optbench.Problem(
            data, models.logreg, losses.cross_entropy, initializers.initialize, epochs=30
        )
        adam = partial(torch.optim.Adam, lr=1e-3)
        rows = [u.epoch for u in optbench.train(problem, adam, eval_test="never") if u.epoch]
        found[name] = pd.DataFrame(
            {
                "series": "Adam",
                "x": [row["epoch"] for row in rows[1:]],
                "value": [row["running_loss"] for row in rows[1:]],
            }
        )
    adam = published[published["series"] == "Adam"]
    errors = {name: checks.log_error(frame, adam, 15, 30) for name, frame in found.items()}
    assert errors["shuffled"] > 1  # the cost of a guess is nine times the published one
    assert errors["true"] < 0.5  # a tenth of the images, so another problem


def test_left_out_input_dropout_misses_figure_2a_by_a_quarter():
    study = studies.load("control_input_dropout")
    if not study.table.exists():
        pytest.skip("its runs are not committed yet")
    result = program.made(study)
    (check,) = result.checks
    assert result.verdict == "not"
    assert check.distance > 0.25


def test_range_checks_quotients_and_names_what_is_missing():
    asked = {"what": "Adam over SGD", "series": "Adam", "over": "SGD", "x": 25, "range": [0.1, 0.3]}
    (check,) = checks.judge({"checks": [asked]}, PUBLISHED, PUBLISHED)
    assert check.held
    assert check.ours == "0.2"
    (check,) = checks.judge({"checks": [asked | {"over": "Muon"}]}, PUBLISHED, PUBLISHED)
    assert not check.held
    with pytest.raises(ValueError, match="none of"):
        checks.judge({"checks": [{"curve": 1}]}, PUBLISHED, PUBLISHED)


def test_best_is_where_the_series_is_least():
    rates = pd.DataFrame(
        {"series": "sgd", "x": [0.01, 0.1, 1.0, 10.0], "value": [3.0, 1.0, 2.0, float("inf")]}
    )
    asked = {"what": "best rate", "best": "sgd", "range": [0.05, 0.2]}
    (check,) = checks.judge({"checks": [asked]}, rates, PUBLISHED)
    assert (check.held, check.ours, check.distance) == (True, "0.1", 0.0)
    (check,) = checks.judge({"checks": [asked | {"range": [0.2, 0.4]}]}, rates, PUBLISHED)
    assert not check.held
    assert check.distance == pytest.approx(math.log(2))
    (check,) = checks.judge({"checks": [asked | {"best": "adam"}]}, rates, PUBLISHED)
    assert not check.held


def test_log_error_is_that_of_a_shifted_curve():
    doubled = PUBLISHED.assign(value=2 * PUBLISHED["value"])
    adam, twice = (frame[frame["series"] == "Adam"] for frame in (PUBLISHED, doubled))
    assert checks.log_error(twice, adam, 10, 50) == pytest.approx(np.log(2))
    assert checks.log_error(twice, adam, 60, 70) == np.inf


@pytest.mark.parametrize("name", studies.names())
def test_every_study_states_its_limits_and_deviations(name):
    spec = studies.load(name).spec
    assert spec["checks"]
    assert spec["deviations"]
    for key in ("title", "source", "about", "ours", "draw"):
        assert spec[key], key
    for check in spec["checks"]:
        assert any(kind in check for kind in checks.KINDS)
    if spec.get("fitted"):
        assert not spec.get("fit")
    published = frames.published(studies.load(name))
    assert (published["value"] > 0).all()


@pytest.mark.parametrize("name", KEPT)
def test_committed_page_is_that_of_its_runs(name, tmp_path, monkeypatch):
    study = studies.load(name)
    monkeypatch.setattr(program, "save", lambda figure, *args: figure)
    result = program.made(study)
    assert page.page(result) == (study.folder / "README.md").read_text("utf-8")
    row = next(
        line
        for line in (studies.OUT / "README.md").read_text("utf-8").splitlines()
        if f"({name}/README.md)" in line
    )
    assert f"| {result.verdict}" in row
    assert f"| {result.form} |" in row


def test_figure_draws_published_curves_grey_and_ours_over_them():
    ours = PUBLISHED.assign(low=PUBLISHED["value"] * 0.9, high=PUBLISHED["value"] * 1.1)
    figure = figures.draw({"x": "passes", "y": "cost"}, ours, PUBLISHED)
    (axes,) = figure.axes
    grey = [line for line in axes.lines if line.get_color() == figures.GREY]
    assert len(grey) == 3 + 1  # and the legend's
    assert axes.get_yscale() == "log"
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert labels == {"Adam", "SGD", "AdaGrad", "published (grey)"}


def test_commands_name_the_study_and_its_short_form():
    study = studies.load("adam_2a")
    assert study.command("full") == "python -m optbench -m study=reproductions/adam_2a"
    assert study.command("short").endswith("adam_2a epochs=21")
    with pytest.raises(ValueError, match="there are"):
        studies.load("nothing")


def test_form_is_kept_beside_the_runs():
    for name in KEPT:
        form = json.loads((studies.load(name).folder / program.FORM_FILE).read_text("utf-8"))
        assert form["form"] in studies.FORMS


def test_pages_name_no_folder_of_this_machine():
    for path in [*studies.OUT.rglob("*.md"), *Path(studies.STUDIES).glob("*.yaml")]:
        assert str(studies.ROOT.parent) not in path.read_text("utf-8"), path


def test_crossings_are_found_where_curves_change_places():
    x = np.arange(1.0, 101.0)
    curves = {"a": 2 - 0.01 * x, "b": np.full(100, 1.5), "c": np.full(100, 9.0)}
    frame = pd.concat(
        pd.DataFrame({"series": name, "x": x, "value": value}) for name, value in curves.items()
    )
    spec = {"checks": [{"order": [10, 90], "discordant": 0}]}
    (found,) = checks.crossings(spec, frame, frame)
    assert found.pair == "b and a"  # b is ahead at first
    assert found.published == found.ours == pytest.approx(50, abs=1)
    swapped = frame.assign(series=frame["series"].map({"a": "c", "b": "b", "c": "a"}))
    pairs = {one.pair: (one.published, one.ours) for one in checks.crossings(spec, swapped, frame)}
    assert math.isnan(pairs["b and a"][1])
    assert math.isnan(pairs["b and c"][0])
    assert checks.crossings({"checks": []}, frame, frame) == []

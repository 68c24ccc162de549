"""Search spaces, the points of a search, and the choice."""

from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from optbench.common.errors import UserError
from optbench.formats.groups import config_folder
from optbench.tuning import edges, search
from optbench.tuning import space as spaces

LR = {"low": 1e-4, "high": 1.0, "scale": "log"}
SPACES = {
    "lr": {"lr": LR},
    "momentum": {"lr": LR, "momentum": {"low": 0.8, "high": 0.999, "scale": "one_minus_log"}},
    "betas": {"betas": [{"low": 0.5, "high": 0.999, "scale": "one_minus_log"}] * 2, "lr": LR},
    "linear": {"x": {"low": -2, "high": 5, "scale": "linear"}},
}
RANDOM_ACCESS = [method for method in search.METHODS if method not in ("tpe", "grid")]


def edges_at(space: dict, point: dict) -> list[str]:
    return [edge.text for edge in edges.edges_of(space, point)]


def flat(point: dict) -> list[float]:
    values = []
    for value in point.values():
        values += value if isinstance(value, list) else [value]
    return values


@settings(deadline=None)
@given(
    kind=st.sampled_from(list(SPACES)),
    method=st.sampled_from(RANDOM_ACCESS),
    trials=st.integers(1, 20),
    more=st.integers(0, 10),
    seed=st.integers(0, 1000),
)
def test_points_lie_in_the_space_and_more_trials_only_add(kind, method, trials, more, seed):
    few = search.points(SPACES[kind], trials, method, seed)
    many = search.points(SPACES[kind], trials + more, method, seed)
    assert len(few) == trials
    assert many[:trials] == few
    for point in many:
        specs = [spec for _, _, spec in spaces.ranges(SPACES[kind])]
        assert all(
            spec["low"] <= value <= spec["high"]
            for value, spec in zip(flat(point), specs, strict=True)
        )


def test_scales_follow_their_definitions():
    unit = [0.0, 0.5, 1.0]
    log = [spaces.scale_point(SPACES["lr"], [u])["lr"] for u in unit]
    assert log == pytest.approx([1e-4, 1e-2, 1.0])
    space = {"m": SPACES["momentum"]["momentum"]}
    momenta = [spaces.scale_point(space, [u])["m"] for u in unit]
    assert momenta == pytest.approx([0.8, 1 - (0.2 * 0.001) ** 0.5, 0.999], rel=1e-5)
    linear = [spaces.scale_point(SPACES["linear"], [u])["x"] for u in unit]
    assert linear == pytest.approx([-2, 1.5, 5])


def test_quasi_random_points_cover_each_decade():
    values = [point["lr"] for point in search.points({"lr": LR}, 16, "sobol", 3)]
    for decade in range(4):
        inside = [10 ** (decade - 4) <= value < 10 ** (decade - 3) for value in values]
        assert sum(inside) == 4


def test_a_grid_has_as_many_points_as_trials_whatever_the_dimension():
    assert [p["lr"] for p in search.points({"lr": LR}, 5, "grid", 0)] == pytest.approx(
        [1e-4, 1e-3, 1e-2, 1e-1, 1]
    )
    nine = search.points(SPACES["momentum"], 9, "grid", 0)
    assert {len({point[key] for point in nine}) for key in ("lr", "momentum")} == {3}
    for space in SPACES.values():
        for trials in range(1, 30):
            points = [str(point) for point in search.points(space, trials, "grid", 0)]
            assert len(set(points)) == len(points) == trials


def test_tpe_is_repeatable_and_finds_the_minimum():
    pytest.importorskip("optuna")

    def tried(seed):
        tpe, rates = search.Tpe({"lr": LR}, seed), []
        for _ in range(30):
            point = tpe.ask()
            rates.append(point["lr"])
            tpe.tell((point["lr"] - 0.01) ** 2 if point["lr"] < 0.5 else inf)
        return rates

    first = tried(0)
    assert first == tried(0)
    assert min(first, key=lambda lr: (lr - 0.01) ** 2) == pytest.approx(0.01, rel=0.5)


def test_the_choice_is_the_best_that_came_to_an_end():
    assert search.choose([inf, 0.3, 0.2, 0.2]) == 2
    assert search.choose([inf, inf]) is None
    summary = {"val_loss": 0.5, "best_val_loss": 0.2, "val_accuracy": 0.9, "best_val_accuracy": 1.0}
    assert search.score(summary, "val_loss", "final") == 0.5
    assert search.score(summary, "val_loss", "best") == 0.2
    assert search.score(summary, "val_accuracy", "final") == -0.9
    assert search.score({"val_loss": None}, "val_loss", "final") == inf
    assert search.score(None, "val_loss", "final") == inf


def test_an_optimum_at_the_edge_is_seen_on_the_ranges_own_scale():
    assert edges_at({"lr": LR}, {"lr": 1.1e-4}) == ["lr=0.00011 in [0.0001, 1]"]
    assert edges_at({"lr": LR}, {"lr": 0.01}) == []
    assert len(edges_at(SPACES["betas"], {"lr": 0.9, "betas": [0.9, 0.9988]})) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"low": 1, "high": 2}, "low, high and scale"),
        ({"low": 1, "high": 2, "scale": "cubic"}, "one of log, linear"),
        ({"low": 2, "high": 1, "scale": "log"}, "low must be below high"),
        ({"low": 0, "high": 1, "scale": "log"}, "above 0"),
        ({"low": 0.5, "high": 1, "scale": "one_minus_log"}, "below 1"),
        ({"low": "a", "high": 1, "scale": "log"}, "numbers"),
        (3, "low, high and scale"),
    ],
)
def test_a_malformed_space_is_named(spec, message):
    with pytest.raises(UserError, match=message) as caught:
        spaces.check_space({"lr": spec})
    assert "optimizer.search.lr" in str(caught.value)


@pytest.mark.parametrize(
    "path", sorted((config_folder() / "optimizer").rglob("*.yaml")), ids=lambda p: p.stem
)
def test_every_optimizer_has_a_space_that_holds_its_default_lr(path: Path):
    config = OmegaConf.to_container(OmegaConf.load(path))
    space = config["search"]
    spaces.check_space(space)
    assert set(space) <= set(config)
    if path.stem != "prodigy":  # which finds its rate by itself
        assert space["lr"]["low"] <= config["lr"] <= space["lr"]["high"]


WHOLE = {"low": 2, "high": 6, "scale": "linear"}


@pytest.mark.parametrize("method", [*RANDOM_ACCESS, "grid"])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_whole_numbers_are_searched_as_such_and_evenly(method, scale):
    space = {"rounds": WHOLE | {"scale": scale, "int": True}}
    found = [point["rounds"] for point in search.points(space, 200, method, 0)]
    assert all(isinstance(value, int) for value in found)
    assert set(found) == {2, 3, 4, 5, 6}
    if scale == "linear" and method != "random":
        assert {found.count(value) for value in set(found)} <= set(range(37, 44))
    assert spaces.overrides({"rounds": 3}) == ["optimizer.rounds=3"]


@pytest.mark.parametrize(
    ("name", "spec", "default", "whole"),
    [
        ("rounds", WHOLE, 5, True),
        ("rounds", WHOLE, 5.0, False),
        ("rounds", WHOLE, None, True),
        ("rounds", {**WHOLE, "low": 2.0}, 5, True),
        ("rounds", {**WHOLE, "low": 2.0}, None, False),
        ("rounds", {**WHOLE, "low": 2.5}, 5, False),
        ("rounds", WHOLE | {"int": False}, 5, False),
        ("rounds", WHOLE | {"int": True}, 5.0, True),
        ("decay", {"low": 0, "high": 1, "scale": "linear"}, 0, False),  # weight_decay: 0
        ("lr", {"low": 1, "high": 10, "scale": "log"}, 1, False),
    ],
)
def test_the_default_tells_whether_numbers_are_whole(name, spec, default, whole):
    spaces.check_space({name: spec})
    found = spaces.with_types({name: spec}, {name: default})
    assert bool(found[name].get("int")) == whole
    assert spaces.whole_numbers(found) == [name] * whole


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "empty"),
        ([], "group of keys"),
        (5, "group of keys"),
        ({"betas": []}, "empty list"),
        ({"betas": [1, 2]}, "must have low, high and scale"),
        ({"x": {"low": 1, "high": 2}}, "must have low, high and scale"),
        ({"x": WHOLE | {"step": 2}}, "must have low, high and scale"),
        ({"x": WHOLE | {"int": 1}}, "true or false"),
        ({"x": WHOLE | {"int": True, "low": 1.5}}, "whole numbers"),
        ({"x": {"low": 0, "high": -5, "scale": "linear"}}, "below high"),
        ({"x": {"low": 0, "high": 5, "scale": "log"}}, "above 0"),
        ({"x": {"low": -5, "high": 0, "scale": "one_minus_log", "int": True}}, "linear or log"),
        ({"x": {"low": True, "high": 5, "scale": "log"}}, "must be numbers"),
    ],
)
def test_spaces_that_mean_nothing_are_refused(space, words):
    with pytest.raises(UserError, match=words):
        spaces.check_space(space)


@pytest.mark.parametrize(
    ("spec", "default", "words"),
    [
        (WHOLE, True, "name the values to try"),
        (WHOLE, "fast", "name the values to try"),
        (WHOLE, [0.9, 0.99], "name the values to try"),
        ([WHOLE], [0.9, 0.99], "a list of 1 ranges"),
        ([WHOLE, WHOLE], 0.9, "a list of 2 ranges"),
    ],
)
def test_a_range_of_what_is_no_number_is_refused(spec, default, words):
    with pytest.raises(UserError, match=words):
        spaces.with_types({"x": spec}, {"x": default})

"""Tuning: the points tried, the choice, and the protocol end to end."""

import json
import sys
from math import inf
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import call
from omegaconf import OmegaConf

from optbench.analysis.table import load_runs
from optbench.common.errors import UserError
from optbench.config.groups import config_folder
from optbench.formats import study as study_files
from optbench.runner import run as experiment
from optbench.tuning import manifest
from optbench.tuning import search as tuning
from optbench.tuning.manifest import Contender

LR = {"low": 1e-4, "high": 1.0, "scale": "log"}
SPACES = {
    "lr": {"lr": LR},
    "momentum": {"lr": LR, "momentum": {"low": 0.8, "high": 0.999, "scale": "one_minus_log"}},
    "betas": {"betas": [{"low": 0.5, "high": 0.999, "scale": "one_minus_log"}] * 2, "lr": LR},
    "linear": {"x": {"low": -2, "high": 5, "scale": "linear"}},
}
RANDOM_ACCESS = [method for method in tuning.METHODS if method not in ("tpe", "grid")]


def flat(point: dict) -> list[float]:
    values = []
    for value in point.values():
        values += value if isinstance(value, list) else [value]
    return values


@settings(deadline=None)
@given(
    space=st.sampled_from(list(SPACES)),
    method=st.sampled_from(RANDOM_ACCESS),
    trials=st.integers(1, 20),
    more=st.integers(0, 10),
    seed=st.integers(0, 1000),
)
def test_points_lie_in_the_space_and_more_trials_only_add(space, method, trials, more, seed):
    few = tuning.points(SPACES[space], trials, method, seed)
    many = tuning.points(SPACES[space], trials + more, method, seed)
    assert len(few) == trials
    assert many[:trials] == few
    for point in many:
        ranges = [spec for _, _, spec in tuning._ranges(SPACES[space])]
        assert all(
            spec["low"] <= value <= spec["high"]
            for value, spec in zip(flat(point), ranges, strict=True)
        )


def test_scales_follow_their_definitions():
    unit = [0.0, 0.5, 1.0]
    log = [tuning.scale_point(SPACES["lr"], [u])["lr"] for u in unit]
    assert log == pytest.approx([1e-4, 1e-2, 1.0])
    space = {"m": SPACES["momentum"]["momentum"]}
    momenta = [tuning.scale_point(space, [u])["m"] for u in unit]
    assert momenta == pytest.approx([0.8, 1 - (0.2 * 0.001) ** 0.5, 0.999], rel=1e-5)
    linear = [tuning.scale_point(SPACES["linear"], [u])["x"] for u in unit]
    assert linear == pytest.approx([-2, 1.5, 5])


def test_quasi_random_points_cover_each_decade():
    values = [point["lr"] for point in tuning.points({"lr": LR}, 16, "sobol", 3)]
    for decade in range(4):
        inside = [10 ** (decade - 4) <= value < 10 ** (decade - 3) for value in values]
        assert sum(inside) == 4


def test_a_grid_has_as_many_points_as_trials_whatever_the_dimension():
    assert [p["lr"] for p in tuning.points({"lr": LR}, 5, "grid", 0)] == pytest.approx(
        [1e-4, 1e-3, 1e-2, 1e-1, 1]
    )
    nine = tuning.points(SPACES["momentum"], 9, "grid", 0)
    assert {len({point[key] for point in nine}) for key in ("lr", "momentum")} == {3}
    for space in SPACES.values():
        for trials in range(1, 30):
            points = [str(point) for point in tuning.points(space, trials, "grid", 0)]
            assert len(set(points)) == len(points) == trials


def test_tpe_is_repeatable_and_finds_the_minimum():
    pytest.importorskip("optuna")

    def search(seed):
        tpe, tried = tuning.Tpe({"lr": LR}, seed), []
        for _ in range(30):
            point = tpe.ask()
            tried.append(point["lr"])
            tpe.tell((point["lr"] - 0.01) ** 2 if point["lr"] < 0.5 else inf)
        return tried

    first = search(0)
    assert first == search(0)
    assert min(first, key=lambda lr: (lr - 0.01) ** 2) == pytest.approx(0.01, rel=0.5)


def test_the_choice_is_the_best_that_came_to_an_end():
    assert tuning.choose([inf, 0.3, 0.2, 0.2]) == 2
    assert tuning.choose([inf, inf]) is None
    summary = {"val_loss": 0.5, "best_val_loss": 0.2, "val_accuracy": 0.9, "best_val_accuracy": 1.0}
    assert tuning.score(summary, "val_loss", "final") == 0.5
    assert tuning.score(summary, "val_loss", "best") == 0.2
    assert tuning.score(summary, "val_accuracy", "final") == -0.9
    assert tuning.score({"val_loss": None}, "val_loss", "final") == inf
    assert tuning.score(None, "val_loss", "final") == inf


def test_an_optimum_at_the_edge_is_seen_on_the_ranges_own_scale():
    assert tuning.at_edge({"lr": LR}, {"lr": 1.1e-4}) == ["lr=0.00011 in [0.0001, 1]"]
    assert tuning.at_edge({"lr": LR}, {"lr": 0.01}) == []
    assert len(tuning.at_edge(SPACES["betas"], {"lr": 0.9, "betas": [0.9, 0.9988]})) == 2


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
        tuning.check_space({"lr": spec})
    assert "optimizer.search.lr" in str(caught.value)


@pytest.mark.parametrize(
    "path", sorted((config_folder() / "optimizer").rglob("*.yaml")), ids=lambda p: p.stem
)
def test_every_optimizer_has_a_space_that_holds_its_default_lr(path: Path):
    config = OmegaConf.to_container(OmegaConf.load(path))
    space = config["search"]
    tuning.check_space(space)
    assert set(space) <= set(config)
    assert space["lr"]["low"] <= config["lr"] <= space["lr"]["high"]


QUICK = ["dataset=blobs", "model.hidden=[8]", "epochs=1", "num_threads=1", "quiet=true"]
BLOBS = """
import torch

def blobs(flip):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    x = torch.eye(3)[y] * 3 + torch.randn(300, 3, generator=generator)
    test_y = (y[200:] + 1) % 3 if flip else y[200:]
    return x[:200], y[:200], x[200:], test_y
"""
YAML = """
name: blobs
_target_: blobs.blobs
preprocessing: standardize_features
flip: false
"""


@pytest.fixture
def study(monkeypatch, capsys, tmp_path):
    """A tuned study in this process: status, manifest, stdout, stderr."""
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "blobs.py").write_text(BLOBS)
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    (tmp_path / "mine" / "dataset" / "blobs.yaml").write_text(YAML)

    def run(*overrides: str, name: str = "s", m: bool = True):
        multirun = ["-m"] if m else []
        asked = [*multirun, "--config-dir", "mine", "hydra/sweeper=tuned", f"name={name}"]
        status = call(monkeypatch, *asked, *QUICK, *overrides)
        path = tmp_path / "results" / name / "study.json"
        manifest = json.loads(path.read_text()) if path.exists() else None
        return status, manifest, *capsys.readouterr()

    return run


def folders(tmp_path: Path, phase: str, name: str = "s") -> set[str]:
    return {path.parent.name for path in (tmp_path / "results" / name / phase).glob("*/run.json")}


def record(path: Path) -> dict:
    return json.loads((path / "run.json").read_text())


def test_a_study_tunes_and_then_compares_on_new_seeds(study, tmp_path):
    asked = ["optimizer=sgd,momentum", "tuning.trials=4", "seeds=3"]
    status, manifest, out, err = study(*asked)
    assert status == 0, err
    assert out == ""  # quiet
    text = (tmp_path / "results" / "s" / "summary.md").read_text()
    assert "| tuned | sgd |" in text
    assert "| default | momentum |" in text
    assert "fewer than" in err  # three seeds cannot reach a verdict
    assert [len(entry["trials"]) for entry in manifest["contenders"]] == [4, 4]
    assert (len(folders(tmp_path, "trials")), len(folders(tmp_path, "tuned"))) == (8, 6)
    assert len(folders(tmp_path, "default")) == 6
    for entry in manifest["contenders"]:
        best = min(entry["trials"], key=lambda trial: trial["score"])
        assert entry["chosen"] == best["point"]
    results = tmp_path / "results" / "s"
    for path in (results / "trials").iterdir():
        assert record(path)["seed"] == 0
        assert "test_loss" not in record(path)["summary"]  # the choice never saw it
    for path in [*(results / "tuned").iterdir(), *(results / "default").iterdir()]:
        assert record(path)["seed"] in (1, 2, 3)
        lines = (path / "epochs.csv").read_text().splitlines()[1:]
        assert [line.split(",")[7] != "" for line in lines] == [False, True]  # once, at the end
    chosen = {entry["optimizer"]: entry["chosen"]["lr"] for entry in manifest["contenders"]}
    for path in (results / "tuned").iterdir():
        optimizer = record(path)["config"]["optimizer"]
        assert optimizer["lr"] == chosen[optimizer["name"]]

    before = {path: path.stat().st_mtime_ns for path in results.glob("*/*/steps.csv")}
    status, more, _, _ = study("optimizer=sgd,momentum,adam", "tuning.trials=5", "seeds=4")
    assert status == 0
    for path, time in before.items():
        assert path.stat().st_mtime_ns == time  # run.json may say that it was asked for again
    assert len(folders(tmp_path, "trials")) == 15
    first = [trial["point"] for trial in more["contenders"][0]["trials"]][:4]
    assert first == [trial["point"] for trial in manifest["contenders"][0]["trials"]]


@pytest.mark.slow
def test_more_trials_leave_only_the_new_choice_in_tables_and_verdict(study, tmp_path):
    asked = ["optimizer=sgd,adam", "seeds=2"]
    _, before, _, _ = study(*asked, "tuning.trials=1")
    _, after, _, err = study(*asked, "tuning.trials=8")
    chosen = {entry["optimizer"]: entry["chosen"]["lr"] for entry in after["contenders"]}
    old = {entry["optimizer"]: entry["chosen"]["lr"] for entry in before["contenders"]}
    assert chosen != old  # else this test shows nothing
    folder = tmp_path / "results" / "s"
    table = load_runs(folder)
    tuned = table[table["phase"] == "tuned"].drop_duplicates("run")
    assert dict(zip(tuned["optimizer"], tuned["optimizer.lr"], strict=True)) == chosen
    assert len(tuned) == 4
    assert len(folders(tmp_path, "tuned")) > 4  # the old runs are still there
    verdicts = pd.read_csv(folder / "verdict.csv")
    assert {*verdicts["a"], *verdicts["b"]} == {"sgd", "adam"}
    summary = pd.read_csv(folder / "summary.csv")
    assert list(summary.groupby("phase")["seeds"].sum()) == [4, 4]
    assert "lr=" not in err

    # a command with another optimizer keeps the choice, and says that it had more trials
    _, third, _, err = study("optimizer=momentum", "seeds=2", "tuning.trials=2")
    assert [entry["optimizer"] for entry in third["earlier"]] == ["sgd", "adam"]
    assert "the budgets are unequal: 2 to 8 trials" in err
    table = load_runs(folder)
    tuned = table[table["phase"] == "tuned"].drop_duplicates("run")
    assert len(tuned) == 6


def test_too_few_seeds_for_holm_are_said_before_anything_runs():
    several = [[f"optimizer={name}"] for name in "abcdefg"]
    (text,) = manifest.too_few(several, 6)
    assert "with fewer than 8 pairs" in text
    assert "correction for 6 comparisons" in text
    assert not list(manifest.too_few(several, 8))
    assert not list(manifest.too_few(several[:2], 6))
    assert next(manifest.too_few(several[:2], 1)).startswith("1 seed: ")


def test_a_warning_names_the_contender_and_what_tells_it_apart():
    several = [
        Contender([f"optimizer={name}", "epochs=1", f"batch_size={size}"], name, {})
        for name in ("sgd", "adam")
        for size in (1, 2)
    ]
    assert manifest.label_of(several[0], several) == "sgd batch_size=1"
    assert manifest.label_of(several[3], several[1::2]) == "adam"


def test_warnings_of_other_problems_are_left_out_where_only_one_is_shown():
    def entry(problem: str | None, *warnings: str) -> dict[str, object]:
        return {"problem": problem, "warnings": list(warnings)}

    entries = [
        entry("a", "edge", "both"),
        entry("b", "edge of b", "both"),
        entry(None, "none ended"),
    ]
    told = ["edge", "both", "edge of b", "none ended", "3 seeds"]
    manifest = {"contenders": entries, "earlier": [], "warnings": told}
    kept = study_files.about(manifest, {"a"})["warnings"]
    assert kept == ["edge", "both", "none ended", "3 seeds"]
    assert study_files.about(manifest, {"a", "b"}) == manifest


@pytest.mark.slow
def test_losses_that_grow_without_end_are_objected_to_though_they_stay_finite(study, tmp_path):
    search = "++optimizer.search.lr={low:1e3,high:1e5,scale:log}"
    asked = ["optimizer=sgd", search, "tuning.trials=2", "seeds=1"]
    _, manifest, _, err = study(*asked)
    (warning,) = [text for text in manifest["warnings"] if "untrained" in text and "ended" in text]
    assert "2 trials" in warning
    assert "the best setting ends no better than the untrained model" in err

    _, manifest, _, err = study(*[w.replace("sgd", "adam") for w in asked if w != search])
    assert warning in manifest["warnings"]  # what it is about stands in the tables still
    assert warning in (tmp_path / "results" / "s" / "summary.md").read_text()


def test_changing_test_labels_changes_no_choice(study):
    asked = ["optimizer=sgd,adam", "tuning.trials=4", "seeds=1"]
    _, one, _, _ = study(*asked)
    _, other, _, _ = study(*asked, "dataset.flip=true", name="flipped")
    for a, b in zip(one["contenders"], other["contenders"], strict=True):
        for trial in (*a["trials"], *b["trials"]):
            del trial["run_id"]  # it holds the data's digest
        assert (a["trials"], a["chosen"]) == (b["trials"], b["chosen"])


def counts(manifest: dict, phase: str) -> list[int]:
    return [manifest["phases"][phase][key] for key in ("planned", "done", "failed", "missing")]


@pytest.mark.slow
def test_a_stopped_study_says_what_is_missing_and_goes_on_with_it(study, tmp_path, monkeypatch):
    # in this process, whose runs can be tampered with
    asked = ["optimizer=sgd,adam", "tuning.trials=3", "seeds=2", "hydra/launcher=basic"]
    run, number = experiment.run, iter(range(100))

    def stop(config, group, **rest):
        count = next(number)
        if count == 1:
            raise UserError("no luck")
        outcome = run(config, group, **rest)
        return outcome if count < 4 else outcome._replace(status="interrupted", signal=2)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "run", stop)
        status, manifest, _, err = study(*asked)
    assert status == 130
    assert "resumes" in err
    assert counts(manifest, "trials") == [6, 3, 1, 2]
    assert counts(manifest, "tuned") == counts(manifest, "default") == [4, 0, 0, 4]
    failed, missing = (manifest["phases"]["trials"]["jobs"][key] for key in ("failed", "missing"))
    assert "optimizer=sgd" in failed[0]
    assert "optimizer=adam" in missing[0]
    assert manifest["warnings"][0].startswith("runs are missing (2 of trials, 4 of tuned")

    status, manifest, _, err = study(*asked, "retry=none")
    assert status == 1
    assert manifest["retry"] == "none"
    assert counts(manifest, "trials") == [6, 5, 1, 0]
    assert counts(manifest, "tuned") == [4, 4, 0, 0]
    assert manifest["contenders"][0]["trials"][1]["status"] == "failed"
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "results" / "s").glob("*/*/steps.csv")}

    status, manifest, _, err = study(*asked)
    assert status == 0, err
    assert counts(manifest, "trials") == [6, 6, 0, 0]
    assert not any(text.startswith("runs are") for text in manifest["warnings"])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(folders(tmp_path, "trials")) == 6


def test_a_tuned_study_needs_no_m(study):
    status, manifest, _, err = study("optimizer=sgd", "tuning.trials=1", "seeds=1", m=False)
    assert status == 0, err
    assert counts(manifest, "default") == [1, 1, 0, 0]


def test_an_optimizer_with_nothing_to_search_has_one_trial_and_it_is_said(study):
    _, manifest, _, _ = study(
        "optimizer=sgd,momentum", "optimizer.lr=0.1", "tuning.trials=2", "seeds=1"
    )
    assert [len(entry["trials"]) for entry in manifest["contenders"]] == [1, 2]
    assert any("nothing was searched" in text for text in manifest["warnings"])
    assert not any("unequal" in text for text in manifest["warnings"])


def test_a_study_by_tpe_draws_no_budget_curve(study, tmp_path):
    pytest.importorskip("optuna")
    status, manifest, _, err = study(
        "optimizer=sgd,adam", "tuning.trials=3", "tuning.method=tpe", "seeds=1"
    )
    assert status == 0, err
    assert "random trials, which those of tuning.method=tpe are not" in err
    made = {path.name for path in (tmp_path / "results" / "s").iterdir()}
    assert not {"tuning.csv", "tuning_budget.png"} & made
    assert [len(entry["trials"]) for entry in manifest["contenders"]] == [3, 3]


def test_what_a_reviewer_would_object_to_is_said(study):
    space = "+optimizer.search.lr={low:1e10,high:1e20,scale:log}"
    asked = ["optimizer._target_=torch.optim.SGD", space, "tuning.trials=3", "seeds=1"]
    status, manifest, _, err = study(*asked)
    assert status == 0
    assert "no trial came to an end" in err
    assert manifest["contenders"][0]["chosen"] is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=0,1"], "tuning.seed"),
        (["tuning.trials=0"], "tuning.trials must be"),
        (["tuning.method=guess"], "tuning.method must be"),
        (["tuning.metric=test_loss"], "tuning.metric must be"),
        (["seeds=0"], "seeds must be"),
        (["data.val_size=0"], "data.val_size must be above 0"),
        (["+optimizer.search.lr={low:2,high:1,scale:log}", "optimizer._target_=x.Y"], "below high"),
        (["+optimizer.search.lr2={low:1,high:2,scale:log}"], "sgd has no lr2. Did you mean lr?"),
        (["optimizer.search=3"], "optimizer.search is a group of keys"),
        (["optimizer.lr=0.1"], "nothing to tune"),
        (["optimizer.lr=interval(0.1,1)"], "name some"),
        (["optimizer=sgd,nosuch"], "there is no optimizer=nosuch"),
        (["optimizer=sgd,addam"], "Did you mean adam?"),
        (["optimizer=glob(zz*)"], "matches no choice"),
        (["optimizer=sgd,sgd"], "asked for twice"),
        (["~optimizer.search"], "takes none away"),
        (["seeds=1,2"], "seeds has one value"),
        (["tuning.trials=2,3"], "tuning.trials has one value"),
        (["tuning.trials=100000000000"], "must be at most"),
        (["tuning.seed=-1"], "tuning.seed must be"),
        (["tuning.method=sobool"], "Did you mean sobol?"),
        (["tuning=null"], "tuning is a group of keys"),
        (["tuning=3"], "tuning is a group of keys"),
        (["data=null"], "data is a group of keys"),
        (["phase=tuned"], "sets phase by itself"),
        (["log.eval_test=each"], "measured once"),
        (["epochs=0"], "epochs must be"),
        (["batch_size=0,64"], "batch_size must be"),
        (["+foo=1"], "unknown key 'foo'"),
        (["quiet=maybe"], "quiet must be"),
        (["retry=often"], "retry must be"),
        (["name=../x"], "name must be"),
        (["results_dir=/proc/x"], "cannot write results"),
    ],
)
def test_a_study_that_means_nothing_is_refused(study, overrides, message):
    status, _, _, err = study("optimizer=sgd", *overrides)
    assert status == 1
    assert message in err
    assert "Traceback" not in err
    assert err.startswith("optbench: ")  # once, and before anything is run


WHOLE = {"low": 2, "high": 6, "scale": "linear"}


@pytest.mark.parametrize("method", [*RANDOM_ACCESS, "grid"])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_whole_numbers_are_searched_as_such_and_evenly(method, scale):
    space = {"rounds": WHOLE | {"scale": scale, "int": True}}
    found = [point["rounds"] for point in tuning.points(space, 200, method, 0)]
    assert all(isinstance(value, int) for value in found)
    assert set(found) == {2, 3, 4, 5, 6}
    if scale == "linear" and method != "random":
        assert {found.count(value) for value in set(found)} <= set(range(37, 44))
    assert tuning.overrides({"rounds": 3}) == ["optimizer.rounds=3"]


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
    tuning.check_space({name: spec})
    found = tuning.with_types({name: spec}, {name: default})
    assert bool(found[name].get("int")) == whole
    assert tuning.whole_numbers(found) == [name] * whole


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
        tuning.check_space(space)


@pytest.mark.parametrize(
    ("spec", "default", "words"),
    [
        (WHOLE, True, "is not searched"),
        (WHOLE, "fast", "is not searched"),
        (WHOLE, [0.9, 0.99], "is not searched"),
        ([WHOLE], [0.9, 0.99], "a list of 1 ranges"),
        ([WHOLE, WHOLE], 0.9, "a list of 2 ranges"),
    ],
)
def test_what_is_no_number_is_not_searched(spec, default, words):
    with pytest.raises(UserError, match=words):
        tuning.with_types({"x": spec}, {"x": default})


OWN = """
import torch

class Counted(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1, rounds: int = 3, weight_decay: float = 0):
        if not isinstance(rounds, int):
            raise TypeError(f"rounds must be an int, not {rounds}")
        super().__init__(params, lr=lr, weight_decay=weight_decay)
"""
TINY = ["data.subset=200", "model.hidden=[8]", "epochs=1", "num_threads=1", "engine=plain"]


@pytest.fixture
def at(monkeypatch, capsys, tmp_path):
    """A tuned study in this process; also (unsaid) an ordinary sweep, where `tuned` is false."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_counted.py").write_text(OWN)

    def run(*words: str, tuned: bool = True) -> tuple[int, str, str]:
        asked = ["hydra/sweeper=tuned", "tuning.trials=4", "seeds=1", "name=t"] if tuned else ["-m"]
        return call(monkeypatch, *TINY, *asked, *words), *capsys.readouterr()

    yield run
    sys.modules.pop("own_counted", None)


def test_options_that_are_whole_numbers_are_tuned(at, tmp_path):
    words = ["optimizer._target_=own_counted.Counted", "hydra/launcher=basic"]
    words += ["+optimizer.search.rounds={low:1,high:9,scale:linear}"]
    words += ["+optimizer.search.weight_decay={low:0,high:3,scale:linear}"]
    status, out, err = at(*words)
    assert status == 0, err
    assert "Counted: rounds in whole numbers" in out
    (entry,) = json.loads((tmp_path / "t" / "study.json").read_text())["contenders"]
    assert all(isinstance(trial["point"]["rounds"], int) for trial in entry["trials"])
    assert any(isinstance(trial["point"]["weight_decay"], float) for trial in entry["trials"])
    assert {trial["status"] for trial in entry["trials"]} == {"completed"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+schedule.search.lr={low:1,high:2,scale:log}"], "schedule.search is not searched"),
        (["+model.search.hidden={low:1,high:2,scale:log}"], "model.search is not searched"),
        (["+loss.search={low:1,high:2,scale:log}"], "loss.search is not searched"),
        (["+search.lr={low:1,high:2,scale:log}"], "unknown key 'search'"),
        (["optimizer.search={}"], "optimizer.search is empty"),
        (["+optimizer.search.lrr={low:1,high:2,scale:log}"], "Did you mean lr?"),
        (["+optimizer.searh.lr={low:1,high:2,scale:log}"], "does not accept searh"),
        (["optimizer.search.lr.low=2"], "low must be below high"),
        (["optimizer.search.lr.scale=lin"], "Did you mean linear?"),
        (["optimizer.search.lr.low=-1", "optimizer.search.lr.scale=linear"], "low in its search"),
        (["optimizer._target_=no_such.Opt"], "no_such"),
        (["model._target_=no_such.Model"], "model cannot be made"),
        (["loss._target_=no_such.loss"], "loss cannot be made"),
        (["schedule._target_=no_such.schedule"], "schedule cannot be made"),
        (["dataset=mnist", "data.root=nowhere", "data.download=false"], "Downloading is off"),
        (
            ["optimizer._target_=own_counted.Counted",
             "+optimizer.search.round={low:1,high:9,scale:linear}"],
            "Counted has no round. Did you mean rounds?",
        ),
        (
            ["optimizer._target_=own_counted.Counted",
             "+optimizer.search.rounds={low:1,high:9,scale:linear,int:false}"],
            "rounds must be an int",
        ),
    ],
)  # fmt: skip
def test_studies_that_cannot_run_are_refused_before_anything_is_trained(at, tmp_path, words, said):
    status, _, err = at("optimizer=sgd", *words)
    assert status == 1
    assert said in err
    assert not list(tmp_path.rglob("run.json"))


def test_a_job_that_cannot_run_is_told_before_the_others_train(at, tmp_path):
    """As ever the others go on; what is wrong with one is said first."""
    words = ["optimizer=sgd,adam", "loss._target_=optbench.losses.mse,no_such.loss", "name=s"]
    status, _, err = at(*words, tuned=False)
    assert status == 1
    assert "2 of 4 runs failed" in err
    jobs = [json.loads(text) for text in (tmp_path / "s" / "jobs.jsonl").read_text().splitlines()]
    ended = [job["status"] for job in jobs if "status" in job and "job" in job]
    assert ended[:2] == ["failed", "failed"]
    assert ended.count("completed") == 2
    assert len(list((tmp_path / "s").rglob("run.json"))) == 2

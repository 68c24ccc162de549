"""The protocol of a tuned study, end to end."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from in_process import call

from optbench.analysis.table import load_runs
from optbench.common.errors import UserError
from optbench.formats import study as study_files
from optbench.runner import run as experiment
from optbench.tuning import caveats
from optbench.tuning.contenders import Contender

QUICK = [
    "dataset=blobs", "model.hidden=[8]", "epochs=1", "num_threads=1", "quiet=true",
    "tuning.repeats=1", "tuning.widenings=0", "hydra/launcher=basic",
]  # fmt: skip
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
    assert "on these settings, not on the optimizers" in err  # nor can one search
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
    assert not re.search(r"(sgd|adam) lr=", err)  # each has one setting

    # a command with another optimizer keeps the choice, and says that it had more trials
    _, third, _, err = study("optimizer=momentum", "seeds=2", "tuning.trials=2")
    assert [entry["optimizer"] for entry in third["earlier"]] == ["sgd", "adam"]
    assert "the budgets are unequal: 2 to 8 trials" in err
    table = load_runs(folder)
    tuned = table[table["phase"] == "tuned"].drop_duplicates("run")
    assert len(tuned) == 6


def test_too_few_searches_for_a_verdict_are_said_before_anything_runs():
    several = [[f"optimizer={name}"] for name in "abcdefg"]
    assert not list(caveats.too_few(several, {"repeats": 6}, 1))
    (text,) = caveats.too_few(several, {"repeats": 5}, 2)
    assert text.startswith("5 searches of each optimizer: a verdict is on these settings, not on")
    assert "from tuning.repeats=6 on" in text
    _, seeds = caveats.too_few(several, {"repeats": 1}, 5)
    assert seeds.startswith("5 seeds: with fewer than 6 pairs no two-sided sign-flip test")


def test_a_warning_names_the_contender_and_what_tells_it_apart():
    several = [
        Contender([f"optimizer={name}", "epochs=1", f"batch_size={size}"], name, {})
        for name in ("sgd", "adam")
        for size in (1, 2)
    ]
    assert caveats.label_of(several[0], several) == "sgd batch_size=1"
    assert caveats.label_of(several[3], several[1::2]) == "adam"


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
    asked = ["optimizer=sgd", search, "tuning.trials=4", "seeds=1"]  # the first is the default
    _, manifest, _, err = study(*asked)
    (warning,) = [text for text in manifest["warnings"] if "untrained" in text and "ended" in text]
    assert "of 4 trials diverged" in warning
    assert warning in err

    _, manifest, _, err = study(*[w.replace("sgd", "adam") for w in asked if w != search])
    assert warning in manifest["warnings"]  # what it is about stands in the tables still
    assert warning in (tmp_path / "results" / "s" / "summary.md").read_text()


@pytest.mark.slow
def test_changing_test_labels_changes_no_choice(study):
    asked = ["optimizer=sgd,adam", "tuning.trials=4", "seeds=1"]
    _, one, _, _ = study(*asked)
    _, other, _, _ = study(*asked, "dataset.flip=true", name="flipped")
    for a, b in zip(one["contenders"], other["contenders"], strict=True):
        for trial in (*a["trials"], *b["trials"]):
            del trial["run_ids"]  # it holds the data's digest
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
        "optimizer=rprop,muon", "optimizer.lr=0.1", "tuning.trials=2", "seeds=1"
    )
    assert [len(entry["trials"]) for entry in manifest["contenders"]] == [1, 2]
    assert any("nothing was searched" in text for text in manifest["warnings"])
    assert not any("unequal" in text for text in manifest["warnings"])


@pytest.mark.slow
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
    space = "+optimizer.search.momentum={low:0.5,high:0.9,scale:linear}"
    asked = ["optimizer._target_=torch.optim.SGD", "optimizer.lr=1e20", space]
    asked += ["tuning.trials=3", "seeds=1"]
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
        (["optimizer.lr=0.1", "tuning.trials=7"], "nothing to tune"),
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

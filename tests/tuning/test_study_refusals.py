"""Studies that cannot run are refused before anything is trained."""

import json
import sys

import pytest
from in_process import call

from optbench.tuning.contenders import named_ranges
from optbench.tuning.space import SCHEDULE

OWN = """
import torch

class Counted(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1, rounds: int = 3, weight_decay: float = 0):
        if not isinstance(rounds, int):
            raise TypeError(f"rounds must be an int, not {rounds}")
        super().__init__(params, lr=lr, weight_decay=weight_decay)
"""
ONE = ["tuning.repeats=1", "tuning.widenings=0", "hydra/launcher=basic"]
TINY = ["data.subset=200", "model.hidden=[8]", "epochs=1", "num_threads=1", "engine=plain"]


@pytest.fixture
def at(monkeypatch, capsys, tmp_path):
    """A tuned study in this process; also (unsaid) an ordinary sweep, where `tuned` is false."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_counted.py").write_text(OWN)

    def run(*words: str, tuned: bool = True) -> tuple[int, str, str]:
        asked = (
            ["hydra/sweeper=tuned", "tuning.trials=4", "seeds=1", "name=t", *ONE]
            if tuned
            else ["-m"]
        )
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


def test_ranges_that_the_command_line_names_are_found_in_a_whole_space_too():
    words = [
        "optimizer=sgd",
        "optimizer.search={weight_decay:{low:1e-4,high:1,scale:log}}",
        "optimizer.search.lr.from=3",
        "+optimizer.search.momentum={low:0,high:1}",
        "+schedule.search={warmup:{low:0.01,high:0.3}}",
        "model.search=1",
    ]
    assert named_ranges(words) == {"weight_decay", "momentum", f"{SCHEDULE}warmup"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+schedule.search.lr={low:1,high:2,scale:log}"], "constant has no lr"),
        (["+model.search.hidden={low:1,high:2,scale:log}"], "model.search is not searched"),
        (["+loss.search={low:1,high:2,scale:log}"], "loss.search is not searched"),
        (["+search.lr={low:1,high:2,scale:log}"], "unknown key 'search'"),
        (["optimizer.search={}"], "optimizer.search is empty"),
        (["+optimizer.search.lrr={low:1,high:2,scale:log}"], "Did you mean lr?"),
        (["+optimizer.searh.lr={low:1,high:2,scale:log}"], "does not accept searh"),
        (["optimizer.search.lr.low=4"], "low must be below high"),
        (["optimizer.search.lr.scale=lin"], "Did you mean linear?"),
        (["optimizer.search.lr.low=-1", "optimizer.search.lr.scale=linear"], "low in its search"),
        (["optimizer.search.lr={high: 1, scale: log}"], "this one has high alone"),
        (["optimizer.search={lr: {low: 0.1}}"], "this one has low alone"),
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

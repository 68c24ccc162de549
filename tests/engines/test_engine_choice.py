"""A sweep or study takes one engine for all runs of a problem; a run the first that serves it."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import in_process
import pytest
import torch
from composed import resolved

from optbench import __main__ as cli
from optbench import engines, schedules
from optbench.common.errors import UserError
from optbench.engines.compiled_mlp import mlp
from optbench.formats import job_list
from optbench.formats.run import write_sealed
from optbench.runner import engine
from optbench.runner import run as experiment
from optbench.runner.train import train
from optbench.sweeps import engine_choice
from optbench.training.loop import Training

pytestmark = pytest.mark.skipif(not mlp.available(), reason="no C++ compiler")
ROOT = Path(__file__).resolve().parents[2]
QUICK = ["data.subset=200", "model.hidden=[8]", "batch_size=32", "epochs=1", "device=cpu"]
OWN = """
import torch

class Own(torch.optim.SGD):
    pass

def halved(optimizer, total_steps):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
"""


@pytest.fixture
def program(monkeypatch, capfd, tmp_path):
    """`python -m optbench` in this process; gives its status and what it wrote to stderr."""
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_choice", raising=False)
    (tmp_path / "my_choice.py").write_text(OWN)

    def run(*words: str, name: str = "x") -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["optbench", *QUICK, *words, f"name={name}", "quiet=true"])
        status = 0
        try:
            cli.main()
        except SystemExit as error:
            status = int(error.code or 0)
        return status, capfd.readouterr().err

    return run


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in folder.rglob("run.json")]


def taken(folder: Path) -> dict[str, set[str]]:
    """The engines of the finished runs below a folder, by optimizer."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("run.json"):
        record = json.loads(path.read_text())
        assert record["status"] == "completed"
        assert "steps_by" not in record
        found.setdefault(record["name"], set()).add(record["engine"])
    return found


LAUNCHERS = pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(
            ["hydra/launcher=workers", "hydra.launcher.workers=1"], marks=pytest.mark.slow
        ),
        ["hydra/launcher=basic"],
    ],
)


@LAUNCHERS
def test_sweep_takes_first_engine_that_serves_every_optimizer(program, tmp_path, launcher):
    assert program("-m", "optimizer=sgd,adam", *launcher)[0] == 0
    assert taken(tmp_path / "x") == {"sgd": {"compiled_mlp"}, "adam": {"compiled_mlp"}}
    assert program("-m", "optimizer=sgd,adam,nadam", *launcher, name="y")[0] == 0
    # known before, and taken over; what is new has the engine of the whole problem now
    assert taken(tmp_path / "y")["nadam"] == {"compiled_gradients"}
    assert program("-m", "optimizer=sgd,nadam", "seed=5", *launcher, name="z")[0] == 0
    assert taken(tmp_path / "z") == {
        "sgd": {"compiled_gradients"}, "nadam": {"compiled_gradients"},
    }  # fmt: skip


@LAUNCHERS
def test_each_problem_of_a_sweep_has_its_own_engine(program, tmp_path, launcher):
    words = ["-m", "optimizer=sgd,adam", "loss.label_smoothing=0,0.1", *launcher]
    words += ["precision=float32,float64"]
    assert program(*words)[0] == 0
    found = {}
    for path in (tmp_path / "x").glob("*/run.json"):
        record = json.loads(path.read_text())
        precision = record["config"]["precision"]
        found.setdefault(precision, set()).add(record["engine"])
    assert found == {"float32": {"compiled_mlp"}, "float64": {"plain"}}


def test_optimizer_of_ones_own_gives_its_whole_problem_compiled_gradients(program, tmp_path):
    words = ["-m", "optimizer._target_=my_choice.Own,torch.optim.SGD", "optimizer.lr=0.1"]
    assert program(*words)[0] == 0
    assert taken(tmp_path / "x") == {
        "Own": {"compiled_gradients"}, "SGD": {"compiled_gradients"},
    }  # fmt: skip


def test_batches_of_a_sweep_share_one_choice(program, tmp_path):
    words = ["-m", "optimizer=sgd,nadam", "hydra.sweeper.max_batch_size=1"]
    assert program(*words)[0] == 0
    assert taken(tmp_path / "x") == {
        "sgd": {"compiled_gradients"}, "nadam": {"compiled_gradients"},
    }  # fmt: skip


@LAUNCHERS
@pytest.mark.parametrize("steps", ["1,10", "10,1"])
def test_choice_does_not_go_by_the_order_of_jobs(program, tmp_path, launcher, steps):
    words = ["-m", "optimizer=sgd", "diagnostics=layers", f"log.layer_steps={steps}", *launcher]
    assert program(*words)[0] == 0
    assert taken(tmp_path / "x") == {"sgd": {"plain"}}  # a run whose every step is watched is


@pytest.mark.parametrize(
    "words",
    [
        ["precision=float32,bfloat16"],
        pytest.param(["steps=1,5", "epochs=null"], marks=pytest.mark.slow),
        pytest.param(["weight_penalty=0,1"], marks=pytest.mark.slow),
    ],
)
def test_asked_engine_that_does_not_serve_a_run_is_said_before_others(program, tmp_path, words):
    status, error = program("-m", "optimizer=sgd", "engine=compiled_mlp", "stop_at_failure=true",
                            "hydra.launcher.workers=1", *words)  # fmt: skip
    assert status == 1
    assert "engine=compiled_mlp does not serve this run" in error
    assert not records(tmp_path)


def other_sweep(folder: Path) -> None:
    """Write what another sweep in this folder chose, which begins while one runs there."""
    listed = json.loads((folder / "engines.json").read_text())["engines"]
    other = {"plain": "compiled_mlp", "compiled_mlp": "plain"}
    write_sealed(folder / "engines.json", {"engines": {k: other[v] for k, v in listed.items()}})


@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=basic"],
        pytest.param(["hydra.launcher.workers=1"], marks=pytest.mark.slow),
        ["hydra.launcher.workers=1", "hydra.sweeper.max_batch_size=1"],
        pytest.param(
            [
                "hydra/launcher=basic",
                "hydra/sweeper=tuned",
                "tuning.repeats=1",
                "tuning.trials=1",
                "seeds=1",
            ],
            marks=pytest.mark.slow,
        ),
        [
            "hydra.launcher.workers=1",
            "hydra/sweeper=tuned",
            "tuning.repeats=1",
            "tuning.trials=1",
            "seeds=1",
        ],
    ],
)
def test_running_sweep_keeps_its_choice(program, tmp_path, monkeypatch, launcher):
    record = job_list.record

    def told(folder, *job, **more):
        record(folder, *job, **more)
        other_sweep(folder)

    monkeypatch.setattr(job_list, "record", told)
    assert program("-m", "optimizer=sgd,adam", *launcher)[0] == 0
    assert taken(tmp_path / "x") == {"sgd": {"compiled_mlp"}, "adam": {"compiled_mlp"}}


@pytest.mark.slow
def test_jobs_in_other_processes_are_told_the_choice(program, tmp_path):
    assert program("-m", "optimizer=sgd,adam", "hydra/launcher=basic")[0] == 0
    other_sweep(tmp_path / "x")
    ask = (
        "from pathlib import Path; from composed import resolved; from optbench.sweeps import "
        f"engine_choice as e; print(e.chosen(Path({str(tmp_path / 'x')!r}), resolved(*{QUICK!r})))"
    )
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    asked = [sys.executable, "-c", ask]
    told = subprocess.run(asked, env=os.environ | path, capture_output=True, text=True)
    assert told.stdout == "compiled_mlp\n", told.stderr
    env = {k: v for k, v in os.environ.items() if k != engine_choice.ENGINES_VARIABLE} | path
    told = subprocess.run(asked, env=env, capture_output=True, text=True)
    assert told.stdout == "plain\n", told.stderr  # the file, where nothing else says it


def test_wrong_job_does_not_count_for_the_choice(program, tmp_path):
    status, error = program("-m", "optimizer=sgd", "optimizer.lr=0.1,-1")
    assert status == 1
    assert "optimizer.lr must be above 0" in error
    assert {"compiled_mlp"} in taken(tmp_path / "x").values()


@pytest.mark.slow
@LAUNCHERS
def test_tuned_study_takes_one_engine_for_all_its_optimizers(program, tmp_path, launcher):
    words = ["hydra/sweeper=tuned", "tuning.repeats=1", "tuning.trials=2", "seeds=1", *launcher]
    assert program(*words, "optimizer=sgd,nadam")[0] == 0
    assert taken(tmp_path / "x") == {
        "sgd": {"compiled_gradients"}, "nadam": {"compiled_gradients"},
    }  # fmt: skip
    assert program(*words, "optimizer=sgd,adam", "tuning.seed=9", name="y")[0] == 0
    assert taken(tmp_path / "y") == {"sgd": {"compiled_mlp"}, "adam": {"compiled_mlp"}}


def test_asked_engine_is_taken_and_is_no_part_of_the_identity(program, tmp_path):
    ids = []
    for name in ("auto", "plain", "compiled_mlp", "compiled_gradients"):
        words = ["optimizer=adam", f"engine={name}", "force=true"]
        assert program(*words, name=name)[0] == 0
        (path,) = (tmp_path / name).glob("*/run.json")
        record = json.loads(path.read_text())
        assert record["engine"] == {"auto": "compiled_mlp"}.get(name, name)
        ids.append([record[key] for key in ("run_id", "problem_hash", "settings_hash")])
    assert all(each == ids[0] for each in ids)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer=nadam"], "NAdam is none of torch's SGD, Adam,"),
        (["optimizer=rmsprop_centered"], "RMSprop has a setting that it does not know"),
        (["model=cnn", "model.channels=[2]"], "the model is no chain of at most 16 plain linear"),
        (["loss._target_=torch.nn.MultiMarginLoss"], "the loss is none of cross-entropy, nll, mse"),
        (["precision=bfloat16"], "the precision is bfloat16"),
        (["weight_penalty=0.1"], "there is a weight_penalty"),
        (["batch_size=full", "epochs=5"], "is the whole set"),
        (["schedule._target_=my_choice.halved"], "the schedule (LambdaLR) may change more than lr"),
        (["steps=1", "epochs=null"], "the first 2 steps are always plain"),
    ],
)
def test_engine_that_does_not_serve_is_refused_in_words(program, words, said):
    status, error = program(*words, "engine=compiled_mlp")
    assert status == 1
    assert "engine=compiled_mlp does not serve this run: " in error
    assert said in error
    assert "use engine=plain" in error
    assert "Traceback" not in error


def test_asked_engine_that_does_not_serve_fails_its_job_alone(program, tmp_path):
    status, error = program("-m", "optimizer=adam,nadam", "engine=compiled_mlp")
    assert status == 1
    assert "NAdam is none of torch's" in error
    assert "1 of 2 runs failed" in error
    assert {record["engine"] for record in records(tmp_path)} == {"compiled_mlp"}
    words = [
        "hydra/sweeper=tuned",
        "tuning.repeats=1",
        "tuning.trials=2",
        "seeds=1",
        "engine=compiled_mlp",
    ]
    status, error = program(*words, "optimizer=adam,nadam", name="y")
    assert status == 1
    assert "nadam: engine=compiled_mlp does not serve this run" in error
    assert not list((tmp_path / "y").rglob("run.json"))  # it was said before any run


def interrupted(folder: Path, *words: str, chosen: str | None = None) -> Path:
    """The folder of a run that was interrupted, the first time after step 3."""
    config = resolved(*QUICK, "quiet=true", f"results_dir={folder}", *words)
    calls = iter(range(1, 10**6))
    planned = experiment.plan(config, folder / "x", chosen=chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optbench.training.loop.SYNC_EVERY", 1)
        outcome = experiment.complete(planned, lambda update: None, lambda: next(calls) >= 3)
    assert outcome.status == "interrupted"
    return outcome.folder


@pytest.mark.parametrize(
    ("began", "words", "chosen", "engine", "asked"),
    [
        ("plain", [], None, "plain", "auto"),
        ("plain", [], "compiled_mlp", "plain", "auto"),  # the sweep's choice
        ("compiled_mlp", [], "plain", "compiled_mlp", "auto"),
        ("compiled_mlp", ["engine=compiled_mlp"], None, "compiled_mlp", "auto"),
        ("compiled_mlp", ["engine=plain"], None, "compiled_mlp+plain", "auto"),
        ("plain", ["engine=compiled_mlp"], None, "plain+compiled_mlp", "auto"),
    ],
)
def test_resumed_run_keeps_its_engine_or_names_both(
    tmp_path, capsys, began, words, chosen, engine, asked
):
    run = interrupted(tmp_path, chosen=began)
    config = resolved(*QUICK, "quiet=true", f"results_dir={tmp_path}", *words)
    outcome = experiment.run(config, tmp_path / "x", chosen=chosen)
    assert outcome.folder == run
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["engine"]) == ("completed", engine)
    assert record["config"]["engine"] == asked
    said = capsys.readouterr().err
    assert said.count("resuming from step") == 1
    assert said.count("equal within rounding") == engine.count("+")


def test_run_whose_engine_no_longer_serves_names_both(tmp_path, monkeypatch):
    run = interrupted(tmp_path, "epochs=3", "engine=compiled_mlp")
    monkeypatch.setattr(engines, "refusal", lambda *_: "there is no compiler")
    assert interrupted(tmp_path, "epochs=3") == run
    monkeypatch.undo()
    config = resolved(*QUICK, "epochs=3", "quiet=true", f"results_dir={tmp_path}")
    assert experiment.run(config, tmp_path / "x").folder == run  # by the last one, once more
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["engine"]) == ("completed", "compiled_mlp+plain")
    assert record["config"]["engine"] == "auto"
    assert len(record["resumed"]) == 2


def test_asked_engine_that_finished_runs_do_not_have_is_said(program, tmp_path, capfd):
    assert program("optimizer=adam", name="a")[0] == 0
    for name in ("a", "b"):  # in its folder, and copied
        capfd.readouterr()
        call("optimizer=adam", "engine=plain", f"name={name}")
        said = capfd.readouterr().out
        assert (
            "already done by engine=compiled_mlp; force=true runs it again with engine=plain"
        ) in said
        (record,) = records(tmp_path / name)
        assert (record["engine"], record["config"]["engine"]) == ("compiled_mlp", "auto")
    call("optimizer=adam", "engine=compiled_mlp", "name=b")
    assert "already done (completed); force=true runs it again\n" in capfd.readouterr().out


@LAUNCHERS
def test_sweep_says_once_how_many_runs_another_engine_made(program, tmp_path, capfd, launcher):
    words = ["-m", "optimizer=sgd,adam", *launcher]
    assert program(*words)[0] == 0
    capfd.readouterr()
    call(*words, "seed=0,1", "engine=plain", "name=y")
    said = capfd.readouterr().out
    assert said.count("by engine=compiled_mlp") == 1
    assert (
        "2 of 4 runs were already done by engine=compiled_mlp; force=true runs them again with "
        "engine=plain\n"
    ) in said
    found = {(r["seed"], r["engine"], r["config"]["engine"]) for r in records(tmp_path / "y")}
    assert found == {(0, "compiled_mlp", "auto"), (1, "plain", "plain")}


def call(*words: str) -> None:
    """The program once more, whose output is read by the caller."""
    with pytest.MonkeyPatch.context() as patch:
        assert in_process.call(patch, *QUICK, *words) == 0


def test_select_is_the_one_door(make_problem):
    problem = make_problem()
    adam = partial(torch.optim.Adam, lr=0.01)
    auto = Training(problem, adam, engine=partial(engines.select, "auto")).engine
    assert auto.name == "compiled_mlp"
    assert Training(problem, adam, engine=partial(engines.select, "plain")).engine is None
    assert Training(problem, adam).engine is None
    nadam = partial(torch.optim.NAdam, lr=0.01)
    other = Training(problem, nadam, engine=partial(engines.select, "auto")).engine
    assert other.name == "compiled_gradients"
    with pytest.raises(UserError, match="there is no engine of that name"):
        Training(problem, adam, engine=partial(engines.select, "fast"))
    # chosen for a sweep, it goes on plain where it does not serve
    made = Training(problem, nadam, engine=engine.factory("compiled_mlp", required=False))
    assert made.engine is None


def test_train_selects_an_engine_and_plain_is_always_there(make_problem):
    problem = make_problem(epochs=4)
    adam = partial(torch.optim.Adam, lr=0.01)
    ends = {}
    for name in ("auto", "plain", "compiled_mlp", "compiled_gradients"):
        ends[name] = list(train(problem, adam, engine=name))[-1].epoch["train_loss"]
    assert ends["auto"] == ends["compiled_mlp"]
    assert ends["auto"] == pytest.approx(ends["plain"], rel=1e-5)
    assert ends["plain"] == list(Training(problem, adam).updates())[-1].epoch["train_loss"]


def test_training_whose_every_step_is_watched_is_plain(make_problem):
    adam = partial(torch.optim.Adam, lr=0.01)
    auto = partial(engines.select, "auto")
    assert Training(make_problem(), adam, layers=True, layers_every=1, engine=auto).engine is None
    assert Training(make_problem(), adam, layers=True, layers_every=2, engine=auto).engine
    assert Training(make_problem(), adam, schedule=schedules.cosine, engine=auto).engine

"""The command line, end to end."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from csv_rows import without_times
from in_process import call

from optbench.analysis.table import load_runs
from optbench.formats import job_list
from optbench.formats.groups import choices
from optbench.formats.run import COLUMNS, COUNTED
from optbench.report.collect import collect
from optbench.runs.folder import RunFolder
from optbench.training import device

QUICK = ["data.subset=300", "model.hidden=[16]", "epochs=2", "log.steps=1", "num_threads=1"]
PYTHON = [sys.executable, "-m", "optbench"]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"OPTBENCH_RESULTS": str(folder), "OMP_NUM_THREADS": "1"}


def command(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`python -m optbench` in a process of its own, with `folder` for the results."""
    return subprocess.run(
        [*PYTHON, *QUICK, *overrides],
        env=environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """`python -m optbench` in this process, which saves the time to import torch."""
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> tuple[int, str, str]:
        return call(monkeypatch, *QUICK, *overrides), *capsys.readouterr()

    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def record(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def test_one_run_writes_its_folder_and_is_recognised_as_done(tmp_path):
    first = command(tmp_path, "optimizer=adam")
    assert first.returncode == 0, first.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert str(run) in first.stdout
    epochs, steps = rows(run / "epochs.csv"), rows(run / "steps.csv")
    assert list(epochs[0]) == [*COLUMNS["epochs"], *COUNTED]
    assert list(steps[0]) == [*COLUMNS["steps"], *COUNTED]
    assert [row["epoch"] for row in epochs] == ["0", "1", "2"]
    assert epochs[0]["running_loss"] == ""
    assert [row["step"] for row in steps] == [str(i) for i in range(1, 7)]  # 270 in batches of 128
    assert float(epochs[-1]["train_loss"]) < float(epochs[0]["train_loss"])
    kept = record(run)
    assert kept["status"] == "completed"
    assert kept["config"]["optimizer"]["lr"] == 0.001
    assert kept["summary"]["test_accuracy"] == pytest.approx(float(epochs[-1]["test_accuracy"]))
    assert kept["summary"]["rows"] == {"epochs": 3, "steps": 6}
    assert {"torch", "python", "optbench"} <= set(kept["versions"])

    before = {path: path.read_bytes() for path in run.iterdir()}
    again = command(tmp_path, "optimizer=adam")
    assert again.returncode == 0
    assert "already done" in again.stdout
    assert {path: path.read_bytes() for path in run.iterdir()} == before

    assert command(tmp_path, "optimizer=adam", "force=true").returncode == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert {path: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.slow  # test_same_answer.py has it with deterministic=true
def test_same_seed_same_csv_byte_for_byte_apart_from_the_times(tmp_path):
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        done = command(tmp_path / name, "model.dropout=0.3", "model.batch_norm=true")
        assert done.returncode == 0
        (run,) = (tmp_path / name / "runs").iterdir()
        lines = []
        for file in ("epochs.csv", "steps.csv"):
            lines += without_times((run / file).read_text())
        texts.append(lines)
    assert texts[0] == texts[1]


def test_a_sweep_ends_with_its_figure_and_goes_on_where_it_stopped(here, tmp_path):
    status, out, _ = here("-m", "optimizer=sgd,adam", "seed=0,1", "name=mine")
    sweep = tmp_path / "mine"
    assert status == 0
    assert "[4/4]" in out
    assert f"Folder:  {sweep}  " in out
    assert (sweep / "train_loss-epoch.png").stat().st_size > 10_000
    summary = rows(sweep / "summary.csv")
    assert [row["optimizer"] for row in summary] == ["adam", "sgd"]  # ranked
    assert {row["seeds"] for row in summary} == {"2"}

    status, out, _ = here("optimizer=sgd,adam,adagrad", "-m", "seed=0,1", "name=mine")
    assert status == 0
    assert out.count("already done") == 4
    assert len(rows(sweep / "summary.csv")) == 3


def test_a_sweeps_folder_is_named_by_its_question(here, tmp_path):
    for overrides in (["optimizer=sgd,adam", "seed=0"], ["seed=0", "optimizer=sgd,adam"]):
        assert here("-m", *overrides)[0] == 0
    assert len(list(tmp_path.glob("sweeps/*/summary.csv"))) == 1


@pytest.mark.slow
def test_runs_are_shared_between_folders(here, tmp_path):
    assert here("optimizer=sgd")[0] == 0
    status, out, _ = here("-m", "optimizer=sgd,adam", "name=both")
    assert status == 0
    assert out.count("already done") == 1
    assert len(list((tmp_path / "both").glob("*/epochs.csv"))) == 2  # complete by itself


def test_a_sweep_finishes_the_others_reports_what_failed_and_exits_non_zero(here, tmp_path):
    status, _, err = here("-m", "optimizer=sgd,adam", "optimizer.lr=-1,0.1", "name=x")
    assert status == 1
    assert "2 of 4 runs failed" in err
    assert err.count("optimizer.lr must be") == 2  # for the first run, and once at the end
    assert err.count("failed as above") == 1
    last = err.splitlines()[-1]
    assert "optimizer=sgd optimizer.lr=-1: optimizer.lr must be above 0" in last
    assert last.endswith("not -1 (and 1 other with the same error)")
    assert "Traceback" not in err
    assert len(list((tmp_path / "x").glob("*/epochs.csv"))) == 2
    assert (tmp_path / "x" / "train_loss-epoch.png").exists()


def test_divergence_is_a_result(here, tmp_path):
    status, out, _ = here("-m", "optimizer=sgd", "optimizer.lr=0.1,1e20", "name=x")
    assert status == 0
    assert "diverged" in out
    records = [record(path.parent) for path in (tmp_path / "x").glob("*/run.json")]
    (diverged,) = (r for r in records if r["status"] == "diverged")
    assert diverged["diverged_at_step"] >= 1
    assert "1 (1 diverged)" in out  # in the table


def test_a_study_is_a_sweep_and_draws_its_figure(here, tmp_path):
    status, out, err = here("study=comparison", "epochs=1", "seed=0")  # even without -m
    assert status == 0, err
    assert "[7/7]" in out
    (sweep,) = (tmp_path / "sweeps").iterdir()
    assert sweep.name.startswith("comparison")
    assert (sweep / "train_loss-epoch.pdf").exists()


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_a_readable_run(tmp_path, number, status):
    process = subprocess.Popen(
        [*PYTHON, *QUICK, "epochs=100000", "batch_size=1"],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any(len(rows(path)) > 200 for path in tmp_path.glob("runs/*/steps.csv")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in err
    (run,) = (tmp_path / "runs").iterdir()
    assert record(run)["status"] == "interrupted"
    assert f"interrupted: {run}; the same command resumes the run" in out
    steps = [int(row["step"]) for row in rows(run / "steps.csv")]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("words", [("--cfg", "job"), ("plot", "--help"), ("verdict", "--help")])
def test_ctrl_c_during_the_imports_shows_no_traceback(tmp_path, words):
    (tmp_path / "hydra").mkdir()
    raises = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(20)\n"
    for name in ("hydra/__init__.py", "pandas.py"):
        (tmp_path / name).write_text(raises)
    call = [sys.executable, "-m", "optbench", *words]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in a shell's background too
    ended = subprocess.run(
        call, env=environment(tmp_path), capture_output=True, cwd=tmp_path, preexec_fn=heard
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        130,
        b"",
        b"optbench: interrupted\n",
    )


def test_ctrl_c_stops_a_sweep_which_then_goes_on(tmp_path):
    asked = ["-m", "hydra/launcher=basic", "optimizer=sgd", "seed=0,1", "name=x"]
    process = subprocess.Popen(
        [*PYTHON, *QUICK, *asked, "epochs=400"],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "epoch 3" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resumes" in err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimzer=adam"], "Did you mean optimizer=adam?"),
        (["optimizer=adm"], "Did you mean adam?"),
        (["optimizer=textbook/adm"], "Did you mean textbook/adam?"),
        (["study=comparisons"], "Did you mean comparison?"),
        (["dta.root=x"], "Did you mean data.root=x?"),
        (["lr=0.1"], "Did you mean optimizer.lr=0.1?"),
        (["optimizer.learning_rate=0.1"], "Did you mean optimizer.lr=0.1?"),
        (["momentum=0.9"], "adam has no momentum; optimizer=momentum has"),
        (["optimizer=sgd", "sgd.momentum=0.9"], "unknown key 'sgd.momentum': sgd has no momentum"),
        (["sgd.momentum=0.9"], "sgd has no momentum; optimizer=momentum has"),
        (["-m", "optimizer=sgd,adam", "momentum=0.9"], "sgd and adam have no momentum"),
        (["optimizer=momentum", "momentun=0.9"], "Did you mean optimizer.momentum=0.9"),
        (["-m", "optimizer=sgd,", "adam"], "Did you mean optimizer=sgd,adam?"),
        (["optimizer.lr", "=", "0.1"], "Did you mean optimizer.lr=0.1?"),
        (["optimizer.lr=", "0.1"], "Did you mean optimizer.lr=0.1?"),
        (["-x"], "there is no flag -x: --help names"),
        (["batch=4"], "Did you mean batch_size=4?"),
        (["epochs_count=4"], "Did you mean epochs=4?"),
        (["-m", "optimizer=sgd,adam", "lr=0.1,0.3"], "Did you mean optimizer.lr=0.1?"),
        (["optimizer=adam", "plot"], "plot is a sub-command, which comes first"),
        (["optimizer.rate=0.1"], "unknown key 'optimizer.rate'"),
        (["+epoch=3"], "Did you mean epochs?"),
        (["optimizer.lr=-1"], "optimizer.lr must be"),
        (["batch_size=0"], "batch_size must be"),
        (["epochs=0"], "epochs must be"),
        (["device=tpu"], "device must be"),
        (["dataset=wine", "data.subset=100", "model=cnn"], "needs images"),
        (["dataset=cifar10", "data.root=nowhere", "data.download=false"], "dataset=mnist_5k"),
        (["loss._target_=torch.nn.functional.binary_cross_entropy"], "the loss does not fit"),
        (["optimizer._target_=torch.optim.Nope"], "torch.optim has no Nope"),
        (["optimizer._target_=torch.optim.SGD", "+optimizer.foo=1"], "does not accept foo"),
        (["optimizer=sgd,adam"], "-m sweeps over them"),
        (["model=null"], "GROUP=NAME. The words null"),
        (["results_dir=/dev/null/x"], "cannot write results into /dev/null/x"),
        (["-m", "optimizer=sgd,adam", "results_dir=/dev/null/x"], "cannot write results into"),
        (["-m", "optimizer=sgd,adm"], "Did you mean adam?"),
        (["name=../x"], "name must be"),
        (["model.hidden=???"], "model.hidden"),
        (["optimizer.lr=null"], "Adam: lr must be a number, not None"),
        (["optimizer.betas=[0.9]"], "betas must have 2 values"),
        (["optimizer.name=null"], "optimizer.name must be"),
        (["-m", "optimizer=glob(zzz*)"], "matches no choice"),
        (["log=null"], "log is a group of keys"),
        (["+data.foo=3"], "unknown key 'data.foo'"),
        (["+log.stepz=3"], "Did you mean steps?"),
        (["-m", "optimizer.lr=interval(0.1,1)"], "name some"),
        (["-m", "optimizer=sgd", "seed=range(0)"], "nothing to run"),
        (["-m", "optimizer=sgd", "seeds=1,2"], "seed=0,1,2 with -m"),
        (["-m", "optimizer=sgd", "results_dir=a,b"], "results_dir has one value"),
        (["-m", "optimizer=sgd", "name=a,b"], "name has one value"),
        (["-m", "engine=plain,auto"], "engine has one value in a sweep, not several (plain,auto)"),
        (["-m", "num_threads=1,2"], "num_threads has one value in a sweep"),
        (["-m", "checkpoint_seconds=1,2"], "checkpoint_seconds has one value in a sweep"),
        (["-m", "device=cpu,auto"], "device has one value of each kind in a sweep"),
        (["-m", "device=cuda:0,'cuda:1'"], "device has one value of each kind in a sweep"),
        (["-m", "optimizer=sgd", "figure=null"], "figure is a group of keys"),
        (["-m", "optimizer=sgd", "figure.y=train_los"], "Did you mean train_loss?"),
        (["-m", "optimizer=sgd", "figure.x=time"], "figure.x must be one of"),
        (
            ["model.batch_norm_place=after"],
            "no effect without batch norm: add model.batch_norm=true",
        ),
        (["optimizer=sgd", "figure.style=poster"], "figure.style must be one of"),
        (["-m", "optimizer=sgd,"], "separated by single commas"),
        (["-m", "optimizer=sgd", "seed=0,,1"], "cannot read seed=0,,1"),
        (["-m", "hydra/launcher=joblib"], "hydra/launcher=joblib"),
        (["hydra/sweeper=tund"], "Did you mean tuned?"),
        (["optimizer=[sgd,adam]"], "-m optimizer=sgd,adam"),
        (["optimizer.search=[]"], "does not fit"),
        (["+dataset.foo=1"], "mnist_5k does not accept foo"),
        (["tuning.trials=3"], "add hydra/sweeper=tuned"),
        (["seeds=3"], "seed=0,1,2"),
        (["seed=0,1"], "-m sweeps over them (python -m optbench -m seed=0,1)"),
        (["optimizer.lr=0,1"], "A decimal takes a point: 0.1"),
        (["-m", "epochs=2", "steps=10,20"], "are two budgets"),
        (["epochs=2", "steps=10"], "epochs=2 and steps=10 are two budgets"),
        (["results_dir=null"], "results_dir must be a folder"),
        (["-m", "results_dir="], "results_dir must be a folder"),
        (["optimizer.lr='a b"], "an override is KEY=VALUE"),
        (["=3"], "an override is KEY=VALUE"),
        (["-m", "seed=range(0,2,0)"], "seed=range(0,2,0) names no values"),
        (["-m", "seed=range(0,1000000000)"], "a sweep has at most 100,000"),
        (["model.hidden=[99999999999999999999]"], "the model mlp(hidden=[99999999999999999999]"),
        (["optimizer="], "there is no optimizer="),
        (["optimizer=ADAM"], "Did you mean adam?"),
        (["optimizer.momentum=0.9"], "(momentum.momentum=0.9 sets it)"),
        (["modle.hidden=[3]"], "Did you mean model.hidden=[3]"),
        (["model.activation=[relu]"], "model.activation must be one of sigmoid"),
        (["initializer=uniform", "initializer.scale=-1"], "initialize(weight=uniform_(scale=-1)"),
        (["schedule=cosine", "+schedule.foo=1"], "cosine does not accept foo. It accepts: final"),
        (["--config-name", "foo"], "there is no configuration foo.yaml"),
        (["retry=never"], "retry must be one of failed, none"),
        (["optimizer=adma"], "Did you mean adam?"),
        (["initializer=he"], "Did you mean he_normal?"),
        (["study=momentum"], "Did you mean claims/momentum?"),
        (["study=claims/mom"], "Did you mean claims/momentum?"),
        (["sweeper=tuned"], "Did you mean hydra/sweeper=tuned?"),
        (["hydra.sweeper=tuned"], "sweepers are chosen with a slash: hydra/sweeper=tuned"),
        (["model.hidden=256,128"], "a list stands in brackets: 'model.hidden=[256,128]'"),
        (["seed=0-5"], "Did you mean -m 'seed=range(0,6)'?"),
        (["figure.facet=foo"], "figure.facet: unknown key 'foo'"),
        (["-m", "seed=0,1", "figure.lines=lr"], "figure.lines: unknown key 'lr'. Did you mean opt"),
        (["figure.target=fast"], "no target rule 'fast'; allowed: a number"),
        (["help"], "Did you mean --help?"),
        (["dataset=mnsit"], "Did you mean mnist?"),
        (["--epochs", "1"], "there is no flag --epochs: settings have no dashes. Did you mean"),
        (["--epochs=1"], "Did you mean epochs=1?"),
        (["--optimizer", "adam"], "Did you mean optimizer=adam"),
        (["--lr", "0.1"], "Did you mean optimizer.lr=0.1?"),
        (["--batch-size", "32"], "Did you mean batch_size=32?"),
        (["--mutlirun", "optimizer=sgd"], "there is no flag --mutlirun. Did you mean --multirun?"),
        (["--nonsense"], "there is no flag --nonsense: --help names"),
        (["--config-dir"], "--config-dir needs a value"),
        (["\u2014config-dir", "nowhere"], "nowhere"),  # as an editor writes two hyphens
        (["epochs", "5"], "Did you mean epochs=5?"),
        (["optimizer", "=", "adam"], "Did you mean optimizer=adam?"),
        (["optimizer", "=adam", "seed=1"], "Did you mean optimizer=adam?"),
        (["optimizer=", "adam"], "Did you mean optimizer=adam?"),
        (["optimizer=adam epochs=1"], "holds several overrides: quote each by itself"),
        (["seed=0,", "1"], "cannot read seed=0,: several values are separated by single commas"),
        ([""], "cannot read '': an override is KEY=VALUE"),
        (["-m", "plot", "x"], "plot is a sub-command, which comes first"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_clear_message(here, overrides, message):
    if "dataset=wine" in overrides:
        pytest.importorskip("sklearn")
    status, _, err = here(*overrides)
    assert status == 1
    assert message in err
    assert "Traceback" not in err
    assert "frame #0" not in err  # of C++
    # too few seeds are told of before a sweep is composed
    lines = [line for line in err.splitlines() if not line.startswith("warning: 1 seed")]
    assert lines[0].startswith("optbench: ")


def test_a_folder_without_its_sub_command_gets_the_command(here, tmp_path):
    (tmp_path / "results" / "first").mkdir(parents=True)
    status, _, err = here("results/first")
    assert status == 1
    assert "python -m optbench report results/first shows its runs" in err


def test_cuda_without_cuda_is_refused(here, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, _, err = here("device=cuda")
    assert status == 1
    assert "no usable CUDA device" in err


def test_quiet_prints_nothing_on_standard_output(here, tmp_path):
    for launcher in ("workers", "basic"):
        words = ["-m", "optimizer=sgd,adam", f"hydra/launcher={launcher}", "name=x", "quiet=true"]
        status, out, err = here(*words, "optimizer.lr=0.1,-1")
        assert (status, out) == (1, "")
        assert "optimizer.lr must be above 0" in err
        assert "2 of 4 runs failed" in err
    for words in ([], [], ["optimizer=sgd", "optimizer.lr=1e20"]):  # again: already done; diverged
        assert here(*words, "quiet=true")[:2] == (0, "")
    assert (tmp_path / "x" / "summary.md").exists()


def test_a_run_ends_with_its_picture_and_its_path(here, tmp_path):
    status, out, _ = here()
    (run,) = (tmp_path / "runs").iterdir()
    assert status == 0
    assert out.endswith(f"completed: {run}\npicture: {run / 'curve.png'}\n")
    before = (run / "curve.png").read_bytes()
    assert before.startswith(b"\x89PNG")
    assert "validation" in (run / "curve.txt").read_text()
    assert here()[1].endswith(f"picture: {run / 'curve.png'}\n")  # already done: not drawn again
    (run / "curve.png").unlink()
    here()
    assert (run / "curve.png").read_bytes() == before
    # of one step there is no curve
    out = here("steps=1", "epochs=null")[1]
    assert "picture" not in out
    assert len([*run.parent.glob("*/curve.png")]) == 1


def test_a_name_is_a_label_and_leads_nowhere(here, tmp_path):
    for _ in range(2):
        status, out, _ = here("optimizer.name='../../<b>/x'")
        assert status == 0
    assert "already done" in out
    (run,) = (tmp_path / "runs").iterdir()
    assert record(run)["name"] == "../../<b>/x"


@pytest.mark.slow
def test_a_sweep_tries_every_choice_of_a_group(here, tmp_path):
    status, out, err = here("-m", "schedule=glob(*)", "name=all")
    assert status == 0, err
    count = len(choices("schedule"))
    assert f"[{count}/{count}]" in out
    assert "| adam |" not in out  # told apart by their schedules
    assert len(rows(tmp_path / "all" / "summary.csv")) == count - 1  # adam's authors' is constant


@pytest.mark.slow
def test_more_problems_than_panels_still_end_with_a_table(here, tmp_path):
    sizes = ",".join(map(str, range(10, 36)))
    status, _, err = here("-m", f"batch_size={sizes}", "epochs=null", "steps=1", "name=many")
    assert status == 0
    assert len(rows(tmp_path / "many" / "summary.csv")) == 26
    assert "do not fit one figure" in err


def test_a_closed_stdout_does_not_end_the_run(tmp_path):
    command = [*PYTHON, *QUICK, "epochs=3"]
    process = subprocess.Popen(
        command,
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert record(run)["status"] == "completed"


@pytest.mark.parametrize("words", [["optbench", *QUICK], ["optbench", "--help"]])
def test_without_stdout_and_stderr_a_command_works(tmp_path, words):
    text = " ".join(["exec", sys.executable, "-m", *map(repr, words), ">&-", "2>&-", "<&-"])
    done = subprocess.run(["sh", "-c", text], env=environment(tmp_path), cwd=tmp_path, timeout=120)
    assert done.returncode == 0
    if words[-1] != "--help":
        (run,) = (tmp_path / "runs").iterdir()
        assert len(rows(run / "epochs.csv")) == 3  # nothing was printed into it


@pytest.mark.parametrize("words", [(), ("plot",), ("verdict",)])
def test_nobody_complains_when_head_has_seen_enough(tmp_path, words):
    process = subprocess.Popen(
        [sys.executable, "-m", "optbench", *words, "--help"],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0


def test_a_name_with_a_dot_in_front_is_not_hidden(here, tmp_path):
    assert here("optimizer.name=..")[0] == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name[0] != "."
    assert record(run)["name"] == ".."


def test_the_threads_are_recorded_and_no_part_of_the_identity(here, tmp_path):
    assert here()[0] == 0
    _, out, _ = here("num_threads=2")
    assert "already done" in out
    (run,) = (tmp_path / "runs").iterdir()
    assert record(run)["num_threads"] == 1
    assert "CPU cores: a run is slower" in here(f"num_threads={device.cores() + 1}")[2]


@pytest.mark.slow
def test_a_sweep_says_what_is_done_and_what_failed_and_tries_it_again_if_asked(here, tmp_path):
    asked = ["-m", "optimizer=sgd", "optimizer.lr=-1,0.1", "name=x"]
    assert here(*asked)[0] == 1
    done = job_list.of_sweep(tmp_path / "x")
    assert [done[kind] for kind in ("planned", "done", "failed", "missing")] == [2, 1, 1, 0]
    assert "optimizer.lr=-1" in done["jobs"]["failed"][0]
    for _ in range(2):
        status, _, err = here(*asked, "retry=none")
        assert status == 1
        assert err.count("it failed before; retry=failed tries it again") == 2  # and in the list
    assert job_list.read(tmp_path / "x")[0]["retry"] == "none"
    _, _, err = here(*asked)
    assert "it failed before" not in err


def test_what_is_wrong_is_said_before_anything_is_trained(here, tmp_path):
    assert here("-m", "optimizer=sgd", "optimizer.lr=0.1,-1,0.2,nan", "name=x")[0] == 1
    _, outcomes = job_list.read(tmp_path / "x")
    assert [job["status"] for job in outcomes] == ["failed"] * 2 + ["completed"] * 2
    assert [job["job"] for job in outcomes][:2] == [1, 3]


def test_what_failed_is_run_again_and_nothing_else(here, tmp_path, monkeypatch):
    asked = ["-m", "optimizer=sgd", "seed=0,1", "name=x", "hydra/launcher=basic"]
    with monkeypatch.context() as patch:
        finish = RunFolder.write

        def break_off(self, update):
            if self.record["seed"] == 1:
                raise OSError("disk full")
            finish(self, update)

        patch.setattr(RunFolder, "write", break_off)
        assert here(*asked)[0] == 1
    assert here(*asked, "retry=none")[0] == 1
    assert len(list((tmp_path / "x").glob("*/run.json"))) == 2
    status, out, err = here(*asked)
    assert status == 0, err
    assert out.count("already done") == 1
    records = [record(path.parent) for path in (tmp_path / "x").glob("*/run.json")]
    assert sorted(r["status"] for r in records) == ["completed", "completed", "failed"]


def test_a_sweep_that_has_a_run_copies_no_other(here, tmp_path):
    assert here("-m", "optimizer=sgd", "name=x")[0] == 0
    assert here("optimizer=sgd", "force=true")[0] == 0  # a newer one elsewhere
    status, out, _ = here("-m", "optimizer=sgd", "name=x")
    assert status == 0
    assert "already done" in out
    assert len(list((tmp_path / "x").glob("*/run.json"))) == 1


def test_a_sweep_stays_out_of_a_folder_of_other_files(here, tmp_path):
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "summary.csv").write_text("mine")
    status, _, err = here("-m", "optimizer=sgd", "name=paper")
    assert status == 1
    assert "choose another name" in err
    assert [path.name for path in (tmp_path / "paper").iterdir()] == ["summary.csv"]


def test_a_list_of_jobs_with_an_unfinished_line_is_read(tmp_path):
    job_list.plan(tmp_path, 2, "failed", [["seed=0"], ["seed=1"]])
    job_list.record(
        tmp_path, {"job": 0, "overrides": ["seed=0"], "status": "diverged", "error": None}
    )
    with (tmp_path / job_list.JOBS_FILE).open("a") as file:
        file.write('{"job": 1, "over')
    done = job_list.of_sweep(tmp_path)
    assert done["jobs"] == {"done": ["seed=0"], "failed": [], "missing": ["seed=1"]}


def test_deterministic_runs_are_runs_of_their_own(here, tmp_path):
    here()
    here("deterministic=true")
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_layers_are_logged_where_asked_and_make_another_run(here, tmp_path):
    assert here("epochs=1")[0] == 0
    status, out, _ = here("epochs=1", "diagnostics=layers")
    assert status == 0
    assert "already done" not in out
    table = load_runs(tmp_path, rows="layers")
    assert list(table["layer"].iloc[:4]) == ["1", "2", "3", "all"]
    assert set(table["step"]) == {1, 3}
    assert any("logged no layers" in problem for problem in table.attrs["problems"])


def test_a_sweep_judges_by_its_own_jobs_though_another_of_its_name_began(tmp_path):
    job_list.plan(tmp_path, 2, "failed", [["optimizer=sgd"], ["optimizer=adam"]])
    job_list.record(tmp_path, {"job": 0, "overrides": ["optimizer=sgd"], "status": "failed"})
    other = {"planned": 2, "retry": "failed", "jobs": [["seed=0"], ["seed=1"]]}
    (tmp_path / job_list.JOBS_FILE).write_text(json.dumps(other) + "\n")
    job_list.record(tmp_path, {"job": 1, "overrides": ["optimizer=adam"], "status": "completed"})
    assert [job["status"] for job in job_list.ended] == ["failed", "completed"]
    assert job_list.of_sweep(tmp_path)["missing"] == 2  # of the other one, nothing is done


def test_a_sweep_of_too_few_seeds_says_so_once_with_the_command_that_settles_it(here, tmp_path):
    words = ("-m", "optimizer=sgd,adam", "sgd.lr=0.05", "epochs=1", "name=few")
    status, out, err = here(*words, "seed=0,1")
    assert status == 0, err
    assert out.count("Cannot tell") == 1
    assert out.count("no two-sided") == 1  # before it trains
    assert "no two-sided" not in err
    assert "is first by" not in err
    (line,) = [line for line in out.splitlines() if line.startswith("Settle:  ")]
    command = shlex.split(line.removeprefix("Settle:  python -m optbench "))
    assert command[:1] == ["-m"]
    assert {*command} >= {*words, "seed=range(8)"}
    (folder,) = (path.parent for path in tmp_path.rglob("jobs.jsonl"))
    assert (folder / "summary.md").read_text().count("no two-sided") == 1
    data = collect([folder])
    assert not data["warnings"]
    assert [card["settle"] for card in data["verdict"]["cards"]] == [line[9:]]
    status, out, err = here(*command)  # finished runs are reused
    assert status == 0, err
    assert "16 of 16 runs done" in out
    assert "Settle:" not in out


@pytest.mark.parametrize(("word", "near"), [("repot", "report"), ("trajectory", "trajectories")])
def test_a_misspelt_sub_command_gets_the_nearest_name(word, near, here, tmp_path):
    call = [sys.executable, "-m", "optbench", word, "results"]
    done = subprocess.run(call, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"optbench: there is no sub-command '{word}'. Did you mean {near}?"
    )
    assert not done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=sgd,adam", "--cfg", "job", "seed=7"],
        ["optimizer=sgd,adam", "-c", "job", "seed=7"],
        ["--cfg=job", "optimizer=sgd,adam", "seed=7"],
        ["optimizer=sgd,adam", "--config-dir", ".", "--cfg", "job", "seed=7"],
    ],
)
def test_flags_stand_anywhere(here, words):
    words = [word.replace("sgd,adam", "adam") for word in words]
    status, out, err = here(*words)
    assert status == 0, err
    assert "seed: 7" in out


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_tuned_study_takes_its_flag_anywhere(here, flag):
    words = ["study=fair_comparison", "optimizer=sgd", "model=mlp", flag, "name=t"]
    words += ["tuning.trials=1", "tuning.repeats=1", "seeds=1"]
    status, out, err = here(*words)
    assert status == 0, err
    assert "1 optimizer to tune, 1 trial each" in out


def test_a_sweep_of_nothing_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "-m") == 1
    assert "nothing is to be swept: give values between commas" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sweep_keeps_its_folders_candidate_and_names_runs_of_earlier_commands(here, tmp_path):
    words = ("-m", "optimizer=sgd,adam", "seed=0,1", "name=one")
    assert here(*words, "candidate=adam")[0] == 0
    status, out, err = here(*words, "batch_size=32")
    assert status == 0, err
    assert "4 runs of earlier commands in this folder" in out
    verdict = json.loads((tmp_path / "one" / "verdict.json").read_text())
    assert verdict["candidate"] == "adam"
    assert len(verdict["problems"]) == 2
    assert here(*words, "batch_size=32", "candidate=null")[0] == 0
    assert "candidate" not in json.loads((tmp_path / "one" / "figure.json").read_text())


def test_an_optimizer_that_moves_no_weight_is_told(here, tmp_path):
    (tmp_path / "still.py").write_text(
        "import torch\n\nclass Still(torch.optim.SGD):\n"
        "    def step(self, closure=None):\n        pass\n"
    )
    words = ("optimizer._target_=still.Still", "optimizer.name=still")
    status, _, err = here(*words)
    assert status == 0, err
    assert "the training loss never changed: no weight moves" in err
    _, _, err = here("-m", *words, "seed=0,1")
    assert "the training loss of still never changed" in err


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("{value: trainloss, lower: {optimizer: adam}, than: {optimizer: sgd}}", "train_loss?"),
        (
            "{value: train_loss, lower: {optimizer: adam}, than: {optimizer: sg}}",
            "Did you mean sgd?",
        ),
    ],
)
def test_a_misspelt_claim_is_refused_before_training(here, tmp_path, check, said):
    study = tmp_path / "mine" / "study" / "own.yaml"
    study.parent.mkdir(parents=True)
    study.write_text(
        f"# @package _global_\nclaim:\n  text: adam is better\n  checks:\n    - {check}\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      optimizer: sgd,adam\n"
    )
    status, _, err = here("--config-dir", "mine", "study=own", "name=own")
    assert status == 1
    assert said in err
    assert not (tmp_path / "own").exists()


def test_lines_of_different_losses_are_compared_by_the_accuracy(here, tmp_path):
    words = ("-m", "loss=mse,cross_entropy", "seed=0,1", "name=losses", "figure.lines=loss")
    status, out, err = here(*words)
    assert status == 0, err
    assert "by final validation accuracy" in out
    assert (tmp_path / "losses" / "val_accuracy-epoch.png").exists()
    assert not list((tmp_path / "losses").glob("*loss-epoch.png"))

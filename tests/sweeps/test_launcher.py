"""Sweeps in worker processes: the same curves, and what happens when something goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from csv_rows import without_times
from in_process import call
from omegaconf import OmegaConf

from optbench.datasets import loaders, prepare
from optbench.formats import job_list
from optbench.runs.finished import Finished
from optbench.sweeps import concurrency, shared_dataset, worker
from optbench.training import device

QUICK = ["-m", "data.subset=300", "model.hidden=[16]", "epochs=2", "log.steps=1", "device=cpu"]
MOODY = """
import os, signal, time
from pathlib import Path
import torch

class Moody(torch.optim.SGD):
    def __init__(self, params, lr=0.1, mood=None):
        super().__init__(params, lr)
        self.mood = mood

    def step(self, closure):
        if not Path("calm").exists():
            if self.mood == "segv":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.mood == "hang":
                time.sleep(100)
            if self.mood == "wrong":
                raise ArithmeticError("bad mood")
            if self.mood == "slow":
                time.sleep(0.02)
        return super().step(closure)
"""


@pytest.fixture
def sweep(monkeypatch, capfd, tmp_path):
    """A sweep by `python -m optbench -m` in this process, whose workers stay for the next test."""
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "moody.py").write_text(MOODY)

    def run(*overrides: str, name: str = "x") -> tuple[int, str, str]:
        return call(monkeypatch, *QUICK, *overrides, f"name={name}"), *capfd.readouterr()

    return run


def curves(folder: Path) -> dict[str, list[list[str]]]:
    """The rows of each run without its times, by its folder's name."""
    kept = {}
    for file in ("epochs.csv", "steps.csv"):
        for path in folder.glob(f"*/{file}"):
            kept[f"{path.parent.name} {file}"] = without_times(path.read_text())
    return kept


def jobs(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()][1:]


@pytest.mark.slow  # test_same_answer.py asks nearly the same
def test_launchers_and_numbers_of_workers_give_the_same_curves(sweep, tmp_path):
    words = ["optimizer=sgd,adam", "model.dropout=0.2", "deterministic=true"]
    for name, launcher in (
        ("one", ["hydra.launcher.workers=1"]),
        ("two", ["hydra/launcher=workers", "hydra.launcher.workers=2"]),
        ("basic", ["hydra/launcher=basic"]),
    ):
        status, _, err = sweep(*words, *launcher, "force=true", name=name)
        assert status == 0, err
    assert torch.get_num_threads() == 1
    torch.use_deterministic_algorithms(False)
    assert len(curves(tmp_path / "one")) == 4
    assert curves(tmp_path / "one") == curves(tmp_path / "two") == curves(tmp_path / "basic")


def test_a_dead_a_hanging_and_a_failing_run_leave_the_others_alone(sweep, tmp_path):
    words = [
        *["optimizer._target_=moody.Moody", "optimizer.lr=0.1"],
        *["+optimizer.mood=segv,hang,wrong,fine,well", "hydra.launcher.time_limit=5"],
    ]
    status, out, err = sweep(*words)
    assert status == 1
    moods = {job["overrides"][-2].partition("=")[2]: job for job in jobs(tmp_path / "x")}
    assert {mood: job["status"] for mood, job in moods.items()} == {
        "segv": "failed", "hang": "failed", "wrong": "failed", "fine": "completed",
        "well": "completed",
    }  # fmt: skip
    assert "SIGSEGV" in moods["segv"]["error"]
    assert "time limit of 5 s" in moods["hang"]["error"]
    assert "moody.py" in moods["hang"]["error"]  # where it hung
    assert "ArithmeticError: bad mood" in moods["wrong"]["error"]
    assert "3 of 5 runs failed" in err
    records = [json.loads(path.read_text()) for path in (tmp_path / "x").glob("*/run.json")]
    assert sorted(r["status"] for r in records) == ["completed"] * 2 + ["failed"] * 3

    (tmp_path / "calm").touch()
    status, out, err = sweep(*words)
    assert status == 0, err
    assert out.count("already done") == 2
    assert [job["status"] for job in jobs(tmp_path / "x")] == ["completed"] * 5


MOODS = ["optimizer._target_=moody.Moody", "optimizer.lr=0.1"]


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("hydra/launcher=basic", marks=pytest.mark.slow),
        "hydra.launcher.workers=1",
        pytest.param("hydra.launcher.workers=2", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_stops_at_its_first_failure_where_that_is_asked(sweep, tmp_path, launcher):
    words = [*MOODS, "+optimizer.mood=wrong,slow,fine,well", launcher, "epochs=60"]
    status, _, err = sweep(*words, "stop_at_failure=true")
    assert status == 1
    assert err.count("stop_at_failure=true asks; the same command tries the failed run again") == 1
    listed = [job["status"] for job in jobs(tmp_path / "x")]
    assert listed in (["failed"], ["failed", "interrupted"])  # one that ran beside it
    progress = job_list.of_sweep(tmp_path / "x")
    assert (progress["planned"], progress["failed"], progress["missing"]) == (4, 1, 3)

    # what failed before and is not tried again stops nothing
    status, _, err = sweep(*words, "stop_at_failure=true", "retry=none")
    assert status == 1
    assert job_list.of_sweep(tmp_path / "x")["done"] == 3
    (tmp_path / "calm").touch()
    status, _, err = sweep(*words, "stop_at_failure=true")
    assert status == 0, err
    assert [job["status"] for job in jobs(tmp_path / "x")] == ["completed"] * 4


def test_a_tuned_study_stops_at_its_first_failure_where_that_is_asked(sweep, tmp_path):
    words = ["hydra/sweeper=tuned", "optimizer=sgd", MOODS[0], "+optimizer.mood=wrong"]
    words += ["tuning.repeats=1", "tuning.trials=3", "seeds=2", "stop_at_failure=true"]
    status, _, err = sweep(*words, "hydra.launcher.workers=1")
    assert status == 1, err
    assert "stop_at_failure=true asks" in err
    assert [job["status"] for job in jobs(tmp_path / "x")] == ["failed"]


def test_the_same_run_twice_is_trained_once(sweep, tmp_path):
    status, out, err = sweep("seed=0,0,1,0", "quiet=false")
    assert status == 0, err
    assert out.count("already done") == 2
    assert len(list((tmp_path / "x").glob("*/run.json"))) == 2
    assert len(jobs(tmp_path / "x")) == 4


def test_a_job_sees_its_environment_and_folder(sweep, tmp_path):
    status, _, err = sweep(
        *["seed=0,1", "+hydra.job.env_set.OPTBENCH_DATA=/nowhere", "hydra.output_subdir=.hydra"],
        *["hydra.sweep.subdir=${hydra:job.num}", "hydra.job.chdir=true"],
    )
    assert status == 0, err
    for number in (0, 1):
        (path,) = (tmp_path / "x" / str(number)).glob("*/run.json")
        record = json.loads(path.read_text())
        assert record["config"]["data"]["root"] == "/nowhere"
        assert record["seed"] == number
        texts = (tmp_path / "x" / str(number) / ".hydra" / "overrides.yaml").read_text()
        assert f"seed={number}" in texts


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_runs_are_whole_and_the_sweep_goes_on(number, tmp_path):
    (tmp_path / "moody.py").write_text(MOODY)
    command = [
        *[sys.executable, "-m", "optbench", *QUICK, "optimizer._target_=moody.Moody"],
        *["optimizer.lr=0.1", "+optimizer.mood=slow", "epochs=2000", "seed=0,1,2", "name=x"],
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"OPTBENCH_RESULTS": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 100
    steps = lambda: [len(p.read_text().splitlines()) for p in tmp_path.glob("x/*/steps.csv")]  # noqa: E731
    while len(steps()) < min(2, device.cores()) or min(steps()) < 4:
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, number)  # as a terminal or a batch system does: to all processes
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "resumes the unfinished runs" in err
    assert "Traceback" not in err
    records = [json.loads(path.read_text()) for path in tmp_path.glob("x/*/run.json")]
    assert {record["status"] for record in records} == {"interrupted"}
    for record in records:
        assert record["summary"]["rows"]["steps"] > 0


def test_a_launcher_setting_that_means_nothing_is_refused(sweep):
    status, _, err = sweep("seed=0,1", "hydra.launcher.workers=0")
    assert status == 1
    assert "hydra.launcher.workers must be a whole number of processes above 0" in err


@pytest.mark.parametrize(
    ("master", "jobs", "found", "expected"),
    [
        ("auto", ["seed=0"], 3, 3),
        ("cuda", ["seed=0"], 2, 2),
        ("auto", ["device=cpu"], 2, 2),  # the others have none
        ("cpu", ["seed=0"], 2, 0),
        ("auto", ["seed=0"], 0, 0),
        ("cuda", ["seed=0"], 0, 1),  # each job says that there is none
        ("cuda:1", ["device=cuda:0"], 2, 1),
        ("cpu", ["device=cuda"], 2, 2),
    ],
)
def test_each_gpu_gets_a_worker(monkeypatch, master, jobs, found, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    config = OmegaConf.create({"device": master})
    assert concurrency.count_gpus(config, [jobs]) == expected


def test_a_workers_cuda_is_a_gpu_of_its_own_and_a_numbered_one_stays(monkeypatch):
    own = []
    monkeypatch.setattr(torch.cuda, "set_device", own.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "set_num_interop_threads", lambda count: None)
    for number, gpus in ((0, 2), (1, 2), (2, 2), (0, 1), (0, 0)):
        worker.set_up(number, torch.get_num_threads(), gpus)
    assert own == [0, 1, 0]
    assert device.choose("cuda").index is None  # torch takes the one that was set
    assert device.choose("cuda:1") == torch.device("cuda:1")


def test_never_more_threads_than_cores():
    for cores in (1, 2, 3, 8, 64):
        for count in (1, 2, 5, 100):
            for threads in (None, 1, 2, 4):
                workers, each = concurrency.split_cores(cores, count, threads, None)
                assert 1 <= workers <= max(count, 1)
                assert workers * each <= max(cores, threads or 1)
    assert concurrency.split_cores(8, 100, None, None) == (8, 1)
    assert concurrency.split_cores(8, 2, None, None) == (2, 4)
    assert concurrency.split_cores(8, 100, 4, None) == (2, 4)
    assert concurrency.split_cores(8, 100, None, 2) == (2, 4)


def test_a_shared_dataset_is_the_same_and_goes_with_its_owner():
    raw = prepare.prepare(loaders.mnist_5k(), subset=50)
    mapped = shared_dataset.share(raw)
    place = shared_dataset.place(mapped)
    assert place is not None
    assert shared_dataset.place(raw) is None
    other = shared_dataset.find(place)
    for one in (mapped, other):
        assert one.digest == raw.digest
        assert one.classes == raw.classes
        for name in ("train_x", "train_y", "val_x", "val_y", "test_x", "test_y"):
            assert torch.equal(getattr(one, name), getattr(raw, name))
    other.test_x[0] = 7  # nobody else's copy changes
    assert not torch.equal(other.test_x, mapped.test_x)
    assert torch.equal(raw.test_x, mapped.test_x)
    shared_dataset.find.cache_clear()
    del mapped, one
    assert not Path(place.path).exists()


def test_finished_runs_are_listed_once(tmp_path, monkeypatch):
    def add(place: str, status: str, run_id: str, **more: str) -> Path:
        folder = tmp_path / place
        folder.mkdir(parents=True)
        record = {
            "format": 1, "run_id": run_id, "problem_hash": "p", "name": "a-b", "seed": 0,
            "config": {}, "problem": {}, "status": status, "summary": {"rows": {}},
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(record | more))
        return folder

    add("runs/a-b-seed0-abc", "failed", "abc")
    old = add("sweeps/s/a-b-seed0-abc", "completed", "abc", finished="2020")
    new = add("sweeps/s/tuned/a-b-seed0-abc-2", "diverged", "abc", finished="2021")
    add("runs/a-b-seed0-def", "completed", "other")  # the name says one thing, the record another
    find = Finished()
    assert find(tmp_path, "abc") == new
    assert find(tmp_path, "def") is None
    monkeypatch.setattr(Path, "glob", None)  # no second listing
    assert find(tmp_path, "nosuch") is None
    find.add(tmp_path, "late", old)
    assert find(tmp_path, "late") is None  # its record is another's


@pytest.mark.parametrize(
    "words",
    [
        ["hydra/launcher=cohort"],
        ["++hydra.launcher._target_=hydra_plugins.optbench.launcher.CohortLauncher"],
    ],
)
def test_cohort_launcher_is_told_to_be_gone(sweep, words):
    status, _, err = sweep(*words, "seed=0,1")
    assert status == 1
    assert "hydra/launcher=cohort is gone: it trained runs of small models together" in err
    assert "use hydra/launcher=workers, the default" in " ".join(err.split())
    assert "Traceback" not in err

"""Full disks, folders that vanish or are read-only, signals, and others at work: end to end.

Each fault gives one clear error that names the path, and the next call of the same command ends
where an undisturbed one does.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

resource = pytest.importorskip("resource")

ROOT = Path(__file__).resolve().parents[2]
QUICK = [
    *["data.subset=300", "model.hidden=[8]", "log.steps=1", "num_threads=1", "device=cpu"],
    *["batch_size=32", "optimizer=adam"],
]
SLOW = """
import os, time, torch

class Slow(torch.optim.SGD):
    def __init__(self, params, lr, seconds):
        super().__init__(params, lr)
        self.seconds = seconds

    def step(self, closure):
        time.sleep(0 if "NO_DELAY" in os.environ else self.seconds)
        return super().step(closure)
"""
DAWDLE = [*QUICK[:-1], "optimizer._target_=slow.Slow", "optimizer.lr=0.1"]
LIMIT = 12_000  # bytes: run.json and short curves fit, long ones do not


def begin(
    folder: Path, *words: str, prepare: Callable[[], None] | None = None, **options
) -> subprocess.Popen:
    """`python -m optbench` in `folder`, with results/ in it."""
    folder.mkdir(exist_ok=True)
    (folder / "slow.py").write_text(SLOW)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "optbench", *words],
        cwd=folder,
        env=os.environ | {"OPTBENCH_RESULTS": str(folder / "results"), "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
        **options,
    )


def call(folder: Path, *words: str, **options) -> tuple[int, str, str]:
    """The exit status, what was printed, and the errors."""
    process = begin(folder, *words, **options)
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))


def until(process: subprocess.Popen, true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 100
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def records(folder: Path) -> list[dict]:
    return [json.loads(p.read_text()) for p in sorted((folder / "results").glob("*/*/run.json"))]


def rows(run: Path) -> list[list[dict[str, str]]]:
    """The CSV files of a run without its times."""
    found = []
    for name in ("epochs.csv", "steps.csv"):
        with (run / name).open(newline="") as file:
            lines = csv.DictReader(file, strict=True)
            found.append([{k: v for k, v in r.items() if "seconds" not in k} for r in lines])
    return found


def completed(folder: Path) -> dict[str, list[list[dict[str, str]]]]:
    """The rows of the completed runs by identity, each of which there is once."""
    found = {}
    for path in (folder / "results").glob("*/*/run.json"):
        record = json.loads(path.read_text())
        if record["status"] == "completed":
            assert record["run_id"] not in found
            found[record["run_id"]] = rows(path.parent)
    return found


def check_error(status: int, err: str, *words: str) -> None:
    assert status == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err


@pytest.mark.slow
@pytest.mark.parametrize("what", ["curves", "checkpoint"])
def test_a_full_disk_names_the_folder_and_the_next_call_is_whole(tmp_path, what):
    budget = {"curves": ["epochs=40", "checkpoint_seconds=null"]}
    words = [*QUICK, *budget.get(what, ["epochs=3", "checkpoint_seconds=0"])]
    status, _, err = call(tmp_path, *words, prepare=small_files)
    check_error(status, err, "cannot write", str(tmp_path / "results" / "runs" / "adam-seed0-"))
    (record,) = records(tmp_path)
    assert record["status"] == "failed"
    assert "cannot write" in record["error"]
    assert not list(tmp_path.rglob("*.tmp"))
    status, _, err = call(tmp_path, *words)
    assert status == 0, err
    call(tmp_path / "whole", *words)
    assert completed(tmp_path) == completed(tmp_path / "whole")


@pytest.mark.slow
def test_in_a_sweep_on_a_full_disk_the_short_run_is_done(tmp_path):
    words = ["-m", *QUICK, "epochs=1,40", "name=x", "hydra/launcher=workers"]
    status, _, err = call(tmp_path, *words, prepare=small_files)
    check_error(status, err, f"cannot write {tmp_path / 'results' / 'x' / 'adam-seed0-'}")
    assert "1 of 2 runs failed" in err
    assert sorted(r["status"] for r in records(tmp_path)) == ["completed", "failed"]
    status, out, err = call(tmp_path, *words)
    assert status == 0, err
    assert out.count("already done") == 1
    assert len(completed(tmp_path)) == 2


def mounted(folder: Path, option: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command with its results on a small file system, copied to `after` at its end."""
    results, after = folder / "results", folder / "after"
    results.mkdir()
    script = (
        f"mount -t tmpfs -o {option} tmpfs '{results}' || exit 99; "
        f"\"$@\"; status=$?; cp -r '{results}' '{after}'; exit $status"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-m", "optbench"]
    try:
        done = subprocess.run(
            [*command, *words, f"results_dir={results}"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=200,
        )
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here, to mount a small file system")
    if done.returncode in (1, 99) and "optbench" not in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    return done


@pytest.mark.slow
def test_a_file_system_without_room_is_named_and_the_next_call_is_whole(tmp_path):
    words = [*QUICK, "model.hidden=[64]", "epochs=4", "checkpoint_seconds=0"]
    done = mounted(tmp_path, "size=1000k", *words)
    check_error(done.returncode, done.stderr, f"cannot write {tmp_path / 'results'}")
    (path,) = (tmp_path / "after").glob("runs/*/run.json")
    assert json.loads(path.read_text())["status"] in ("failed", "running")  # room for it or not
    shutil.rmtree(tmp_path / "results")
    (tmp_path / "after").rename(tmp_path / "results")
    status, _, err = call(tmp_path, *words)
    assert status == 0, err
    call(tmp_path / "whole", *words)
    assert completed(tmp_path) == completed(tmp_path / "whole")


def test_a_read_only_file_system_is_named(tmp_path):
    for words in ([], ["-m", "seed=0,1", "name=x"]):
        done = mounted(tmp_path, "ro", *QUICK, "epochs=1", *words)
        check_error(done.returncode, done.stderr, "cannot write", str(tmp_path / "results"))
        shutil.rmtree(tmp_path / "results")
        shutil.rmtree(tmp_path / "after")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_folder_is_named(tmp_path):
    (tmp_path / "results").mkdir(mode=0o555)
    status, _, err = call(tmp_path, *QUICK, "epochs=1")
    check_error(status, err, "cannot write", str(tmp_path / "results"))


def test_a_folder_that_vanishes_is_named(tmp_path):
    process = begin(tmp_path, *DAWDLE, "+optimizer.seconds=0.01", "epochs=500")
    results = tmp_path / "results"
    until(process, lambda: list(results.glob("runs/*/steps.csv")))
    shutil.rmtree(results)
    _, err = process.communicate(timeout=100)
    check_error(process.returncode, err, f"cannot write {results / 'runs'}", "deleted")


@pytest.mark.slow
def test_a_run_whose_folder_vanishes_leaves_the_others_alone(tmp_path):
    words = ["-m", *DAWDLE, "+optimizer.seconds=0.01", "epochs=20", "seed=0,1,2", "name=x"]
    process = begin(tmp_path, *words, "hydra/launcher=workers", "hydra.launcher.workers=2")
    folder = tmp_path / "results" / "x"
    until(process, lambda: len(list(folder.glob("*-seed0-*/steps.csv"))))
    shutil.rmtree(next(folder.glob("*-seed0-*")))
    _, err = process.communicate(timeout=100)
    check_error(process.returncode, err, f"cannot write {folder / 'Slow-seed0-'}")
    assert [r["status"] for r in records(tmp_path)] == ["completed"] * 2
    status, _, err = call(tmp_path, *words, "hydra/launcher=workers")
    assert status == 0, err
    assert len(completed(tmp_path)) == 3


@pytest.mark.slow  # test_resume.py has it in one process, for every optimizer
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signalled_run_goes_on_where_it_was(tmp_path, number):
    words = [*DAWDLE, "+optimizer.seconds=0.01", "epochs=30"]
    process = begin(tmp_path, *words)
    until(process, lambda: list(tmp_path.glob("results/runs/*/epochs.csv")))
    process.send_signal(number)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 128 + number, err
    (record,) = records(tmp_path)
    assert record["status"] == "interrupted"
    status, _, err = call(tmp_path, *words)
    assert status == 0, err
    assert "resuming from step" in err
    call(tmp_path / "whole", *words)
    assert completed(tmp_path) == completed(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
def test_ctrl_c_while_a_sweep_starts_its_workers_ends_it_in_words(tmp_path, seconds):
    words = ["-m", *DAWDLE, "+optimizer.seconds=0.05", "epochs=50", "seed=0,1", "name=x"]
    process = begin(tmp_path, *words, "hydra/launcher=workers", start_new_session=True)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_immediately_without_damage(tmp_path, number, sweep):
    more = [
        "-m",
        "name=x",
        "seed=0,1",
        "hydra/launcher=workers",
        "hydra.launcher.workers=2",
    ] * sweep
    words = [*DAWDLE, "epochs=1", "data.subset=64", "batch_size=20", *more]
    process = begin(tmp_path, *words, "+optimizer.seconds=30", start_new_session=True)
    until(process, lambda: len(list(tmp_path.rglob("*-seed0-*/epochs.csv"))))
    time.sleep(0.5)
    os.killpg(process.pid, number)  # as a terminal does
    time.sleep(1)
    assert process.poll() is None  # it waits for its step
    begun = time.monotonic()
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=100)
    assert time.monotonic() - begun < 15
    assert process.returncode in (128 + number, -number), err
    assert "Traceback" not in err
    # nothing was lost: the same settings, quickly
    quick = [word for word in words if word != "epochs=1"]
    status, _, err = again(tmp_path, *quick, "epochs=1", "+optimizer.seconds=30")
    assert status == 0, err
    assert len(completed(tmp_path)) == 1 + sweep


def again(folder: Path, *words: str) -> tuple[int, str, str]:
    """The command with steps that take no time."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "optbench", *words],
        cwd=folder,
        env=os.environ
        | {"OPTBENCH_RESULTS": str(folder / "results"), "PYTHONPATH": path, "NO_DELAY": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_sweep_ends_after_sigusr1_to_all_its_processes(tmp_path):
    words = ["-m", *DAWDLE, "+optimizer.seconds=0.02", "epochs=1000", "seed=0,1", "name=x"]
    process = begin(tmp_path, *words, "hydra/launcher=workers", start_new_session=True)
    until(process, lambda: list(tmp_path.glob("results/x/*/steps.csv")))
    os.killpg(process.pid, signal.SIGUSR1)  # as Slurm does
    _, err = process.communicate(timeout=100)
    assert process.returncode == 138, err
    assert {r["status"] for r in records(tmp_path)} == {"interrupted"}


def test_two_processes_with_the_same_run_do_it_once(tmp_path):
    words = [*DAWDLE, "+optimizer.seconds=0.05", "epochs=2"]
    processes = [begin(tmp_path, *words) for _ in range(3)]
    ends = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    assert len(records(tmp_path)) == len(completed(tmp_path)) == 1
    assert sum("already done" in out for out, _ in ends) == 2


@pytest.mark.slow
def test_a_process_that_waits_for_a_run_leaves_it_alone_when_it_is_interrupted(tmp_path):
    words = [*DAWDLE, "+optimizer.seconds=0.05", "epochs=200", "checkpoint_seconds=0"]
    first = begin(tmp_path, *words)
    until(first, lambda: list(tmp_path.glob("results/runs/*/checkpoint.pt")))
    second = begin(tmp_path, *words)
    assert second.stderr is not None
    assert "has the run" in second.stderr.readline()
    second.send_signal(signal.SIGINT)
    _, err = second.communicate(timeout=100)
    assert second.returncode == 130, err
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=100)
    assert first.returncode == 130, err
    (run,) = (tmp_path / "results" / "runs").iterdir()
    steps = [int(row["step"]) for row in rows(run)[1]]
    assert steps == list(range(1, len(steps) + 1))
    status, _, err = again(tmp_path, *words, "checkpoint_seconds=30")
    assert status == 0, err
    assert "resuming from step" in err


@pytest.mark.slow
@pytest.mark.parametrize("names", [("x", "x"), ("x", "y")])
def test_two_sweeps_into_one_results_folder_do_each_run_once(tmp_path, names):
    words = ["-m", *DAWDLE, "+optimizer.seconds=0.01", "epochs=2", "seed=0,1,2"]
    launcher = ["hydra/launcher=workers", "hydra.launcher.workers=1"]
    processes = [begin(tmp_path, *words, *launcher, f"name={name}") for name in names]
    ends = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    found = records(tmp_path)
    # a copy in the other sweep's folder is of the same training
    assert len({(r["run_id"], r["started"]) for r in found}) == 3
    assert all(r["status"] == "completed" for r in found)

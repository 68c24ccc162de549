"""A study that several workers share: claims, take-over, hand-back, and words for what is wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from csv_rows import without_times
from in_process import call, sub_command

from optbench.commands import status as status_command
from optbench.commands import work
from optbench.common.errors import UserError
from optbench.formats import job_list, shared_study
from optbench.runs import claims
from optbench.sweeps import callback
from optbench.sweeps.clusters.options import seconds_of
from optbench.sweeps.sharing import elsewhere, session

QUICK = ["data.subset=100", "model.hidden=[8]", "epochs=2", "log.steps=1", "device=cpu"]
QUICK += ["engine=plain", "num_threads=1", "checkpoint_seconds=0"]
TWO = ["--workers", "2"]  # the same pool of processes for all tests
SLOW = """
import time
from pathlib import Path
import torch

class Slow(torch.optim.SGD):
    def step(self, closure):
        Path("stepping").touch()
        if not Path("calm").exists():
            time.sleep(0.05)
        while Path("stuck").exists():
            time.sleep(0.05)
        return super().step(closure)

class Wrong(torch.optim.SGD):
    def step(self, closure):
        if not Path("calm").exists():
            raise ArithmeticError("bad")
        return super().step(closure)
"""
SLOWLY = ["optimizer._target_=slow.Slow", "optimizer.lr=0.1", "epochs=8"]


@pytest.fixture
def run(request, monkeypatch, capfd, tmp_path):
    """`optbench` in this process, in an empty folder."""
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "slow.py").write_text(SLOW)
    if "does_a_sweep" not in request.node.name:
        monkeypatch.setattr(callback, "finish", lambda *_, **__: None)  # figures take seconds

    def start(*words: str) -> tuple[int, str, str]:
        code = call(monkeypatch, *words)
        return code, *capfd.readouterr()

    return start


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]


def records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/run.json"))]


class Other:
    """Another worker, of another machine, as its files show it."""

    def __init__(self, folder: Path, *, beats: bool = True) -> None:
        self.name, self.folder, self.beats = "far-1-abcd", folder, beats
        self.claims = folder.parent / claims.CLAIM_FOLDER
        self.claims.mkdir(exist_ok=True)
        self.info = {
            "worker": self.name, "place": "far", "pid": 1, "started": "1", "every": 0.05,
            "optbench": "x",
        }  # fmt: skip
        claims.beat(self.claims, self.name, 0)
        self.thread = threading.Thread(target=self._beat, daemon=True)
        self.thread.start()

    def _beat(self) -> None:
        count = 0
        while self.beats:
            count += 1
            claims.beat(self.claims, self.name, count)
            time.sleep(0.05)

    def stop(self) -> None:
        self.beats = False
        self.thread.join()

    def claim(self, run_id: str) -> None:
        holder = self.info | {"job": "[1/2] its job"}
        assert claims.take(self.claims, run_id, holder, lambda _: True)

    def join(self, **changes: object) -> None:
        """Let the other worker be in a call of its own."""
        first = job_list.first_line(self.folder)
        made = session.Session()
        call_ = {"id": "c1", **calls_versions(), **changes}
        text = json.dumps(first | {"call": call_}) + "\n"
        (self.folder / "jobs.jsonl").write_text(text)
        place = shared_study.call_folder(self.folder, "c1")
        place.mkdir(parents=True)
        shared_study.append(place / f"{self.name}.jsonl", self.info | {"optbench": made.worker})


def calls_versions() -> dict[str, str]:
    from optbench.sweeps.sharing.calls import versions

    return versions("cpu")


def test_a_worker_does_a_sweep_and_leaves_no_claims(run, tmp_path):
    code, out, err = run("work", *QUICK, "optimizer=sgd,adam", "seed=0,1", "name=x", *TWO)
    assert code == 0, err
    assert "4 of 4 runs done" in out
    first, *outcomes = lines(tmp_path / "x")
    assert [line["job"] for line in outcomes] == [0, 1, 2, 3]
    assert {line["status"] for line in outcomes} == {"completed"}
    assert "call" not in first
    assert list((tmp_path / ".claims").iterdir()) == []
    assert not (tmp_path / "x" / ".work").exists()
    assert (tmp_path / "x" / "summary.csv").exists()
    assert session.sessions.current is None
    assert job_list.shared.call is None

    # by its folder, from elsewhere and by another name of the folder
    (tmp_path / "y").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    os.chdir(tmp_path / "y")
    code, out, err = run("work", str(tmp_path / "link" / "x"), *TWO)
    assert code == 0, err
    assert out.count("already done") == 4
    assert len(records(tmp_path / "x")) == 4

    code = sub_command("status")([str(tmp_path / "x")])
    assert code == 0


def test_a_run_that_another_worker_has_is_waited_for_and_taken_over_when_it_is_silent(
    run, tmp_path
):
    assert run("work", *QUICK, "seed=0,1", "name=x", *TWO)[0] == 0
    (folder,) = (tmp_path / "x").glob("adam-seed1-*")
    before = (folder / "epochs.csv").read_text()
    # the other worker is in the middle of the run
    record = json.loads((folder / "run.json").read_text())
    for path in folder.iterdir():
        path.unlink()
    (folder / "epochs.csv").write_text("torn")
    run_id = record["run_id"]
    from optbench.formats.run import write_sealed

    del record["sha256"]
    write_sealed(folder / "run.json", record | {"status": "running", "summary": {}})
    other = Other(tmp_path / "x")
    other.claim(run_id)
    threading.Timer(1.5, other.stop).start()
    begun = time.monotonic()
    code, _out, err = run("work", str(tmp_path / "x"), "--stale", "1", *TWO)
    assert code == 0, err
    assert time.monotonic() - begun > 2.4  # as long as it gave signs of life, and a second more
    assert "taken over from a worker that is gone" in err
    (moved,) = (tmp_path / "x").glob("adam-seed1-*")
    assert moved.name.startswith(f"adam-seed1-{run_id}-")  # what the other writes goes nowhere
    assert not folder.exists()

    assert without_times((moved / "epochs.csv").read_text()) == without_times(before)
    assert [one["status"] for one in records(tmp_path / "x")] == ["completed"] * 2


def test_a_worker_that_has_lost_its_run_stops_with_a_sentence(run, tmp_path):
    def take_over() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            taken = claims.newest_of(tmp_path / ".claims")
            for name in taken:
                if not name.startswith(("files-", "close-")) and (tmp_path / "stepping").exists():
                    claims.take(tmp_path / ".claims", name, {"worker": "o"}, lambda _: True)
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=take_over)
    thread.start()
    code, _out, err = run("work", *QUICK, *SLOWLY, "name=x", "--stale", "1", *TWO)
    thread.join()
    assert code == 1
    assert "another one has taken over its 1 run: it stops" in err
    assert "completed" not in [one["status"] for one in records(tmp_path / "x")]
    left = list((tmp_path / ".claims").iterdir())
    assert sorted(path.suffix for path in left) == [".1", ".2"]  # or its heir would lose it
    for path in left:
        path.unlink()

    (tmp_path / "calm").touch()
    code, _out, err = run("work", str(tmp_path / "x"), *TWO)
    assert code == 0, err
    assert [one["status"] for one in records(tmp_path / "x")] == ["completed"]


def test_the_time_is_up_and_the_next_call_resumes(run, tmp_path, monkeypatch):
    assert session.Session(seconds=100).is_time_up() is False
    assert session.Session(seconds=0.01).until < time.monotonic() + 0.01  # a tenth is left
    begun = lambda _: (tmp_path / "stepping").exists()  # noqa: E731
    monkeypatch.setattr(session.Session, "is_time_up", begun)
    code, out, err = run("work", *QUICK, *SLOWLY, "epochs=40", "name=x", "--for", "1h", *TWO)
    assert code == 0, err
    assert "the time is up" in out
    assert [one["status"] for one in records(tmp_path / "x")] == ["interrupted"]
    assert list((tmp_path / ".claims").iterdir()) == []
    (tmp_path / "calm").touch()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    code, _out, err = run("work", str(tmp_path / "x"), *TWO)
    assert code == 0, err
    assert "resuming from step" in err
    assert [one["status"] for one in records(tmp_path / "x")] == ["completed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_hands_the_runs_back(run, tmp_path, number):
    def interrupt() -> None:
        while not (tmp_path / "stepping").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    code, _out, _err = run("work", *QUICK, *SLOWLY, "epochs=40", "name=x", *TWO)
    assert code == 128 + number
    assert [one["status"] for one in records(tmp_path / "x")] == ["interrupted"]
    assert list((tmp_path / ".claims").iterdir()) == []
    (worker,) = shared_study.read_workers(
        tmp_path / "x", job_list.first_line(tmp_path / "x")["call"]["id"]
    )
    assert worker.left
    text = "\n".join(status_command.lines_of(tmp_path / "x"))
    assert "0 done, 1 to do" in text
    assert "has left" in text
    assert "nobody works on it" in text


def test_another_version_on_the_folder_is_refused_with_words(run, tmp_path):
    assert run("-m", *QUICK, "name=x", "hydra.launcher.workers=2")[0] == 0
    other = Other(tmp_path / "x")
    other.join(optbench="9.9")
    code, _out, err = run("work", str(tmp_path / "x"), "--stale", "1", *TWO)
    assert code == 1
    assert "is being worked on with optbench 9.9, and this worker has optbench 0." in err
    assert "far-1-abcd" in err
    assert "Traceback" not in err
    # once it is silent, the folder is free
    other.stop()
    code, _out, err = run("work", str(tmp_path / "x"), "--stale", "1", *TWO)
    assert code == 0, err


def test_another_device_or_command_on_the_folder_is_refused_with_words(run, tmp_path):
    assert run("-m", *QUICK, "name=x", "hydra.launcher.workers=2")[0] == 0
    other = Other(tmp_path / "x")
    other.join(device="cuda")
    code, _, err = run("work", str(tmp_path / "x"), *TWO)
    assert (code, "with device cuda, and this worker has device cpu" in err) == (1, True), err
    shared_study.remove_lists(tmp_path / "x", "c1")
    other.join()
    code, _, err = run("work", *QUICK, "seed=7", "name=x", *TWO)
    assert (code, "is being worked on with other settings" in err) == (1, True), err
    other.stop()


def test_an_ordinary_sweep_leaves_a_folder_to_its_workers(run, tmp_path):
    assert run("-m", *QUICK, "name=x", "hydra.launcher.workers=2")[0] == 0
    other = Other(tmp_path / "x")
    other.info |= {
        "place": claims.place(), "pid": os.getpid(), "started": claims.started(os.getpid()),
    }  # fmt: skip
    other.join()
    code, _, err = run("-m", *QUICK, "name=x", "hydra.launcher.workers=2")
    assert code == 1
    assert "optbench work" in err
    other.stop()


def test_a_failed_run_is_tried_once_in_a_call_and_again_in_the_next(run, tmp_path):
    words = ["optimizer._target_=slow.Wrong", "optimizer.lr=0.1", "seed=0,1"]
    code, _, err = run("work", *QUICK, *words, "name=x", *TWO)
    assert code == 1
    assert "2 of 2 runs failed" in err
    assert [line["status"] for line in lines(tmp_path / "x")[1:]] == ["failed"] * 2
    (tmp_path / "calm").touch()
    code, _, err = run("work", str(tmp_path / "x"), *TWO)
    assert code == 0, err
    assert [line["status"] for line in lines(tmp_path / "x")[1:]] == ["completed"] * 2


def test_a_failure_that_another_worker_has_noted_is_not_tried_again(run, tmp_path):
    assert run("-m", *QUICK, "seed=0,1", "name=x", "hydra.launcher.workers=2")[0] == 0
    done = records(tmp_path / "x")
    run_id = done[1]["run_id"]
    (folder,) = (tmp_path / "x").glob(f"*{run_id}")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    other = Other(tmp_path / "x")
    other.join()
    (path,) = shared_study.list_files(tmp_path / "x", "c1")
    outcome = {"job": 1, "overrides": ["seed=1"], "status": "failed", "error": "bad luck"}
    shared_study.append(path, outcome | {"run_id": run_id, "run": None})
    code, _, err = run("work", str(tmp_path / "x"), "--stale", "5", *TWO)
    other.stop()
    assert code == 1
    assert "bad luck" in err
    assert len(records(tmp_path / "x")) == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["{}"], "is not the folder of a sweep: it has no jobs.jsonl"),
        (["seed=0", "--for", "soon"], "--for must be a time such as 3h"),
        (["seed=0", "--for", "3x"], "'x' is no unit"),
        (["seed=0", "--for", "0s"], "longer than no time"),
        (["seed=0", "--stale", "0.1"], "--stale must be 1 s or more"),
        (["seed=0", "--workers", "0"], "--workers must be 1 or more"),
        (["seed=0", "--device", "tpu"], "--device must be cpu, cuda or cuda:NUMBER"),
        (["seed=0", "hydra/launcher=slurm"], "a worker has its own launcher"),
        (["seed=0", "force=true"], "workers who share a study do each run once"),
        (["seed=0", "--stael", "6"], "Did you mean --stale?"),
    ],
)
def test_mistakes_get_words(run, tmp_path, words, part):
    code, _, err = run("work", *(word.format(tmp_path) for word in words))
    assert code == 1
    assert part in err
    assert "Traceback" not in err
    assert session.sessions.current is None


def test_a_folder_that_cannot_be_written_is_refused_with_words(run, tmp_path):
    (tmp_path / ".claims").write_text("no folder")
    code, _, err = run("work", *QUICK, "name=x", *TWO)
    assert code == 1
    assert "cannot write results into" in err
    assert "Traceback" not in err


def test_times_are_read_as_they_are_written():
    assert seconds_of("--for", "3h") == 3 * 3600
    assert seconds_of("--for", "1h30m") == 5400
    assert seconds_of("--for", "90min") == 5400
    assert seconds_of("--for", "2d") == 2 * 86400
    assert seconds_of("--for", "45") == 45
    with pytest.raises(UserError, match="each number needs its unit"):
        seconds_of("--for", "1h30")


def test_a_device_is_one_of_those_that_are_seen(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-abc")
    work.choose_device("cuda:1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-abc"
    with pytest.raises(UserError, match="names 1 devices"):
        work.choose_device("cuda:1")
    work.choose_device("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    work.choose_device("cuda:3")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_a_folder_of_an_unfinished_run_gets_a_name_that_is_free(tmp_path):
    folder = tmp_path / "adam-seed0-0123456789ab"
    folder.mkdir()
    elsewhere.rename(folder, "0123456789ab")
    (moved,) = tmp_path.iterdir()
    assert moved.name.startswith("adam-seed0-0123456789ab-")
    elsewhere.rename(moved, "0123456789ab")
    (again,) = tmp_path.iterdir()
    assert again.name.count("-") == 3


# without the figures, which take longer than such runs
PROGRAM = """
from optbench import __main__
from optbench.sweeps import callback
callback.finish = lambda *_, **__: print("drawn")
__main__.main()
"""


def worker(folder: Path, words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "work", *words], cwd=folder, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def tables(folder: Path) -> dict[str, list[list[str]]]:
    """The rows of every run without its times, by phase and identity."""
    found = {}
    for path in folder.rglob("epochs.csv"):
        record = json.loads((path.parent / "run.json").read_text())
        key = f"{path.parent.parent.name} {record['run_id']}"
        assert key not in found, "the run was done twice"
        found[key] = without_times(path.read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sobol", "tpe"])
def test_two_workers_do_a_tuned_study_as_one_does(run, tmp_path, method):
    if method == "tpe":
        pytest.importorskip("optuna")
    words = [
        *QUICK, "hydra/sweeper=tuned", "optimizer=sgd,adam", "tuning.trials=4", "tuning.repeats=2",
        "seeds=2", f"tuning.method={method}", "epochs=1",
    ]  # fmt: skip
    assert run("work", *words, "name=alone", *TWO)[0] == 0
    alone = tables(tmp_path / "alone")
    together = tmp_path / "elsewhere"
    together.mkdir()
    options = [*TWO[:1], "1", "--stale", "10"]
    first = worker(together, [*words, "name=both", "results_dir=.", *options])
    while not job_list.first_line(together / "both").get("call"):
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    second = worker(together, ["both", *options])
    outputs = [one.communicate(timeout=300) for one in (first, second)]
    assert [one.returncode for one in (first, second)] == [0, 0], outputs
    assert tables(together / "both") == alone
    assert {line["status"] for line in lines(together / "both")[1:]} == {"completed"}
    assert (outputs[0][0] + outputs[1][0]).count("drawn") == 1


@pytest.mark.slow
def test_a_killed_and_a_stopped_worker_leave_their_runs_to_another(run, tmp_path):
    words = [*QUICK, *SLOWLY, "seed=0,1,2,3", "name=x"]
    for number in (signal.SIGKILL, signal.SIGSTOP):
        folder = tmp_path / number.name
        folder.mkdir()
        (folder / "slow.py").write_text(SLOW)
        (folder / "stuck").touch()  # the first run, until its worker is gone
        first = worker(folder, [*words, "results_dir=.", "--stale", "3", "--workers", "1"])
        while not (folder / "stepping").exists():
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        whom = os.killpg if number == signal.SIGSTOP else os.kill  # as of a machine that sleeps
        whom(first.pid, number)
        (folder / "calm").touch()
        (folder / "stuck").unlink()
        second = worker(folder, ["x", "--stale", "3", "--workers", "1"])
        out, err = second.communicate(timeout=500)
        assert second.returncode == 0, err
        assert "taken over from a worker that is gone" in err
        assert len(tables(folder / "x")) == 4
        assert "4 of 4 runs done" in out
        if number == signal.SIGSTOP:
            os.killpg(first.pid, signal.SIGCONT)
            _, err = first.communicate(timeout=60)
            assert first.returncode == 1
            assert "another one has taken over its 1 run: it stops" in err
            assert len(tables(folder / "x")) == 4
        first.communicate()


def test_a_worker_that_writes_the_place_of_results_has_done_the_planned_jobs():
    planned = [["optimizer=sgd", "seed=0", "name=x"], ["optimizer=sgd", "seed=1", "name=x"]]
    outcomes = [
        {"overrides": [*words, "results_dir='/elsewhere'"], "status": "completed"}
        for words in planned
    ]
    found = job_list.progress_of({"jobs": planned}, outcomes)
    assert (found["done"], found["missing"]) == (2, 0)

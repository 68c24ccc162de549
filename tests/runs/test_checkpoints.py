"""Runs that were stopped go on; two processes share the work; files from others run no code."""

import csv
import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from composed import resolved

from optbench.analysis.table import load_runs
from optbench.common.errors import UserError
from optbench.config import build
from optbench.formats.run import ADDED_COLUMNS, COLUMNS, COUNTED, read_record, write_sealed
from optbench.runner import run as experiment
from optbench.runs import checkpoints, locks
from optbench.runs import folder as runs
from optbench.runs.finished import abandon

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["data.subset=300", "model.hidden=[8]", "epochs=4", "log.steps=1", "quiet=true"]


def configuration(folder: Path, *overrides: str) -> dict[str, Any]:
    return resolved(*QUICK, f"results_dir={folder}", *overrides)


def stopped(folder: Path, after: int, *overrides: str) -> experiment.Outcome:
    """A run that is interrupted after so many steps."""
    calls = iter(range(1, 10**6))
    planned = experiment.plan(configuration(folder, *overrides), folder / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optbench.training.loop.SYNC_EVERY", 1)
        return experiment.complete(planned, lambda update: None, lambda: next(calls) >= after)


def finished(folder: Path, *overrides: str) -> experiment.Outcome:
    return experiment.run(configuration(folder, *overrides), folder / "runs")


def rows(run: Path) -> dict[str, list[dict[str, str]]]:
    found = {}
    for path in sorted(run.glob("*.csv")):
        with path.open(newline="") as file:
            lines = csv.DictReader(file)
            found[path.name] = [{k: v for k, v in r.items() if "seconds" not in k} for r in lines]
    return found


def test_a_second_ctrl_c_while_a_checkpoint_is_written_is_no_full_disk(tmp_path, monkeypatch):
    def save(state: object, file: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos")  # torch's writer, whose end fell short

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, {}, {}, {})


@pytest.mark.parametrize("after", [1, 4, 6])
def test_an_interrupted_run_goes_on_in_its_folder(tmp_path, capsys, after):
    expected = finished(tmp_path / "a", "diagnostics=layers").folder
    run = stopped(tmp_path / "b", after, "diagnostics=layers").folder
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    # rows that were written after the checkpoint, and half a row
    with (run / "steps.csv").open("a") as file:
        file.write("99,9.9,1,1,1\n100,1")
    outcome = finished(tmp_path / "b", "diagnostics=layers")
    assert outcome.folder == run
    assert f"resuming from step {after}" in capsys.readouterr().err
    assert rows(run) == rows(expected)
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], len(record["resumed"])) == ("completed", 1)
    assert not (run / checkpoints.CHECKPOINT_FILE).exists()
    whole = json.loads((expected / "run.json").read_text())["summary"]
    assert {k: v for k, v in record["summary"].items() if "seconds" not in k} == {
        k: v for k, v in whole.items() if "seconds" not in k
    }


NOISY = """
import numpy as np, torch

class Noisy(torch.optim.SGD):
    def __init__(self, params, **kwargs):
        super().__init__(params, **kwargs)
        self.rng = np.random.default_rng({seed})

    def step(self, closure=None):
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(1e-3 * float(self.rng.standard_normal()))
        return loss
"""


@pytest.mark.parametrize(("seed", "told"), [("", True), ("5", False)])
def test_resumed_run_says_nothing_of_generators_that_moved_on(
    tmp_path, monkeypatch, capsys, seed, told
):
    module = f"noisy_{seed or 'free'}"
    (tmp_path / f"{module}.py").write_text(NOISY.format(seed=seed))
    monkeypatch.syspath_prepend(tmp_path)
    own = ["optimizer=sgd", f"optimizer._target_={module}.Noisy"]
    run = stopped(tmp_path, 4, *own).folder
    assert ("that no seed sets" in capsys.readouterr().err) == told
    outcome = finished(tmp_path, *own)
    assert outcome.folder == run
    assert outcome.status == "completed"
    assert "that no seed sets" not in capsys.readouterr().err


def test_a_run_of_an_earlier_version_keeps_the_columns_of_its_files(tmp_path, monkeypatch):
    earlier = [name for name in COLUMNS["layers"] if name not in ADDED_COLUMNS]
    with monkeypatch.context() as patch:
        patch.setitem(COLUMNS, "layers", earlier)
        run = stopped(tmp_path, 4, "diagnostics=layers").folder
    assert finished(tmp_path, "diagnostics=layers").folder == run
    table = load_runs(run, rows="layers")
    assert not {*ADDED_COLUMNS} & {*table.columns}
    assert table["step"].max() == 12


def test_a_run_that_was_killed_after_its_first_row_has_that_row_once(tmp_path):
    config = configuration(tmp_path, "checkpoint_seconds=0")
    planned = experiment.plan(config, tmp_path / "runs")

    def killed(update):
        if update.step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.complete(planned, killed, lambda: False)
    outcome = finished(tmp_path, "checkpoint_seconds=0")
    assert [row["epoch"] for row in rows(outcome.folder)["epochs.csv"]] == ["0", "1", "2", "3", "4"]


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "pickle", "version", "rows"])
def test_what_cannot_be_gone_on_with_begins_anew(tmp_path, capsys, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    run = stopped(tmp_path, 4).folder
    path = run / checkpoints.CHECKPOINT_FILE
    whole = path.read_bytes()
    if damage == "version":
        torch.save({"format": 0}, path)
    elif damage == "rows":
        (run / "steps.csv").write_text("step,epoch,train_loss,lr,seconds\n")
    else:
        harmful = pickle.dumps(Harmful())
        parts = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"x", "pickle": harmful}
        path.write_bytes(parts[damage])
    outcome = finished(tmp_path)
    assert (outcome.status, outcome.folder == run) == ("completed", False)
    assert "restarts" in capsys.readouterr().err
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", 2), ("step", 9), ("step", -6), ("step", 10**9), ("step", 4.0),
        ("seconds", math.nan), ("seen", "abc"), ("seen", -1), ("running_loss", None),
        ("objects", {}), ("noise", torch.zeros(3)), ("model_draws", {"torch": torch.zeros(3)}),
    ],
)  # fmt: skip
def test_a_checkpoint_whose_values_are_nonsense_is_not_believed(tmp_path, capsys, key, value):
    run = stopped(tmp_path, 4).folder
    state = torch.load(run / checkpoints.CHECKPOINT_FILE, weights_only=True)
    state["training"][key] = value
    torch.save(state, run / checkpoints.CHECKPOINT_FILE)
    outcome = finished(tmp_path)
    assert (outcome.status, outcome.folder == run) == ("completed", False)
    assert "restarts" in capsys.readouterr().err
    assert rows(outcome.folder) == rows(finished(tmp_path / "whole").folder)


def test_a_run_killed_before_its_first_checkpoint_reuses_its_folder(tmp_path, monkeypatch):
    planned = experiment.plan(configuration(tmp_path), tmp_path / "runs")

    class Killed(BaseException):
        pass

    def killed(update):
        raise Killed

    monkeypatch.setattr(
        experiment, "mark_failed", lambda folder, error: None
    )  # nobody is left to do it
    for _ in range(2):
        with pytest.raises(Killed):
            experiment.complete(planned, killed, lambda: False)
    (run,) = (tmp_path / "runs").iterdir()
    assert read_record(run / "run.json")["status"] == "running"
    outcome = finished(tmp_path)
    assert (outcome.folder, outcome.status) == (run, "completed")
    assert list((tmp_path / "runs").iterdir()) == [run]
    assert rows(run) == rows(finished(tmp_path / "whole").folder)


def test_force_begins_anew(tmp_path):
    run = stopped(tmp_path, 4).folder
    assert finished(tmp_path, "force=true").folder != run


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, {}, {}, {"a": 1})
    before = (tmp_path / checkpoints.CHECKPOINT_FILE).read_bytes()

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(tmp_path, {}, {}, {"a": 2})
    assert (tmp_path / checkpoints.CHECKPOINT_FILE).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [checkpoints.CHECKPOINT_FILE]


HOLD = """
import sys, time
from pathlib import Path
from optbench.runs import locks
with locks.run_lock(Path(sys.argv[1]), "abc", waiting=print):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("kill", [False, True])
def test_the_lock_is_handed_on_also_by_the_dead(tmp_path, kill):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path, "60" if kill else "0.5"],
        stdout=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    told: list[str] = []

    def waiting(holder: str) -> None:
        told.append(holder)
        if kill:
            other.kill()

    with locks.run_lock(tmp_path, "abc", waiting=waiting) as waited:
        assert waited
        assert str(other.pid) in told[0]
    other.wait()
    assert [p.name for p in (tmp_path / locks.LOCK_FOLDER).iterdir()] == [locks.RELEASED_FILE]


def test_pipes_and_links_in_the_place_of_the_locks_are_not_followed(tmp_path):
    (tmp_path / "a" / locks.LOCK_FOLDER).mkdir(parents=True)
    os.mkfifo(tmp_path / "a" / locks.LOCK_FOLDER / locks.RELEASED_FILE)
    with locks.run_lock(tmp_path / "a", "abc", waiting=print) as waited:
        assert not waited  # and it does not wait for somebody to write into the pipe
    (tmp_path / "b").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "b" / locks.LOCK_FOLDER).symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(OSError, match="a link"),
        locks.run_lock(tmp_path / "b", "abc", waiting=print),
    ):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_wait_can_be_stopped(tmp_path):
    begun = time.monotonic()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path, "60"], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert other.stdout is not None
    other.stdout.readline()
    with (
        pytest.raises(locks.Stopped),
        locks.run_lock(tmp_path, "abc", waiting=lambda who: None, stop=lambda: True),
    ):
        pass
    other.kill()
    other.wait()
    assert time.monotonic() - begun < 50


def test_a_run_whose_process_died_goes_on_and_one_whose_code_failed_begins_anew(tmp_path, capsys):
    run = stopped(tmp_path, 4).folder
    path = run / "run.json"
    write_sealed(path, read_record(path) | {"status": "running"})
    abandon(run, "its process was ended by SIGKILL")
    assert json.loads(path.read_text())["status"] == "failed"
    assert finished(tmp_path).folder == run
    assert "resuming from step 4" in capsys.readouterr().err

    other = tmp_path / "other"
    run = stopped(other, 4).folder
    experiment.mark_failed(runs.RunFolder.reopen(run, NO_ROWS), ArithmeticError("a bug"))
    assert finished(other).folder != run


HEADERS = {
    name: (",".join([*COLUMNS[name], *COUNTED]) + "\n").encode() for name in ("epochs", "steps")
}
NO_ROWS = {
    "last": {},
    "best": {},
    "rows": dict.fromkeys(HEADERS, 0),
    "sha256": {name: hashlib.sha256(text).hexdigest() for name, text in HEADERS.items()},
}


def test_other_data_refuse_to_go_on(tmp_path):
    run = stopped(tmp_path, 4).folder
    config = configuration(tmp_path)

    def other(config):
        return replace(build.load_dataset(config), digest="another")

    planned = experiment.plan(config, tmp_path / "runs", load=other)
    with pytest.raises(UserError, match=r"data_digest was '.*' and is 'another'") as raised:
        experiment.complete(planned, lambda update: None, lambda: False)
    assert str(run) in str(raised.value)
    assert "force=true" in str(raised.value)
    planned = experiment.plan(config | {"force": True}, tmp_path / "runs", load=other)
    assert experiment.complete(planned, lambda update: None, lambda: False).folder != run


def test_a_checkpoint_of_another_model_begins_anew(tmp_path, capsys):
    run = stopped(tmp_path, 4).folder
    state = torch.load(run / checkpoints.CHECKPOINT_FILE, weights_only=True)
    state["training"]["objects"]["parameters"].pop()
    torch.save(state, run / checkpoints.CHECKPOINT_FILE)
    outcome = finished(tmp_path)
    assert (outcome.status, outcome.folder == run) == ("completed", False)
    assert "the run restarts" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["run.json", "decay", "checkpoint"])
def test_other_settings_refuse_to_go_on(tmp_path, where):
    run = stopped(tmp_path, 4).folder
    if where == "run.json":
        record = read_record(run / "run.json")
        record["config"]["optimizer"]["lr"] = 0.5
        write_sealed(run / "run.json", record)
        message = "optimizer.lr was 0.5 and is 0.001"
    elif where == "decay":
        record = read_record(run / "run.json")
        record["config"]["decay_biases_and_norms"] = False
        write_sealed(run / "run.json", record)
        message = "decay_biases_and_norms was False and is True"
    else:
        other = stopped(tmp_path / "other", 4, "optimizer.lr=0.5").folder
        name = checkpoints.CHECKPOINT_FILE
        (run / name).write_bytes((other / name).read_bytes())
        message = "is the checkpoint of another run"
    with pytest.raises(UserError, match=message):
        finished(tmp_path)


def test_a_run_that_lost_rows_is_done_again(tmp_path, capsys):
    first = finished(tmp_path)
    assert finished(tmp_path).known
    for text in ("".join((first.folder / "steps.csv").read_text().splitlines(True)[:-1]), ""):
        (first.folder / "steps.csv").write_text(text)
        assert experiment.plan(configuration(tmp_path), tmp_path / "runs").done is None
        assert f"{first.folder} has a CSV file that was changed or lost" in capsys.readouterr().err


def test_the_other_process_s_run_is_seen_without_a_wait(tmp_path):
    planned = experiment.plan(configuration(tmp_path), tmp_path / "runs")
    first = finished(tmp_path)  # another process, between our plan and our turn
    outcome = experiment.complete(planned, lambda update: None, lambda: False)
    assert outcome.known
    assert outcome.folder == first.folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["--kills", pytest.param("--sweep-kills", marks=pytest.mark.slow)],
)
def test_killed_runs_end_as_undisturbed_ones(kind):
    kills = {"--kills": 0, kind: 2}
    words = [word for key, number in kills.items() for word in (key, str(number))]
    script = [sys.executable, "-m", "scripts.reliability.kill_runs", *words, "--seed", "1"]
    result = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{kills[kind]} SIGKILLs" in result.stdout

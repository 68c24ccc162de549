"""What the loggers were given, read back with their own libraries."""

import csv
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from composed import resolved

from optbench.common.errors import UserError
from optbench.formats.run import flatten, read_record, write_sealed
from optbench.runner import run as experiment
from optbench.runner import writing
from optbench.runs import loggers

QUICK = ("data.subset=300", "model.hidden=[16]", "epochs=2", "log.steps=1", "device=cpu")
LOST = ("optimizer=sgd", "optimizer.lr=1e20")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(loggers.Loggers, "warned", set())


def train(results: Path, *words: str, stop=lambda: False) -> experiment.Outcome:
    """One run, in this process."""
    config = resolved(*QUICK, f"results_dir={results}", *words)
    planned = experiment.plan(config, results / "runs")
    return experiment.complete(planned, lambda update: None, stop)


def after(calls: int):
    """A `stop` that says so at this call."""
    left = iter(range(calls, 0, -1))
    return lambda: next(left, 0) <= 1


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every number of the run's CSV files, by the name that loggers give it."""
    found: dict[str, list[tuple[int, float]]] = {}
    for kind in ("epochs", "steps", "layers"):
        path = folder / f"{kind}.csv"
        for row in csv.DictReader(path.open()) if path.exists() else ():
            step, layer = int(row.pop("step")), row.pop("layer", None)
            row.pop("kind", None)
            for column, cell in row.items():
                if cell:
                    name = f"{kind}/{layer}/{column}" if layer else f"{kind}/{column}"
                    found.setdefault(name, []).append((step, float(cell)))
    assert found["epochs/val_loss"]
    return found


def tensorboard(folder: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}
    )
    return found.Reload()


def status_of(events) -> str:
    (text,) = events.Tensors("status/text_summary")
    return text.tensor_proto.string_val[0].decode()


def same(got, want, rel=1e-5) -> None:
    assert set(got) == set(want)
    for name, expected in want.items():
        assert [step for step, _ in got[name]] == [step for step, _ in expected], name
        values = [value for _, value in got[name]]
        assert values == pytest.approx([v for _, v in expected], rel=rel, nan_ok=True), name


def check_tensorboard(folder: Path, status: str) -> None:
    events = tensorboard(folder)
    got = {n: [(e.step, e.value) for e in events.Scalars(n)] for n in events.Tags()["scalars"]}
    same(got, points(folder))
    assert status_of(events) == status


def client(results: Path, uri: str | None = None):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    return mlflow.MlflowClient(uri or f"sqlite:///{results / 'mlflow.db'}")


def mlflow_runs(found, experiment_name: str) -> dict:
    number = found.get_experiment_by_name(experiment_name).experiment_id
    return {run.info.run_name: run for run in found.search_runs([number])}


def check_mlflow(found, run, folder: Path, status: str) -> None:
    got = {
        name: sorted((m.step, m.value) for m in found.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }
    same(got, points(folder))
    assert run.data.tags["status"] == status


def test_tensorboard_holds_every_number_the_configuration_and_the_status(tmp_path):
    pytest.importorskip("tensorboard")
    outcome = train(tmp_path, "logger=tensorboard", "diagnostics=layers")
    check_tensorboard(outcome.folder, "completed")
    assert "layers/all/noise_scale" in points(outcome.folder)
    metadata = tensorboard(outcome.folder).summary_metadata
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    data = plugin.HParamsPluginData()
    data.ParseFromString(metadata["_hparams_/session_start_info"].plugin_data.content)
    given = data.session_start_info.hparams
    assert given["optimizer.name"].string_value == "adam"
    assert given["optimizer.lr"].number_value == 0.001
    record = json.loads((outcome.folder / "run.json").read_text())
    assert set(given) == set(flatten(record["config"]))
    assert "logger" not in record["config"]


@pytest.mark.parametrize("store", [pytest.param("sqlite", marks=pytest.mark.slow), "file"])
def test_mlflow_holds_every_number_the_configuration_and_the_status(tmp_path, store, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = None if store == "sqlite" else f"file:{tmp_path}/mlruns"
    words = [] if uri is None else [f"logger.mlflow.uri={uri}"]
    outcome = train(tmp_path, "logger=[csv,mlflow]", *words)
    found = client(tmp_path, uri)
    (run,) = mlflow_runs(found, "runs").values()
    check_mlflow(found, run, outcome.folder, "completed")
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == "0.001"
    assert run.data.params["model.hidden"] == "[16]"
    assert run.info.run_name == outcome.folder.name


class Recorder:
    """A logger of one's own."""

    calls: list[tuple] = []  # noqa: RUF012

    def __init__(self, word: str) -> None:
        self.word = word

    def start(self, run) -> None:
        self.calls.append((self.word, run.folder))

    def rows(self, kind, rows) -> None:
        self.calls += [(kind, row["step"]) for row in rows]

    def finish(self, status) -> None:
        self.calls.append((status,))


def test_a_logger_of_ones_own_gets_every_row(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "calls", [])
    words = ("+logger.mine._target_=test_loggers.Recorder", "+logger.mine.word=hello")
    outcome = train(tmp_path, *words)
    assert Recorder.calls[0] == ("hello", outcome.folder)
    assert Recorder.calls[-1] == ("completed",)
    assert [step for kind, *step in Recorder.calls if kind == "epochs"] == [[0], [3], [6]]


def test_wandb_writes_an_offline_run(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    outcome = train(tmp_path, "logger=wandb")
    (folder,) = (outcome.folder / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    for _ in range(50):  # wandb's own process closes it
        content = file.read_bytes()
        if b"completed" in content:
            break
        time.sleep(0.1)
    for word in (b"epochs/val_loss", b"steps/lr", b"optimizer.lr", b"completed"):
        assert word in content


def test_a_run_that_diverged_or_failed_says_so(tmp_path):
    pytest.importorskip("mlflow")
    both = "logger=[tensorboard,mlflow]"
    outcome = train(tmp_path, both, *LOST)
    assert outcome.status == "diverged"
    events = tensorboard(outcome.folder)
    assert status_of(events) == "diverged"
    assert not math.isfinite(events.Scalars("steps/train_loss")[-1].value)
    runs = mlflow_runs(client(tmp_path), "runs")
    assert runs[outcome.folder.name].data.tags["status"] == "diverged"

    folder = train(tmp_path, both, "seed=1", stop=after(2)).folder
    assert status_of(tensorboard(folder)) == "interrupted"
    write_sealed(folder / "run.json", read_record(folder / "run.json") | {"status": "running"})
    config = resolved(both, f"results_dir={tmp_path}")
    writing.mark_abandoned(config, folder, "its process was ended by SIGSEGV")
    check_tensorboard(folder, "failed")
    run = mlflow_runs(client(tmp_path), "runs")[folder.name]
    assert (run.data.tags["status"], run.info.status) == ("failed", "FAILED")


def test_a_run_that_goes_on_has_no_point_twice(tmp_path):
    pytest.importorskip("mlflow")
    words = ("logger=[tensorboard,mlflow]", "diagnostics=layers")
    first = train(tmp_path, *words, stop=after(2))
    assert first.status == "interrupted"
    second = train(tmp_path, *words)
    assert (second.status, second.folder) == ("completed", first.folder)
    check_tensorboard(second.folder, "completed")
    found = client(tmp_path)
    (run,) = mlflow_runs(found, "runs").values()
    check_mlflow(found, run, second.folder, "completed")


def test_loggers_are_no_part_of_what_a_run_is(tmp_path):
    pytest.importorskip("tensorboard")
    plain = train(tmp_path / "a")
    logged = train(tmp_path / "b", "logger=tensorboard")
    assert plain.folder.name == logged.folder.name
    for name in ("epochs.csv", "steps.csv"):
        a, b = (pd.read_csv(folder / name) for folder in (plain.folder, logged.folder))
        times = [column for column in a if "seconds" in column]
        assert times
        pd.testing.assert_frame_equal(a.drop(columns=times), b.drop(columns=times))
    again = experiment.plan(
        resolved(*QUICK, f"results_dir={tmp_path / 'a'}", "logger=tensorboard"),
        tmp_path / "a" / "runs",
    )
    assert again.done == plain.folder


@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb")],
)
def test_a_missing_package_is_named_before_anything_is_written(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"pip install 'optbench\[{name}\]'"):
        train(tmp_path, f"logger={name}")
    assert list(tmp_path.iterdir()) == []


def test_a_logger_that_fails_is_left_behind_with_one_warning(tmp_path, monkeypatch, capfd):
    pytest.importorskip("tensorboard")

    def fail(self, kind, rows):
        raise OSError("no space left")

    monkeypatch.setattr(loggers.TensorBoard, "rows", fail)
    for seed in (0, 1):
        assert train(tmp_path, "logger=tensorboard", f"seed={seed}").status == "completed"
    error = capfd.readouterr().err
    assert error.count("warning: logger tensorboard gave up (OSError: no space left)") == 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["workers", "basic"])
def test_a_sweep_logs_each_run_once(tmp_path, launcher):
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    words = [
        "optimizer=sgd,adam",
        "seed=0,1",
        "logger=[tensorboard,mlflow]",
        "name=x",
        "quiet=true",
    ]
    command = [
        sys.executable,
        "-m",
        "optbench",
        "-m",
        *QUICK,
        *words,
        "num_threads=1",
        "quiet=true",
    ]
    done = subprocess.run(
        [*command, f"hydra/launcher={launcher}", f"results_dir={tmp_path}"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: logger" not in done.stderr
    found = client(tmp_path)
    runs = mlflow_runs(found, "x")
    folders = sorted(path.parent for path in (tmp_path / "x").glob("*/run.json"))
    assert sorted(runs) == [folder.name for folder in folders]
    assert len(runs) == 4
    for folder in folders:
        check_tensorboard(folder, "completed")
        check_mlflow(found, runs[folder.name], folder, "completed")


def test_nobody_waits_for_what_was_not_asked_for():
    later = "'tensorboard', 'mlflow', 'wandb', 'pandas', 'matplotlib'"  # the last two: for pictures
    code = (
        "import sys, optbench.runner.run, optbench.sweeps.question; "
        f"print([m for m in ({later}) if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[]", done.stderr

"""A command reads each file once and lays a folder's runs out once."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run, sweep

from optbench import report
from optbench.analysis import comparison, series, table
from optbench.analysis.comparison import Options
from optbench.formats import run as run_files
from optbench.report import page
from optbench.report.draw import draw_all


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each run's files are opened for reading."""
    counts: Counter[str] = Counter()

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def read(path: Path, *more: Any, **keys: Any) -> Any:
            if path.suffix in (".json", ".jsonl", ".csv"):
                counts[f"{path.parent.name}/{path.name}"] += 1
            return function(path, *more, **keys)

        return read

    for name in ("read_bytes", "read_text"):
        monkeypatch.setattr(Path, name, counting(getattr(Path, name)))
    return counts


@pytest.fixture
def laid_out(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments of each call of `layout`, less the table."""
    calls: list[tuple[Any, ...]] = []
    layout = series.assign_series

    def counting(runs: Any, *more: Any) -> series.Layout:
        calls.append(more)
        return layout(runs, *more)

    monkeypatch.setattr(series, "assign_series", counting)
    return calls


def six(folder: Path) -> Path:
    return sweep(folder, ("adam", "sgd"), 3)


def test_figures_read_each_file_once_and_lay_the_runs_out_once(tmp_path, opened, laid_out):
    draw_all([six(tmp_path / "runs")], tmp_path / "out", Options(formats=["png"]))
    read = {f"{run:03d}/{name}" for run in range(6) for name in ("run.json", "epochs.csv")}
    assert opened == Counter(read)
    assert len(laid_out) == 1


def test_a_report_reads_each_file_once_and_lays_the_runs_out_once(tmp_path, opened, laid_out):
    page.write([six(tmp_path / "runs")], tmp_path / "report.html")
    names = ("run.json", "epochs.csv", "steps.csv")
    assert opened == Counter({f"{run:03d}/{name}" for run in range(6) for name in names})
    assert len(laid_out) == 1


def test_a_layout_is_made_once_for_each_question(tmp_path, laid_out):
    for lr in (0.001, 0.01):
        sweep(tmp_path / "runs", ("adam", "sgd"), 2, lr=lr)
    draw_all([tmp_path / "runs"], tmp_path / "out", Options(formats=["png"]))
    page.write([tmp_path / "runs"], tmp_path / "report.html")
    # what the runs are, and the lines along the learning rate: of each of the two commands
    assert Counter(map(str, laid_out)) == dict.fromkeys(map(str, laid_out), 2)
    assert len(laid_out) == 4


def test_the_end_of_a_study_reads_each_file_once(tmp_path, opened, capsys):
    for name in ("sgd", "adam"):
        for index, lr in enumerate((1e-3, 3e-3)):
            make_run(tmp_path / "trials" / f"{name}{index}", name, lr=lr, phase="trials")
        for seed in range(1, 7):
            make_run(tmp_path / "tuned" / f"{name}t{seed}", name, seed, lr=3e-3, phase="tuned")
    manifest = {"tuning": {"metric": "val_loss", "pick": "final"}, "warnings": []}
    (tmp_path / "study.json").write_text(json.dumps(manifest))
    sides = [{"optimizer": name, "phase": "tuned"} for name in ("adam", "sgd")]
    check = {"value": "train_loss", "lower": sides[0], "than": sides[1]}
    (tmp_path / "claim.json").write_text(json.dumps({"text": "Adam is faster.", "checks": [check]}))
    report.finish(tmp_path)
    assert set(opened.values()) == {1}
    assert len(opened) == 2 * (2 * 2 + 2 * 6) + 2
    said = capsys.readouterr()
    for name in ("summary.csv", "verdict.csv", "tuning.csv", "train_loss-epoch.png"):
        assert (tmp_path / name).exists()
    assert "Claim:   It held: Adam is faster." in said.out


def test_a_report_of_a_study_reads_its_manifest_and_its_list_of_jobs_once(tmp_path, opened):
    for name in ("sgd", "adam"):
        for seed in range(2):
            make_run(tmp_path / "tuned" / f"{name}{seed}", name, seed, phase="tuned")
    manifest = {"tuning": {"metric": "val_loss", "pick": "final"}, "warnings": []}
    (tmp_path / "study.json").write_text(json.dumps(manifest))
    job = {"job": 0, "overrides": ["optimizer=lion"], "status": "failed", "error": "no lion"}
    plan = {"planned": 2, "retry": "failed", "jobs": [["optimizer=lion"], ["optimizer=muon"]]}
    (tmp_path / "jobs.jsonl").write_text(f"{json.dumps(plan)}\n{json.dumps(job)}\n")
    page.write([tmp_path], tmp_path / "report.html")
    assert opened[f"{tmp_path.name}/study.json"] == 1
    assert opened[f"{tmp_path.name}/jobs.jsonl"] == 1
    assert set(opened.values()) == {1}
    text = (tmp_path / "report.html").read_text()
    assert "planned and not run: optimizer=muon" in text
    assert "no lion" in text
    opened.clear()
    draw_all([tmp_path], tmp_path / "out", Options(formats=["png"]))
    assert opened[f"{tmp_path.name}/study.json"] == 1


def test_tables_are_loaded_lazily(tmp_path, monkeypatch):
    made = comparison.compare([six(tmp_path)])
    reads: list[str] = []
    read_rows = table.read_rows
    monkeypatch.setattr(
        table, "read_rows", lambda path, record: reads.append(path.name) or read_rows(path, record)
    )
    assert made.rows("epochs") is made.table
    assert reads == []
    assert len(made.rows("steps")["run"].unique()) == 6
    made.rows("steps")
    assert reads == ["steps.csv"] * 6
    assert run_files.COLUMNS["steps"][0] in made.rows("steps")

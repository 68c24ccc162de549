"""The cache of a large folder: equal tables, and no file that was changed is taken from it."""

import json
import os
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from made_runs import make_run

from optbench.analysis import table
from optbench.analysis.table import RunFiles, read_runs
from optbench.formats import run as run_format
from optbench.formats import run_cache

pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Six runs that count as many, with files that are not young."""
    monkeypatch.setattr(run_cache, "MIN_RUNS", 2)
    monkeypatch.setattr(run_cache, "YOUNG_SECONDS", -60.0)
    for name in ("adam", "sgd"):
        for seed in range(3):
            make_run(tmp_path / f"{name}{seed}", name, seed, epochs=2)
    make_run(tmp_path / "odd", "adam", 7, diverged_at=40, epochs=2)
    return tmp_path


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The files that are read and checked, as opposed to taken from the cache."""
    found: list[str] = []
    record, rows = run_format.read_record, run_format.read_rows

    def read_record(path):
        found.append(str(path.relative_to(path.parents[1])))
        return record(path)

    def read_rows(path, its_record):
        found.append(str(path.relative_to(path.parents[1])))
        return rows(path, its_record)

    monkeypatch.setattr(table, "read_record", read_record)
    monkeypatch.setattr(table, "read_rows", read_rows)
    return found


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other)
    assert one.attrs == other.attrs


def test_the_table_is_the_same_and_no_file_is_read_twice(folder, reads, monkeypatch):
    first = {rows: read_runs(folder, rows=rows) for rows in ("epochs", "steps")}
    assert len(reads) == 3 * 7  # the records once
    reads.clear()
    for rows in ("epochs", "steps"):
        same(read_runs(folder, rows=rows), first[rows])
    assert reads == []
    monkeypatch.setattr(run_cache, "MIN_RUNS", 100)
    for rows in ("epochs", "steps"):
        same(read_runs(folder, rows=rows), first[rows])


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_file_that_was_edited_is_read_again_and_only_this_one(folder, reads, keep_times):
    read_runs(folder)
    read_runs(folder)
    reads.clear()
    path = folder / "adam1" / "epochs.csv"
    before = path.stat()
    lines = path.read_text().splitlines()
    cells = lines[-1].split(",")
    cells[2] = "9" * len(cells[2].replace(".", "9")[:6]) + cells[2][6:]  # as long as before
    lines[-1] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    if keep_times:
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = read_runs(folder)
    assert reads == ["adam1/epochs.csv"]
    rows = found[found["run"] == str(path.parent)]
    assert rows["train_loss"].iloc[-1] == float(cells[2])


def test_a_record_that_was_changed_has_its_rows_checked_again(folder, reads):
    read_runs(folder)
    path = folder / "sgd2" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"csv_sha256": {"epochs": "0" * 64}}))
    reads.clear()
    found = read_runs(folder)
    assert sorted(reads) == ["sgd2/epochs.csv", "sgd2/run.json"]
    assert any("was changed after the run" in text for text in found.attrs["problems"])


def test_a_new_run_is_added_and_a_run_that_is_gone_is_left_out(folder, reads):
    read_runs(folder)
    shutil.rmtree(folder / "adam0")
    make_run(folder / "new", "sgd", 9, epochs=2)
    reads.clear()
    found = read_runs(folder)
    assert sorted(reads) == ["new/epochs.csv", "new/run.json"]
    assert str(folder / "adam0") not in set(found["run"].astype(str))
    assert str(folder / "new") in set(found["run"].astype(str))


def test_a_young_file_is_not_kept(folder, reads, monkeypatch):
    monkeypatch.setattr(run_cache, "YOUNG_SECONDS", 60.0)
    read_runs(folder)
    reads.clear()
    read_runs(folder)
    assert len(reads) == 14


@pytest.mark.parametrize("damage", [b"", b"PAR1 and nothing else", None])
def test_a_damaged_cache_is_no_cache(folder, reads, damage):
    first = read_runs(folder)
    for path in (folder / ".cache").iterdir():
        path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    reads.clear()
    same(read_runs(folder), first)
    assert len(reads) == 14
    reads.clear()
    same(read_runs(folder), first)
    assert reads == []


def test_a_copied_folder_has_no_cache_that_counts(folder, reads, tmp_path_factory):
    read_runs(folder)
    copy = tmp_path_factory.mktemp("copy") / "runs"
    shutil.copytree(folder, copy)  # with times
    reads.clear()
    read_runs(copy)
    assert len(reads) == 14


def test_a_folder_that_cannot_be_written_is_read_all_the_same(folder, monkeypatch):
    first = read_runs(folder)
    shutil.rmtree(folder / ".cache")
    (folder / ".cache").write_text("no folder")
    same(read_runs(folder), first)


def test_a_small_folder_or_several_have_no_cache(folder, monkeypatch):
    RunFiles([folder / "adam0", folder / "sgd0"]).table()
    assert not list(folder.rglob(".cache"))
    monkeypatch.undo()
    begun = time.monotonic()
    read_runs(folder)
    assert time.monotonic() - begun < 60
    assert not (folder / ".cache").exists()

"""Results of every version of the format, kept as they were written: they are read, or refused.

tests/formats/1-first was written by the first version of optbench that had run folders,
tests/formats/1-later by one with counts of rows, costs and layers: format 1 has grown, and what a
record lacks is not needed.
"""

import json
import shutil
from pathlib import Path

import pytest

from optbench.analysis.table import load_runs
from optbench.common.errors import UserError
from optbench.formats.run import ADDED_COLUMNS, FORMAT, check_whole, read_record
from optbench.runs.finished import Finished

FOLDERS = sorted(Path(__file__).resolve().parent.glob("[0-9]*"))


def test_there_is_a_fixture_of_every_version():
    assert {int(path.name.partition("-")[0]) for path in FOLDERS} == set(range(1, FORMAT + 1))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_version_is_read(folder, tmp_path):
    table = load_runs(folder)
    assert table.attrs["problems"] == []
    assert table["epoch"].tolist() == [0, 1, 2] * 2
    assert set(table["status"]) == {"completed"}
    adam = table[table["optimizer"] == "adam"]
    assert adam["train_loss"].iloc[-1] < adam["train_loss"].iloc[0]
    assert load_runs(folder, rows="steps")["step"].tolist() == [1, 2, 3, 4, 5, 6] * 2
    shutil.copytree(folder, tmp_path / "runs")
    for path in folder.glob("*/run.json"):
        record = read_record(path)
        check_whole(path.parent, record)
        found = Finished()(tmp_path, record["run_id"])
        assert found == tmp_path / "runs" / path.parent.name


def test_layers_of_an_earlier_version_are_read_without_later_columns():
    later = Path(__file__).resolve().parent / "1-later"
    with pytest.warns(UserWarning, match=r"layers\.csv: was not written"):
        table = load_runs(later, rows="layers")
    assert not {*ADDED_COLUMNS} & {*table.columns}
    assert table["dead_fraction"].notna().any()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (FORMAT + 1, f"has format {FORMAT + 1}, of optbench 9.9"),
        (FORMAT + 1, "update optbench"),
        (0, f"has format 0; this version of optbench reads format {FORMAT}"),
        (None, "has format None"),
        (True, "has format True"),
        ("1", "has format '1'"),
    ],
)
def test_other_versions_are_refused(tmp_path, found, words):
    shutil.copytree(FOLDERS[-1], tmp_path / "runs")
    for path in tmp_path.glob("runs/*/run.json"):
        record = json.loads(path.read_text("utf-8"))
        record.pop("sha256", None)
        record |= {"format": found, "versions": {"optbench": "9.9"}}  # of the future
        path.write_text(json.dumps(record), "utf-8")
        with pytest.raises(ValueError, match="format"):
            read_record(path)
        assert Finished()(tmp_path, record["run_id"]) is None
    with pytest.raises(UserError) as raised:
        load_runs(tmp_path)
    assert words in str(raised.value)

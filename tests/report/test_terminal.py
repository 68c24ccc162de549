"""What a sweep says at its end fits a terminal, and reads the same in a pipe."""

import re
import sys
from pathlib import Path

import pytest
from made_runs import sweep

from optbench import report


def ended(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    report.finish(folder)
    return capsys.readouterr().out.splitlines()


def test_a_sweep_ends_with_four_columns_a_verdict_its_folder_and_its_report(tmp_path, capsys):
    sweep(tmp_path, ("adam", "sgd", "rmsprop"), 6)
    out = ended(tmp_path, capsys)
    heads = [part.strip() for part in out[1].strip().split("  ") if part.strip()]
    assert heads == ["optimizer", "runs", "final training loss", "final test accuracy (%)"]
    assert sum(line.split()[:2] in (["adam", "6"], ["sgd", "6"]) for line in out) == 2
    assert out[-3].startswith("Verdict: ")
    assert out[-3].endswith(", by final training loss.")
    assert out[-3].count(".") == 1
    assert out[-2].startswith(f"Folder:  {tmp_path}  ")
    assert out[-1] == f"Report:  python -m optbench report {tmp_path}"
    assert (tmp_path / "summary.md").exists()
    assert "\x1b" not in "".join(out)


@pytest.mark.parametrize("encoding", [pytest.param("utf-8", marks=pytest.mark.slow), "ascii"])
def test_the_table_is_at_most_80_columns_wide_and_fits_any_encoding(
    tmp_path, capsys, monkeypatch, encoding
):
    names = [f"an_optimizer_whose_name_has_forty_letters_{n}" for n in range(12)]
    sweep(tmp_path, names, 2)
    for columns in ("60", "80", "200") if encoding == "utf-8" else ("80",):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(type(sys.stdout), "encoding", encoding, raising=False)
        table = [line for line in ended(tmp_path, capsys)[:-3] if str(tmp_path) not in line]
        assert max(map(len, table)) <= min(80, int(columns))
        assert encoding == "utf-8" or "".join(table).isascii()
        assert "final training" in "".join(table)
        # each name on a line of its own, with both its ends and its numbers
        mark = "…" if encoding == "utf-8" else "..."
        lines = [line for line in table if mark in line]
        cut = [line.strip("| ").split()[0] for line in lines]
        assert len(set(cut)) == len(names)
        assert {name.rpartition("_")[2] for name in cut} == set(map(str, range(12)))
        assert all(name.startswith("an_op") for name in cut)
        assert all(re.search(r"[\d.]+ \[[\d.]+, [\d.]+\]", line) for line in lines)


@pytest.mark.slow
def test_names_that_differ_in_their_middles_stay_whole(tmp_path, capsys):
    names = [f"an_optimizer_of_{n}_and_with_all_the_rest" for n in ("one", "two", "three")]
    sweep(tmp_path, names, 2)
    text = "".join(ended(tmp_path, capsys)[:-3])
    assert "…" not in text


@pytest.mark.slow
def test_several_problems_have_their_rows_under_their_names(tmp_path, capsys):
    for size in (16, 32, 64):
        sweep(tmp_path, ("adam", "sgd"), 6, batch_size=size)
    out = ended(tmp_path, capsys)
    for size in (16, 32, 64):
        assert any(line.strip() == f"batch_size={size}" for line in out), out
    assert "of 3 problems have a clear leader" in out[-3]


def test_quiet_leaves_the_files_alone(tmp_path, capsys):
    sweep(tmp_path, ("adam", "sgd"), 1)
    report.finish(tmp_path, quiet=True)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "summary.md").exists()

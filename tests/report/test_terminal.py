"""What a sweep says at its end fits a terminal, and reads the same in a pipe."""

import json
import re
import sys
from pathlib import Path

import pytest
from made_runs import make_run, sweep

from optbench import report
from optbench.formats.job_list import FIGURE_FILE
from optbench.formats.run import write_sealed
from optbench.report.collect import collect


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
def test_the_table_fits_the_terminal_and_any_encoding(tmp_path, capsys, monkeypatch, encoding):
    names = [f"an_optimizer_whose_name_has_forty_letters_{n}" for n in range(12)]
    sweep(tmp_path, names, 2)
    for columns in ("60", "80", "200") if encoding == "utf-8" else ("80",):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(type(sys.stdout), "encoding", encoding, raising=False)
        table = [line for line in ended(tmp_path, capsys)[:-3] if str(tmp_path) not in line]
        assert max(map(len, table)) <= min(120, int(columns))
        assert encoding == "utf-8" or "".join(table).isascii()
        assert "final training" in "".join(table)
        # each name on a line of its own, with both its ends and its numbers
        mark = "…" if encoding == "utf-8" else "..."
        mark = "an_optimizer" if columns == "200" else mark  # a wide terminal has whole names
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


def activations(folder: Path) -> None:
    """Adam with two activations, of which tanh has the lower loss for each seed."""
    for index, name in enumerate(("relu", "tanh")):
        for seed in range(6):
            lr = (0.5, 0.003)[index]
            run = folder / f"{name}{seed}"
            make_run(run, "adam", seed, lr=lr, model__activation=name)
            record = json.loads((run / "run.json").read_text())
            record["config"]["optimizer"]["lr"] = 0.003
            (run / "run.json").write_text(json.dumps(record))


def test_an_optimizer_alone_gets_no_verdict(tmp_path, capsys):
    sweep(tmp_path, ("adam",), 2)
    assert ended(tmp_path, capsys)[-3] == "Nothing to compare: adam was run alone."


def test_one_optimizer_on_several_problems_gets_no_verdict_but_a_hint(tmp_path, capsys):
    activations(tmp_path)
    text = (
        "Nothing to compare: adam alone on each of 2 problems. To compare the values of "
        "model.activation: figure.lines=model.activation"
    )
    assert ended(tmp_path, capsys)[-3] == text
    data = collect([tmp_path])["verdict"]
    assert (data["cards"], data["nothing"], data["note"]) == ([], text, "")


def test_values_of_a_problem_key_are_compared_if_they_make_the_lines(tmp_path, capsys):
    activations(tmp_path)
    write_sealed(tmp_path / FIGURE_FILE, {"lines": "model.activation"})
    better = "adam model.activation=tanh is better than adam model.activation=relu"
    assert ended(tmp_path, capsys)[-3] == f"Verdict: {better}, by final training loss."
    data = collect([tmp_path])
    (card,) = data["verdict"]["cards"]
    assert card["headline"] == f"{better}."
    assert [pair["n"] for pair in card["against"]] == [6]
    assert data["verdict"]["nothing"] == ""
    assert data["verdict"]["note"].startswith(
        "Runs are paired by seed: the same order of the examples; initial weights may differ."
    )
    assert data["matrices"][0]["names"] == [
        "adam model.activation=tanh",
        "adam model.activation=relu",
    ]


def test_lines_of_a_problem_key_do_not_compare_problems_of_two_optimizers(tmp_path, capsys):
    for size in (16, 32):
        sweep(tmp_path, ("adam", "sgd"), 6, batch_size=size)
    write_sealed(tmp_path / FIGURE_FILE, {"lines": "batch_size"})
    assert "of 2 problems have a clear leader" in ended(tmp_path, capsys)[-3]


def test_a_table_of_many_settings_shows_the_best_and_counts_the_others(tmp_path, capsys):
    for index in range(30):
        make_run(tmp_path / str(index), "adam", 0, lr=1e-4 * (index + 1))
    lines = ended(tmp_path, capsys)
    assert sum(line.lstrip().startswith("adam lr=") for line in lines) == 24
    assert " 6 more rows in summary.md" in lines
    assert (tmp_path / "summary.md").read_text().count("| adam lr=") == 30

"""Tables for papers: what stands in a cell, when it is bold, and that LaTeX takes it."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from in_process import sub_command
from made_runs import make_run, sweep

from optbench.analysis.comparison import Options
from optbench.analysis.final_values import final_values
from optbench.analysis.latex import Cell, bold, final_cells, to_latex
from optbench.analysis.leader import winner
from optbench.analysis.table import load_runs
from optbench.common.errors import UserError
from optbench.common.text import number
from optbench.report.draw import draw_all
from optbench.stats.pairwise import compare

COLUMNS = ["train_loss", "test_accuracy"]


main = sub_command("report")


def test_a_cell_has_median_extremes_moments_and_n(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 3)
    make_run(tmp_path / "bad", "sgd", 3, diverged_at=40)
    table = load_runs(tmp_path)
    found = final_cells(table, COLUMNS)
    values = final_values(table, "train_loss")
    adam = values[[run for run in values.index if "adam" in open_name(table, run)]].to_numpy(float)
    cell = found["train_loss"].loc["adam"].iloc[0]
    ends = (np.median(adam), adam.min(), adam.max())
    assert cell == Cell(*ends, adam.mean(), adam.std(ddof=1), 3, 0, False)
    of_searches = to_latex(found["train_loss"], "train_loss", unit="search")
    assert "of 3 to 4 searches, each the mean of its seeds;" in of_searches
    text = to_latex(found["train_loss"], "train_loss")
    (row,) = [line for line in text.splitlines() if line.startswith("sgd ")]
    assert "diverged]} (1 of 4 diverged)" in row  # the worst of its values
    text = to_latex(found["train_loss"], "train_loss", "mean_std")
    rows = [line for line in text.splitlines() if line.startswith(("adam ", "sgd "))]
    assert rows[0] == f"adam & {number(adam.mean())} $\\pm$ {number(adam.std(ddof=1))} \\\\"
    assert rows[1] == "sgd & diverged (1 of 4 diverged) \\\\"  # no mean survives that
    assert "mean $\\pm$ standard deviation of 3 to 4 seeds; bold: better" in text
    assert "sign-flip test" in text
    with pytest.raises(UserError, match="median_range, mean_std"):
        to_latex(found["train_loss"], "train_loss", "mean")


def open_name(table: pd.DataFrame, run: str) -> str:
    return str(table.loc[table["run"] == run, "optimizer"].iloc[0])


def test_bold_only_where_better_than_every_other(tmp_path: Path) -> None:
    for seeds, expected in ((3, set()), (8, {("train_loss", "", "adam")})):
        table = load_runs(sweep(tmp_path / str(seeds), ("adam", "sgd", "adagrad"), seeds))
        found = bold(final_cells(table, ["train_loss"]))
        assert found == expected
        text = to_latex(final_cells(table, ["train_loss"])["train_loss"], "train_loss")
        assert text.count("\\textbf") == len(expected)
    result = draw_all([tmp_path / "8"], tmp_path / "o", Options(formats=["png"]))
    assert "summary.tex" in {path.name for path in result.paths}
    lines = (tmp_path / "o" / "summary.md").read_text("utf-8").splitlines()
    assert lines[2].startswith("| adam | 8 | 0 | **")
    assert "**" not in lines[3] + lines[4]
    draw_all([tmp_path / "3"], tmp_path / "p", Options(formats=["png"]))
    assert "**" not in (tmp_path / "p" / "summary.md").read_text("utf-8")


def test_the_winner_is_what_the_verdict_says() -> None:
    random = np.random.default_rng(0)
    for gap in (0.0, 0.4, 3.0):
        for _ in range(20):
            shared = random.normal(size=10)
            frame = pd.DataFrame(
                {name: shared + random.normal(size=10) + gap * at
                 for at, name in enumerate(("a", "b", "c"))}
            )  # fmt: skip
            index = pd.MultiIndex.from_product([["p"], range(10)], names=["problem", "seed"])
            frame.index = index
            best = str(frame.median().idxmin())
            words = compare(frame, best, chosen=True)["verdict"]
            expected = best if all(text.startswith("worse") for text in words) else None
            assert winner(frame) == expected


def test_problems_stand_beside_each_other(tmp_path: Path) -> None:
    for size in (16, 32):
        sweep(tmp_path, ("adam", "sgd"), 2, batch_size=size)
    found = final_cells(load_runs(tmp_path), COLUMNS)
    assert list(found["train_loss"].columns) == ["batch_size=16", "batch_size=32"]
    text = to_latex(found["test_accuracy"], "test_accuracy")
    assert text.count("\\begin{tabular}{lll}") == 1
    assert "Final test accuracy (\\%), median" in text
    assert " & batch\\_size=16 & batch\\_size=32 \\\\" in text


HARD = r"a_b&c%d#e$f{g}h~i^j\k"


def test_special_characters_are_escaped(tmp_path: Path) -> None:
    for name in ("adam", HARD):
        for seed in range(2):
            make_run(tmp_path / f"{name[:2]}{seed}", name, seed)
    table = load_runs(tmp_path)
    found = final_cells(table, COLUMNS)["test_accuracy"]
    text = to_latex(found, "test_accuracy", warnings=["50 % of_the \n runs {diverged}"])
    body = [line for line in text.splitlines() if not line.startswith("%")]
    plain = re.sub(r"\\[_&%#${}]", "", "\n".join(body))
    (row,) = [line for line in plain.splitlines() if line.startswith("ab")]
    assert row.count("&") == 1
    assert "#" not in row
    assert "_" not in row
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    for word in ("\\toprule", "\\midrule", "\\bottomrule"):
        assert plain.count(word) == 1
    assert "% Warning: 50 % of_the runs {diverged}" in text  # a comment, on one line


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex is installed")
def test_latex_takes_it(tmp_path: Path) -> None:
    for name in ("adam", HARD):
        sweep(tmp_path / "r", (name,), 2, optimizer__name=name)
    found = final_cells(load_runs(tmp_path / "r"), COLUMNS)["test_accuracy"]
    text = to_latex(found, "test_accuracy", "mean_std", ["a % b"])
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(f"{head}{text}\\end{{document}}\n", "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_command_writes_the_table_that_is_asked_for(tmp_path: Path, capsys) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    assert main([str(tmp_path), "--table", "test_accuracy", "--cells", "mean_std"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'table_test_accuracy.tex'}\n"
    found = final_cells(load_runs(tmp_path), ["test_accuracy"])["test_accuracy"]
    assert not (tmp_path / "summary.tex").exists()  # the sweep's own
    text = (tmp_path / "table_test_accuracy.tex").read_text("utf-8")
    _, table = to_latex(found, "test_accuracy", "mean_std").split("\\begin{table}")
    assert text.split("\\begin{table}")[1:] == [table]
    for words, said in (
        (["--table", "accuracy"], "There are: train_loss"),
        (["--table", "test_loss", "--cells", "mean"], "median_range, mean_std"),
        (["--cells", "mean_std"], "--table COLUMN"),
    ):
        assert main([str(tmp_path), *words]) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()

"""`optbench import`: runs of other programs, compared as far as their table tells."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from in_process import sub_command

from optbench.analysis.comparison import compare
from optbench.analysis.pairing import by_seed
from optbench.analysis.table import load_runs
from optbench.report.collect import collect
from optbench.stats.corrections import MAX_TYPE, UNPAIRED
from optbench.stats.pairwise import judge_pairs

main = sub_command("import")
RANDOM = np.random.default_rng(0)
WORDS = ["--columns", "optimizer=method,seed=rep,step=iter,val_loss=loss", "--problem", "dataset"]


def long_table(seeds: int = 6, datasets: tuple[str, ...] = ("wine", "iris")) -> pd.DataFrame:
    rows = [
        {"method": name, "rep": seed, "iter": 10 * k, "loss": speed / (1 + k) + 0.01 * seed,
         "dataset": dataset, "lr": 0.1 * speed}
        for dataset in datasets
        for name, speed in (("mine", 1.0), ("adamw", 2.0), ("sgd", 4.0))
        for seed in range(seeds)
        for k in range(4)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    long_table().to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def brought(path: Path, out: Path, *words: str) -> pd.DataFrame:
    assert main([str(path), "-o", str(out), *(words or WORDS)]) == 0
    return load_runs(out)


def test_a_long_table_becomes_the_tidy_table(table, tmp_path, capsys) -> None:
    runs = brought(table, tmp_path / "out")
    said = capsys.readouterr().out
    assert "36 runs of 3 optimizers on 2 problems" in said
    assert "not paired" in said
    assert "by your word" in said
    own = long_table()
    assert len(runs) == len(own)
    for (dataset, name), part in own.groupby(["dataset", "method"]):
        there = runs[(runs["dataset.name"] == dataset) & (runs["optimizer"] == name)]
        assert sorted(there["step"]) == sorted(part["iter"])
        assert sorted(there["val_loss"]) == sorted(part["loss"])
        assert there["seed"].nunique() == 6
    assert runs["train_loss"].isna().all()
    assert runs["seconds"].isna().all()
    assert runs["engine"].isna().all()


def test_unpaired_runs_share_no_seed_and_get_the_unpaired_test(table, tmp_path) -> None:
    brought(table, tmp_path / "out")
    made = compare([tmp_path / "out"])
    assert not made.paired
    assert not made.table.drop_duplicates("run").duplicated(["problem", "seed"]).any()
    pairs = judge_pairs(by_seed(made, "val_loss"))
    assert {pair.correction for pair in pairs} == {UNPAIRED}
    assert {pair.outcome for pair in pairs} <= {"better", "worse"}


def test_pairs_are_made_by_the_users_word(table, tmp_path) -> None:
    runs = brought(table, tmp_path / "out", *WORDS, "--paired")
    assert sorted(runs["seed"].unique()) == list(range(6))
    pairs = judge_pairs(by_seed(runs, "val_loss"))
    assert {pair.correction for pair in pairs} == {MAX_TYPE}


@pytest.mark.slow
def test_figures_summary_and_page_are_made_of_imported_runs(table, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    brought(table, out)
    assert sub_command("plot")([str(out), "--format", "png"]) == 0
    assert (out / "val_loss-step.png").stat().st_size > 5000
    summary = pd.read_csv(out / "summary.csv")
    assert summary["val_loss_median"].notna().all()
    assert summary["seconds_per_epoch"].isna().all()
    assert "rank-sum" in (out / "summary.tex").read_text()
    assert sub_command("report")([str(out)]) == 0
    data = collect([out])
    assert ["trained by", "other programs (optbench import)"] in data["facts"]
    assert any("optbench did not train these runs" in text for text in data["warnings"])
    assert "Runs are paired" not in data["verdict"]["note"]
    assert [card["leader"] for card in data["verdict"]["cards"]] == ["mine", "mine"]
    assert [card["level"] for card in data["verdict"]["cards"]] == ["clear", "clear"]
    # a second import changes nothing, and draws over nothing else
    assert main([str(table), "-o", str(out), *WORDS]) == 0
    assert capsys.readouterr().err.count("warning") <= 4


def test_one_file_a_run_is_named_by_its_file(tmp_path) -> None:
    for (name, seed), part in long_table(datasets=("wine",)).groupby(["method", "rep"]):
        part[["iter", "loss"]].to_csv(tmp_path / f"{name}-seed{seed}.csv", index=False)
    files = sorted(map(str, tmp_path.glob("*.csv")))
    words = ["--columns", "step=iter,val_loss=loss", "--pattern", "{optimizer}-seed{seed}.csv"]
    assert main([*files, "-o", str(tmp_path / "out"), *words]) == 0
    runs = load_runs(tmp_path / "out")
    assert runs.groupby("optimizer", observed=True)["run"].nunique().to_dict() == {
        "adamw": 6, "mine": 6, "sgd": 6,
    }  # fmt: skip


def test_without_a_seed_each_file_or_each_final_value_is_a_run(tmp_path) -> None:
    finals = long_table(datasets=("wine",)).groupby(["method", "rep"], as_index=False).last()
    finals[["method", "loss"]].to_csv(tmp_path / "ends.csv", index=False)
    words = ["--columns", "optimizer=method,test_loss=loss"]
    runs = brought(tmp_path / "ends.csv", tmp_path / "out", *words)
    assert len(runs) == 18
    assert sorted(runs["seed"]) == list(range(18))


def test_scores_are_good_where_they_are_large(tmp_path) -> None:
    rows = [("a", 0.9 + 0.001 * i) for i in range(8)] + [("b", 0.5 + 0.001 * i) for i in range(8)]
    pd.DataFrame(rows, columns=["optimizer", "f1"]).to_csv(tmp_path / "t.csv", index=False)
    brought(tmp_path / "t.csv", tmp_path / "out", "--columns", "test_score=f1")
    (card,) = collect([tmp_path / "out"])["verdict"]["cards"]
    assert (card["leader"], card["level"]) == ("a", "clear")


def test_settings_are_series_of_their_own(table, tmp_path) -> None:
    own = long_table(datasets=("wine",))
    pd.concat([own, own.assign(lr=own["lr"] / 10)]).to_csv(table, index=False)
    words = ["--columns", "optimizer=method,seed=rep,step=iter,val_loss=loss,optimizer.lr=lr"]
    frame = by_seed(brought(table, tmp_path / "out", *words), "val_loss")
    assert len(frame.columns) == 6
    assert "mine lr=0.01" in frame


def test_what_is_not_finite_counts_as_diverged_and_empty_as_not_logged(table, tmp_path) -> None:
    own = long_table(datasets=("wine",)).astype({"loss": object})
    last = own["iter"] == 30
    own.loc[last & (own["method"] == "sgd"), "loss"] = "nan"
    own.loc[last & (own["method"] == "mine"), "loss"] = ""
    own.to_csv(table, index=False)
    runs = brought(table, tmp_path / "out")
    status = runs.groupby("optimizer", observed=True)["status"].agg(set).to_dict()
    assert status == {"mine": {"completed"}, "adamw": {"completed"}, "sgd": {"diverged"}}
    finals = compare([tmp_path / "out"]).finals("val_loss")
    assert sorted(map(math.isinf, finals)).count(True) == 6
    mine = runs[runs["optimizer"] == "mine"]
    assert mine.groupby("run", observed=True)["val_loss"].last().min() == pytest.approx(1 / 3)


def test_parquet_is_read_as_csv_is(table, tmp_path) -> None:
    long_table().to_parquet(tmp_path / "table.parquet")
    one = brought(table, tmp_path / "csv")
    other = brought(tmp_path / "table.parquet", tmp_path / "parquet")
    assert one["val_loss"].tolist() == other["val_loss"].tolist()
    assert one["problem"].tolist() == other["problem"].tolist()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_the_separator_is_that_of_the_header(separator, table, tmp_path) -> None:
    other = tmp_path / "other.csv"
    long_table().to_csv(other, index=False, sep=separator)
    one, two = brought(table, tmp_path / "one"), brought(other, tmp_path / "two")
    assert one["val_loss"].tolist() == two["val_loss"].tolist()


def test_a_decimal_comma_is_named(tmp_path, capsys) -> None:
    long_table().to_csv(tmp_path / "table.csv", index=False, sep=";", decimal=",")
    assert main([str(tmp_path / "table.csv"), "-o", str(tmp_path / "out"), *WORDS]) == 1
    assert "holds '1,0' in its row 1, which is no number: write a decimal point" in (
        capsys.readouterr().err
    )


def test_parquet_without_its_package_is_refused_in_words(table, tmp_path, monkeypatch, capsys):
    long_table().to_parquet(tmp_path / "table.parquet")

    def missing(*_: object, **__: object) -> None:
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", missing)
    assert main([str(tmp_path / "table.parquet"), *WORDS]) == 1
    assert "pip install 'optbench[parquet]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--columns", "optimizer=methd,val_loss=loss"], "no column 'methd'. Did you mean method?"),
        (["--columns", "optimizer=method,val_loss=los"], "It has: method, rep, iter, loss"),
        (["--columns", "optimizer=method", "seed=rep"], "no column is a result"),
        (["--columns", "val_loss=loss"], "no column names the optimizer"),
        (["--columns", "optimiser=method"], "no column 'optimiser'. Did you mean optimizer?"),
        (["--columns", "method"], "write OURS=THEIRS"),
        (["--columns", "optimizer=method,optimizer=rep"], "names optimizer twice"),
        ([*WORDS[:-1], "data"], "--problem data: the table has no column 'data'"),
        ([*WORDS[:-1], "method"], "the same column is the optimizer of a run"),
        (["--columns", "optimizer=method,val_loss=dataset"], "'wine' in its row 1"),
        (["--columns", "optimizer=method,seed=rep,step=iter,val_loss=loss"], "have the step 0"),
        (["--columns", "optimizer=method,seed=rep,val_loss=loss"], "name the column of the step"),
        (["--columns", "optimizer=method,val_loss=loss", "--paired"], "name its column, seed=NAME"),
        (["--pattern", "{optimizer}.txt", *WORDS], "does not fit --pattern"),
        (["--pattern", "x.csv", *WORDS], "names no columns"),
    ],
)
def test_bad_input_is_refused_in_words_and_writes_nothing(
    table, tmp_path, capsys, words, said
) -> None:
    assert main([str(table), "-o", str(tmp_path / "out"), *words]) == 1
    err = capsys.readouterr().err
    assert said in err, err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_tables_that_are_none_are_refused(tmp_path, capsys) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("optimizer,val_loss\n")
    (tmp_path / "no.parquet").write_text("no")
    for name, said in (
        ("missing.csv", "does not exist"), ("", "is a folder"), ("empty.csv", "no table"),
        ("head.csv", "no row below the head"), ("no.parquet", "no table"),
    ):  # fmt: skip
        assert main([str(tmp_path / name)]) == 1
        assert said in capsys.readouterr().err


def test_paired_runs_that_share_no_seed_are_refused(tmp_path, capsys) -> None:
    rows = pd.DataFrame({"optimizer": ["a", "a", "b"], "seed": [1, 2, 3], "val_loss": [1, 2, 3]})
    rows.to_csv(tmp_path / "t.csv", index=False)
    assert main([str(tmp_path / "t.csv"), "--paired"]) == 1
    assert "so there is no pair" in capsys.readouterr().err


def test_a_folder_with_other_runs_is_refused(table, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    brought(table, out)
    assert main([str(table), "-o", str(out), *WORDS, "--paired"]) == 1
    assert "holds something else" in capsys.readouterr().err
    assert main([str(table), "-o", str(table), *WORDS]) == 1
    assert "is a file" in capsys.readouterr().err


def test_an_edited_import_is_named(table, tmp_path) -> None:
    out = tmp_path / "out"
    brought(table, out)
    path = next(out.glob("*/epochs.csv"))
    path.write_text(path.read_text().replace("1.0", "9.0"))
    with pytest.warns(UserWarning, match="was changed after the run"):
        assert load_runs(out)["run"].nunique() == 35


def test_the_record_says_where_the_run_is_from(table, tmp_path) -> None:
    brought(table, tmp_path / "out")
    record = json.loads(next((tmp_path / "out").glob("*/run.json")).read_text())
    assert record["imported"]["from"] == "table.csv"
    assert record["imported"]["paired"] is False
    assert record["problem"] in ({"dataset": {"name": "wine"}}, {"dataset": {"name": "iris"}})


@pytest.mark.parametrize("cell", ["nan", ""])
def test_the_only_result_may_have_an_empty_cell(cell, tmp_path, capsys) -> None:
    source = tmp_path / "t.csv"
    source.write_text(f"optimizer,seed,val_loss\na,0,0.1\na,1,{cell}\nb,0,0.3\nb,1,0.4\n")
    assert main([str(source), "-o", str(tmp_path / "found")]) == 0
    assert "Judged by:  validation loss" in capsys.readouterr().out

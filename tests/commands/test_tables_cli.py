"""A user's table from file to verdict: one command sweeps, draws, judges and resumes."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from composed import configuration
from in_process import call, sub_command

from optbench.analysis.comparison import compare
from optbench.analysis.summary import summary, to_markdown
from optbench.analysis.table import load_runs
from optbench.common.errors import UserError
from optbench.figures.curves import curves
from optbench.formats.groups import config_folder
from optbench.report.collect import collect
from optbench.report.repeat_command import command
from optbench.runner import run as experiment

QUICK = ["loss=mse", "epochs=3", "batch_size=16", "num_threads=1", "log.steps=1"]


def write_table(folder: Path) -> Path:
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 2))
    kind = random.choice(["a", "b", "c"], 120)
    price = 2e5 + 5e4 * x[:, 0] - 2e4 * (kind == "a") + random.normal(0, 5e3, 120)
    table = pd.DataFrame({"size": x[:, 0], "age": x[:, 1], "kind": kind, "price": price})
    table.loc[::9, "age"] = np.nan
    table.to_csv(folder / "houses.csv", index=False)
    return folder / "houses.csv"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    write_table(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTBENCH_RESULTS", str(folder / "results"))
        patch.chdir(folder)
        words = ["-m", "hydra/launcher=basic", "dataset=csv", "data.path=houses.csv"]
        words += ["data.target=price", "model=linear", "optimizer=sgd,adam", "seed=range(6)"]
        words += ["figure.y=test_rmse", "candidate=sgd", "name=houses", "sgd.lr=0.1"]
        assert call(patch, *words, *QUICK) == 0
    return folder / "results" / "houses"


def test_one_command_sweeps_a_table_with_figures_and_a_verdict(sweep):
    assert len(list(sweep.glob("*/epochs.csv"))) == 12
    for name in ("test_rmse-epoch.png", "summary.md", "verdict.json", "time_to_target.csv"):
        assert (sweep / name).stat().st_size > 100, name
    record = json.loads(next(sweep.glob("sgd-seed0-*/run.json")).read_text())
    assert record["metrics"] == ["r2", "rmse", "mae"]
    assert 1e3 < record["summary"]["test_rmse"] < 1e5  # in the target's unit
    assert record["problem"]["data"]["target"] == "price"
    assert "path" not in record["problem"]["dataset"]
    text = (sweep / "summary.md").read_text("utf-8")
    assert "final test RMSE" in text
    assert "final gap between test and training loss" in text
    assert "accuracy" not in text


def test_verdicts_ranks_and_targets_know_the_direction(sweep):
    made = compare([sweep])
    rmse, r2 = summary(made, "test_rmse"), summary(made, "test_r2")
    assert list(rmse["variant"]) == list(r2["variant"])  # a small error is a large R2
    assert rmse["test_rmse_median"].is_monotonic_increasing
    assert r2["test_r2_median"].is_monotonic_decreasing
    out = str(sweep.parent / "more")
    words = [str(sweep), "--y", "loss_gap", "--kind", "curves", "--format", "png", "--out", out]
    assert sub_command("plot")(words) == 0
    assert (sweep.parent / "more" / "loss_gap-epoch.png").exists()
    assert sub_command("verdict")([str(sweep), "--candidate", "sgd", "--y", "test_r2"]) == 0


def test_the_gap_is_a_column_of_tables_and_not_of_the_file(sweep):
    table = load_runs(sweep)
    assert table["loss_gap"].equals(table["test_loss"] - table["train_loss"])
    with next(sweep.glob("*/epochs.csv")).open() as file:
        assert "loss_gap" not in next(csv.reader(file))
    assert "gap" in to_markdown(summary(compare([sweep])))


def test_the_least_squares_line_is_in_record_figure_and_page(sweep):
    records = [json.loads(path.read_text()) for path in sweep.glob("*/run.json")]
    (least,) = {record["reference"]["train_loss"] for record in records}
    table = load_runs(sweep)
    assert least < table["train_loss"].min() < 20 * least
    figure = curves(table)
    lines = [line for line in figure.axes[0].lines if line.get_ydata()[0] == least]
    assert len(lines) == 1
    assert "least squares" in [text.get_text() for text in figure.axes[0].texts]
    assert figure.axes[0].get_ylim()[0] < least
    assert not curves(table, y="val_loss").axes[0].texts
    assert collect([sweep])["curves"]["references"] == pytest.approx([least], rel=1e-5)


def test_the_command_of_a_run_repeats_it_with_its_file(sweep):
    record = json.loads(next(sweep.glob("sgd-seed0-*/run.json")).read_text())
    words = command(record["config"], config_folder())
    assert "dataset=csv" in words
    assert "data.path=houses.csv" in words
    assert "data.target=price" in words


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "epochs.csv").open(newline="") as file:
        return [{k: v for k, v in r.items() if "seconds" not in k} for r in csv.DictReader(file)]


def test_a_run_of_a_table_resumes_bit_for_bit(tmp_path, monkeypatch):
    path = write_table(tmp_path)
    monkeypatch.setattr("optbench.training.loop.SYNC_EVERY", 1)
    asked = ["dataset=csv", f"data.path={path}", "data.target=price", "dataset.nominal=embedding"]
    asked += ["model=tabular_mlp", "model.hidden=[8]", "model.dropout=0.2", *QUICK, "quiet=true"]
    whole = configuration(*asked, f"results_dir={tmp_path / 'a'}")
    expected = experiment.run(whole, tmp_path / "a" / "runs").folder
    config = configuration(*asked, f"results_dir={tmp_path / 'b'}")
    calls = iter(range(1, 10**6))
    planned = experiment.plan(config, tmp_path / "b" / "runs")
    stopped = experiment.complete(planned, lambda update: None, lambda: next(calls) >= 7)
    assert stopped.status == "interrupted"
    again = experiment.run(config, tmp_path / "b" / "runs")
    assert again.folder == stopped.folder
    assert rows(again.folder) == rows(expected)


def test_a_changed_file_makes_another_problem_also_in_one_process(tmp_path):
    path = write_table(tmp_path)
    asked = ["dataset=csv", f"data.path={path}", "data.target=price", "model=linear", *QUICK]
    config = configuration(*asked, f"results_dir={tmp_path}", "quiet=true")
    first = experiment.plan(config, tmp_path)
    assert experiment.plan(config, tmp_path).record["run_id"] == first.record["run_id"]
    moved = path.rename(tmp_path / "moved.csv")
    there = configuration(*asked[:1], f"data.path={moved}", *asked[2:], f"results_dir={tmp_path}")
    assert experiment.plan(there, tmp_path).record["run_id"] == first.record["run_id"]
    path.write_text(moved.read_text() + "1,2,a,3\n")
    assert experiment.plan(config, tmp_path).record["problem_hash"] != first.record["problem_hash"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["data.target=price"], "data.target=price names a column of a table"),
        (["dataset=csv", "data.target=a"], "needs a file: data.path=FILE.csv"),
        (["dataset=csv", "data.path=none.csv", "data.target=a"], "there is no file"),
        (["data.path=houses.csv"], "dataset=mnist_5k reads none: add dataset=csv"),
        (["data.layout=nhwc"], "data.layout must be one of channels_first"),
        (["dataset=csv", "data.path=3"], "data.path must be a file or folder of yours"),
        (["dataset=letter", "data.root=nowhere"], "scripts/fetch-data letter --root nowhere"),
        (["dataset=diamonds", "data.root=nowhere"], "scripts/fetch-data diamonds --root nowhere"),
    ],
)
def test_keys_that_do_not_belong_together_are_refused(tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    config = configuration(*words, f"results_dir={tmp_path}", "quiet=true")
    with pytest.raises(UserError, match=named):  # before anything is written
        experiment.plan(config, tmp_path)
    assert not list(tmp_path.iterdir())

"""`python -m optbench plot`: figures from CSV alone, and one clear message for each mistake."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from in_process import sub_command
from made_runs import make_run, sweep

from optbench.analysis.comparison import Options
from optbench.common.errors import UserError
from optbench.report.draw import draw_all

main = sub_command("plot")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_writes_everything_and_lists_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    sweep(tmp_path, ("adam",), 2, lr=0.01)
    assert main([str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert all(line.startswith("warning: ") for line in err.splitlines())
    figures = {"train_loss-epoch", "test_accuracy-epoch", "final_train_loss-lr", "time_to_target"}
    expected = {f"{name}.{suffix}" for name in figures for suffix in ("png", "pdf", "txt")}
    expected |= {"summary.csv", "summary.md", "summary.tex", "time_to_target.csv"}
    assert names(tmp_path) == expected
    assert {Path(text).name for text in out.splitlines()} == expected
    assert (tmp_path / "train_loss-epoch.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "train_loss-epoch.pdf").read_bytes().startswith(b"%PDF")
    assert list(pd.read_csv(tmp_path / "summary.csv")["seeds"]) == [2, 2, 2]


def test_same_runs_same_bytes_without_torch(tmp_path: Path) -> None:
    sweep(tmp_path / "r", ("adam", "sgd"), 2)
    code = (
        "import sys; from optbench.commands.plot import main; status = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules; sys.exit(status)"
    )
    formats = ["--format", "png", "pdf", "svg"]
    for out in ("one", "two"):
        command = [sys.executable, "-c", code, str(tmp_path / "r"), "-o", str(tmp_path / out)]
        subprocess.run([*command, *formats], check=True, capture_output=True)
    assert len(names(tmp_path / "one")) == 16
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), (
            name
        )


def test_options_choose_axes_lines_facets_and_formats(tmp_path: Path) -> None:
    for size in (1, 32, "full"):
        sweep(tmp_path / "r", ("adam", "sgd"), 1, batch_size=size)
    folder, out = str(tmp_path / "r"), str(tmp_path / "o")
    argv = [folder, "-o", out, "--y", "val_loss", "--x", "seconds", "--lines", "batch_size"]
    assert main([*argv, "--linear", "--format", "svg", "--where", "optimizer=adam"]) == 0
    assert "val_loss-seconds.svg" in names(tmp_path / "o")
    assert main([folder, "-o", out, "--rows", "steps", "--x", "step", "--facet", "batch_size"]) == 0
    assert "train_loss-step-steps.png" in names(tmp_path / "o")


def test_the_study_says_how_its_figure_is_drawn(tmp_path: Path) -> None:
    figure = {"y": "val_loss", "x": "step", "facet": [], "lines": "batch_size", "log": True}
    for size in (1, 32):
        sweep(tmp_path, ("adam",), 2, batch_size=size)
    (tmp_path / "figure.json").write_text(json.dumps(figure))
    draw_all([tmp_path], options=Options(formats=["png"]))
    assert "val_loss-step.png" in names(tmp_path)
    draw_all([tmp_path], options=Options(formats=["png"], x="epoch"))
    assert "val_loss-epoch.png" in names(tmp_path)
    (tmp_path / "figure.json").write_text("{")
    with pytest.raises(UserError, match=r"figure\.json is damaged"):
        draw_all([tmp_path])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["missing"], "no folder missing"),
        (["empty"], "no finished run"),
        (["file"], "is a file"),
        (["runs", "--y", "cost"], "train_loss"),
        (["runs", "--x", "hours"], "seconds"),
        (["runs", "--facet", "model.batchnorm"], "model.batch_norm"),
        (["runs", "--lines", "optimiser.lr"], "optimizer.lr"),
        (["runs", "--format", "jpg"], "png, pdf, svg"),
        (["runs", "--rows", "days"], "epochs, steps"),
        (["runs", "-o", "file/below"], "cannot write"),
        (["runs", "-o", "file"], "cannot write"),
        (["runs", "--where", "seed=9"], "there is: 0, 1"),
        (["runs", "runs"], "-o"),
        (["runs", "missing"], "no folder missing"),
        (["runs", "--y", "train_los"], "Did you mean train_loss?"),
        (["runs", "--kinds", "all"], "Did you mean --kind?"),
        (["runs", "y=val_loss"], "Did you mean --y val_loss?"),
        (["runs", "--kind", "cruves"], "Did you mean curves?"),
        ([], "arguments are required: FOLDER\npython -m optbench plot --help"),
        (["broken"], "epochs.csv"),
    ],
)
def test_mistakes_get_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep(tmp_path / "runs", ("adam",), 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (make_run(tmp_path / "broken") / "epochs.csv").write_text("nonsense")
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("optbench: ")
    assert words in err
    assert names(tmp_path / "runs") == set()


def test_damaged_runs_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    bad = make_run(tmp_path / "bad", "rmsprop") / "epochs.csv"
    bad.write_bytes(bad.read_bytes()[:-9])
    make_run(tmp_path / "running", "nadam", record={"status": "running"})
    assert main([str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 13
    assert str(bad) in err
    assert str(tmp_path / "running" / "run.json") in err
    assert "rmsprop" not in (tmp_path / "summary.md").read_text()


def test_a_run_without_steps_is_not_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    path = make_run(tmp_path / "bad", "rmsprop", diverged_at=0) / "steps.csv"
    path.write_text("step,epoch,train_loss,lr,seconds\n")
    assert main([str(tmp_path), "--rows", "steps", "--format", "svg"]) == 0
    assert "left out" not in capsys.readouterr().err
    assert "| rmsprop | 1 | 1 | diverged |" in (tmp_path / "summary.md").read_text()


def test_a_changed_dataset_is_never_mixed_in(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam",), 1)
    make_run(tmp_path / "other", "sgd", data_digest="d1")
    with pytest.raises(UserError, match="data_digest"):
        draw_all([tmp_path])


@pytest.mark.slow
def test_a_thousand_runs_take_seconds(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", epochs=200)
    record, rows = json.loads((first / "run.json").read_text()), (first / "epochs.csv").read_bytes()
    for index in range(1000):
        folder = tmp_path / str(index)
        folder.mkdir()
        name, seed = f"optimizer{index % 10}", index // 10 + 1
        record |= {"run_id": f"{index:012d}", "name": name, "seed": seed}
        record["config"]["optimizer"]["name"] = name
        (folder / "run.json").write_text(json.dumps(record))
        (folder / "epochs.csv").write_bytes(rows)
    start = time.process_time()
    result = draw_all([tmp_path])
    assert result.table["run"].nunique() == 1001
    assert time.process_time() - start < 15


@pytest.mark.parametrize(
    ("words", "message"),
    [([""], "name is empty"), (["FOLDER", "--target", "nan"], "finite number"),
     (["FOLDER", "--rows", "layers"], "layers")],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(tmp_path, capsys, monkeypatch, words, message):
    sweep(tmp_path / "runs", ("adam", "sgd"), 1)
    monkeypatch.chdir(tmp_path)
    with suppress(SystemExit):  # argparse's own
        assert main([word.replace("FOLDER", "runs") for word in words]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(("target", "status"), [("1e-6", 1), ("1.5", 0)])
def test_an_asked_target_that_no_run_reached_ends_with_1_and_leaves_the_figures(
    target, status, tmp_path, capsys
) -> None:
    sweep(tmp_path / "s", ("adam", "sgd"), 2)
    assert main([str(tmp_path / "s"), "--target", target, "--format", "png"]) == status
    assert ("no run reached the target" in capsys.readouterr().err) == bool(status)
    assert (tmp_path / "s" / "time_to_target.png").exists()

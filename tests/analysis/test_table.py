"""Reading run folders: right numbers, or a named file, and never a silent mistake."""

import hashlib
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from made_runs import make_run, sweep

from optbench.analysis.table import load_runs
from optbench.common.errors import UserError
from optbench.formats import job_list
from optbench.formats.run import COLUMNS, GAP, intact, read_record, read_rows, write_sealed
from optbench.formats.study import figure_of, manifests_of


def test_the_table_has_its_columns_and_values(tmp_path: Path) -> None:
    make_run(tmp_path / "deep" / "er" / "a", seed=4)
    table = load_runs(tmp_path)
    assert list(table.columns[:7]) == [
        "run",
        "run_id",
        "problem",
        "status",
        "seed",
        "optimizer",
        "device",
    ]
    assert list(table.columns[-12:]) == [*COLUMNS["epochs"], GAP]
    assert table[GAP].equals(table["test_loss"] - table["train_loss"])
    first = table.iloc[0]
    assert first["run"] == str(tmp_path / "deep" / "er" / "a")
    assert (first["optimizer"], first["seed"], first["optimizer.lr"]) == ("adam", 4, 0.001)
    assert first["model.hidden"] == "[256, 128]"
    assert first["model.batch_norm"] is False
    assert first["data.subset"] == "null"
    assert first["data_digest"] == "d0"
    assert math.isnan(first["running_loss"])
    direct = pd.read_csv(tmp_path / "deep" / "er" / "a" / "epochs.csv")
    pd.testing.assert_frame_equal(table[COLUMNS["epochs"]], direct[COLUMNS["epochs"]])
    assert table.attrs["problems"] == []
    steps = load_runs(tmp_path / "deep" / "er" / "a", rows="steps")  # a run itself
    assert len(steps) == 361
    assert "test_loss" not in steps


def test_overlapping_folders_count_once(tmp_path: Path) -> None:
    make_run(tmp_path / "s" / "a")
    assert len(load_runs(tmp_path, tmp_path / "s", tmp_path / "s" / "a")) == 11


def test_newest_of_one_run_id_counts(tmp_path: Path) -> None:
    make_run(tmp_path / "a", finished="2026-03-01T00:00:00+01:00")
    make_run(tmp_path / "b", finished="2026-02-01T00:00:00")
    make_run(tmp_path / "c", finished="nonsense")
    make_run(tmp_path / "d", record={"status": "interrupted", "finished": None})
    table = load_runs(tmp_path)
    assert set(table["run"]) == {str(tmp_path / "a")}
    assert table.attrs["problems"] == []
    (tmp_path / "a" / "epochs.csv").write_text("")
    table = load_runs(tmp_path)
    assert set(table["run"]) == {str(tmp_path / "b")}
    assert len(table.attrs["problems"]) == 1


def test_a_run_of_two_phases_counts_in_both(tmp_path: Path) -> None:
    """A search that chose the default setting has the same runs, tuned and default."""
    for phase in ("tuned", "default"):
        for copy in ("a", "b"):
            make_run(tmp_path / copy / phase, phase=phase, record={"run_id": "abc"})
    table = load_runs(tmp_path)
    assert set(table["run_id"]) == {"abc"}
    assert sorted(table.drop_duplicates("run")["phase"]) == ["default", "tuned"]


GOOD = "epoch,step,train_loss,train_accuracy,running_loss,val_loss,val_accuracy,"
GOOD += "test_loss,test_accuracy,seconds,total_seconds\n"
ROW = "0,0,2,0.1,,2,0.1,2,0.1,0,0\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        (GOOD, "no rows"),
        (GOOD + ROW + "1,36,1.5,0.2", "middle of its last line"),
        (GOOD + ROW + "1,36,1.5\n", "3 fields instead of 11"),
        (GOOD + ROW + ROW.strip() + ",7\n", "12 fields"),
        (GOOD.replace("train_loss", "train_lozz") + ROW, "lacks the column(s) train_loss"),
        (GOOD.replace("val_loss", "test_loss") + ROW, "lacks the column(s) val_loss"),
        (GOOD + ROW.replace("2", "two"), "not a number"),
        (GOOD + ROW.replace("0.1", "1_0"), "not a number"),
        (GOOD + ROW.replace("0,0,2", "0,0,", 1), "empty cell"),
        (GOOD + ROW + ROW, "count upwards"),
        (GOOD + ROW.replace("0,0,2", "0,0.5,2", 1), "count upwards"),
        (GOOD + ROW.replace("0,0,2", "inf,0,2", 1), "not finite"),
        (GOOD + ROW, "ends at epoch 0 of 10"),
        (b"\xff\xfe" + GOOD.encode(), "UTF-8"),
        (GOOD.encode() + b"0,0,\x00,0.1,,2,0.1,2,0.1,0,0\n", "not a number"),
        ("{}\n", "lacks the column"),
        (None, "directory"),
    ],
)
def test_damaged_csv_is_named(tmp_path: Path, content: str | bytes | None, words: str) -> None:
    make_run(tmp_path / "good")
    path = make_run(tmp_path / "bad", seed=1) / "epochs.csv"
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = load_runs(tmp_path)
    assert set(table["run"]) == {str(tmp_path / "good")}
    (problem,) = table.attrs["problems"]
    assert problem.startswith(f"{path}: ")
    assert words in problem.lower() or words in problem
    assert "\n" not in problem
    with pytest.raises(UserError, match=r"bad.epochs\.csv"):
        load_runs(tmp_path / "bad")


def test_a_file_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a") / "epochs.csv"
    record = read_record(path.with_name("run.json"))
    whole = path.read_bytes()
    for end in range(0, len(whole), 3):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError):  # noqa: PT011
            read_rows(path, record)


def test_a_run_that_diverged_at_the_start_has_no_steps(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam",), 2)
    path = make_run(tmp_path / "bad", seed=2, diverged_at=0) / "steps.csv"
    path.write_text("step,epoch,train_loss,lr,seconds\n")
    table = load_runs(tmp_path, rows="steps")
    assert table.attrs["problems"] == []
    bad = table[table["run"] == str(path.parent)]  # one line stands for it
    assert bad[["status", "step", "epoch", "seconds"]].to_numpy().tolist() == [
        ["diverged", 0, 0.0, 0.0]
    ]
    assert bad[["train_loss", "lr"]].isna().all(axis=None)
    assert len(table) == 2 * 361 + 1
    assert len(load_runs(path.parent, rows="steps")) == 1
    # later, the step that diverged is logged; and the evaluation at step 0 always is
    late = make_run(tmp_path / "late", seed=3, diverged_at=9) / "steps.csv"
    late.write_bytes(path.read_bytes())
    (path.parent / "epochs.csv").write_text(GOOD)
    for rows, csv in (("steps", late), ("epochs", path.with_name("epochs.csv"))):
        (problem,) = load_runs(tmp_path, rows=rows).attrs["problems"]
        assert problem == f"{csv}: has a header and no rows"


@pytest.mark.parametrize("rows", ["epochs", "steps"])
@pytest.mark.parametrize("diverged_at", [None, 0, 100])
def test_rows_are_counted(tmp_path: Path, rows: str, diverged_at: int | None) -> None:
    make_run(tmp_path / "older", seed=1, record={"summary": {"best_val_loss": 0.1}})
    folder = make_run(tmp_path / "a", diverged_at=diverged_at)
    path = folder / f"{rows}.csv"
    lines = path.read_text().splitlines(keepends=True)
    record = json.loads((folder / "run.json").read_text())

    def problems(count: object, kept: list[str]) -> list[str]:
        record["summary"] = {"rows": {rows: count}}
        (folder / "run.json").write_text(json.dumps(record))
        path.write_text("".join(kept))
        return load_runs(tmp_path, rows=rows).attrs["problems"]

    count = len(lines) - 1
    assert problems(count, lines) == []
    for number in {1, len(lines) // 2, count}:  # one line lost at the start, in the middle, last
        kept = lines[:number] + lines[number + 1 :]
        expected = f"{path}: has {count - 1} rows and should have {count}"
        assert problems(count, kept) == [expected]
    assert problems(count - 1, lines) == [f"{path}: has {count} rows and should have {count - 1}"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"[1]", "object"),
        (b"\xff", "UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"format": 1}', "run_id"),
        (b'{"format": 2}', "format 2"),
        (b"{}", "format None"),
        (b"\xef\xbb\xbf{}", "byte-order mark"),
    ],
)
def test_damaged_run_json_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    make_run(tmp_path / "good")
    path = make_run(tmp_path / "bad", seed=1) / "run.json"
    path.write_bytes(content)
    (problem,) = load_runs(tmp_path).attrs["problems"]
    assert problem.startswith(f"{path}: ")
    assert words in problem


def test_a_record_without_a_seal_is_checked_too(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    make_run(tmp_path / "bad", seed=1, record={"cohort": "zz"})
    with pytest.warns(UserWarning, match="left out: .*has 'zz' as its 'cohort'"):
        table = load_runs(tmp_path)
    assert set(table["run"]) == {str(tmp_path / "good")}


def test_unfinished_and_failed_are_named(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    make_run(tmp_path / "r", seed=1, record={"status": "running"})
    make_run(tmp_path / "i", seed=2, record={"status": "interrupted"})
    make_run(tmp_path / "f", seed=3, record={"status": "failed", "error": "out of memory"})
    (make_run(tmp_path / "n", seed=4) / "run.json").unlink()
    problems = load_runs(tmp_path).attrs["problems"]
    assert len(problems) == 4
    text = "\n".join(problems)
    assert "status running" in text
    assert "status interrupted" in text
    assert "out of memory" in text
    assert "no run.json" in text


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    for folders in ([], [tmp_path], [tmp_path / "missing"], [Path(__file__)]):
        with pytest.raises(UserError, match=r"run\.json"):
            load_runs(*folders)
    with pytest.raises(UserError, match="epochs, steps"):
        load_runs(tmp_path, rows="hours")


def seal(folder: Path) -> None:
    """Make a made-up run one that has digests, as those that optbench writes."""
    record = json.loads((folder / "run.json").read_text())
    sums = {n: hashlib.sha256((folder / f"{n}.csv").read_bytes()) for n in ("epochs", "steps")}
    record["csv_sha256"] = {name: found.hexdigest() for name, found in sums.items()}
    write_sealed(folder / "run.json", record)


@pytest.mark.parametrize("name", ["epochs.csv", "run.json"])
def test_one_changed_digit_is_noticed(tmp_path: Path, name: str) -> None:
    make_run(tmp_path / "good")
    folder = make_run(tmp_path / "bad", seed=1)
    seal(folder)
    assert load_runs(tmp_path).attrs["problems"] == []
    path = folder / name
    whole = path.read_bytes()
    places = [i for i, byte in enumerate(whole) if byte in b"0123456789"]
    for place in places[:: len(places) // 40] + places[-70:]:  # the seal is at the end
        digit = b"7" if whole[place : place + 1] != b"7" else b"2"
        path.write_bytes(whole[:place] + digit + whole[place + 1 :])
        table = load_runs(tmp_path)
        (problem,) = table.attrs["problems"]
        assert problem.startswith(f"{path}: ")
        assert set(table["run"]) == {str(tmp_path / "good")}


def test_a_record_in_anothers_folder_is_noticed(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    for folder in folders:
        seal(folder)
    (folders[0] / "run.json").write_bytes((folders[1] / "run.json").read_bytes())
    table = load_runs(tmp_path)
    assert set(table["seed"]) == {1}
    (problem,) = table.attrs["problems"]
    assert problem.startswith(str(folders[0] / "epochs.csv"))


def test_a_record_without_its_digest_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    seal(folder)
    record = json.loads((folder / "run.json").read_text())
    record["name"] = "mine"
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="remove its 'sha256'"):
        load_runs(tmp_path)
    del record["sha256"]
    (folder / "run.json").write_text(json.dumps(record))
    assert set(load_runs(tmp_path)["optimizer"]) == {"mine"}


def test_a_run_whose_file_was_changed_does_not_count_as_done(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "adam-seed0-x")
    seal(folder)
    record = read_record(folder / "run.json")
    assert intact(folder, record)
    (folder / "steps.csv").write_text((folder / "steps.csv").read_text().replace("1", "2"))
    assert not intact(folder, record)
    (folder / "steps.csv").unlink()
    assert not intact(folder, record)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"y": 5}', b'{"facet": {"a": 1}}',
        b'{"log": 3}',
        b'{"y": "val_loss", "sha256": "0"}', b'{"target": []}', b'{"lines": [1]}',
    ],
)  # fmt: skip
def test_damaged_figure_options_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "figure.json").write_bytes(content)
    with pytest.raises(UserError, match=r"figure\.json is damaged"):
        figure_of([tmp_path])


@pytest.mark.parametrize(
    "change",
    [
        {"warnings": None}, {"warnings": [1]}, {"tuning": []}, {"phases": {"trials": 1}},
        {"phases": {"trials": {"jobs": {}}}}, {"contenders": [1]}, {"contenders": {}},
        {"contenders": [{"optimizer": "adam", "trials": [3]}]}, {"earlier": [{}]}, {"sha256": "0"},
    ],
)  # fmt: skip
def test_damaged_manifests_are_named(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"warnings": []}))
    assert len(manifests_of([tmp_path], pd.DataFrame())) == 1
    (tmp_path / "study.json").write_text(json.dumps({"warnings": []} | change))
    with pytest.raises(UserError, match=r"study\.json is damaged"):
        manifests_of([tmp_path], pd.DataFrame())


@pytest.mark.parametrize(
    "text",
    ["", "1\n", "[]\n", '{"planned": "x"}\n', '{"planned": 1, "jobs": [1]}\n', "[" * 100_000],
)
def test_a_damaged_list_of_jobs_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "jobs.jsonl").write_text(text)
    with pytest.raises(ValueError, match="does not begin with what was planned"):
        job_list.read(tmp_path)
    assert job_list.failed(tmp_path) == []


def test_lines_of_jobs_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    good = {"job": 0, "overrides": ["a=1"], "status": "completed", "run": "x", "error": None}
    lines = [{"planned": 2, "jobs": [["a=1"], ["a=2"]]}, 3, {"job": 1}, good, {"status": "failed"}]
    text = "\n".join(map(json.dumps, lines)) + '\n{"job": 1, "ov'
    (tmp_path / "jobs.jsonl").write_text(text)
    assert job_list.of_sweep(tmp_path)["jobs"] == {
        "done": ["a=1"],
        "failed": [],
        "missing": ["a=2"],
    }


def test_a_table_that_finished_runs_lack_is_named_with_what_writes_it(tmp_path):
    make_run(tmp_path / "a")
    (tmp_path / "a" / "layers.csv").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"has a layers\.csv: diagnostics=layers writes it"):
        load_runs(tmp_path, rows="layers")

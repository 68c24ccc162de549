"""Compared runs have one thread count and one state of the data; a caveat names unequal work."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run, sweep

from optbench.analysis.caveats import caveats, only_command
from optbench.analysis.comparison import Comparison, Options, compare
from optbench.analysis.table import RunFiles, load_runs
from optbench.formats import job_list
from optbench.report.draw import draw_all


def test_times_of_another_thread_count_are_left_out_and_named(tmp_path: Path) -> None:
    for seed in range(6):
        for name in ("adam", "sgd"):
            threads = 2 if (name, seed) == ("adam", 0) else 1
            record = {"num_threads": threads, "device": "cpu"}
            make_run(tmp_path / f"{name}{seed}", name, seed, record=record)
    made = compare([tmp_path])
    assert made.timing.untimed == {str(tmp_path / "adam0")}
    assert "1 run of adam had 2 threads" in made.timing.sentence
    times = made.costs["ms_per_step"]
    assert np.isnan(times[str(tmp_path / "adam0")])
    assert times.notna().sum() == 11
    draw_all([tmp_path], tmp_path / "out")
    assert "1 run of adam had 2 threads" in (tmp_path / "out" / "summary.md").read_text()


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_equal_threads_and_gpus_leave_no_time_out(tmp_path: Path, device: str) -> None:
    for seed in range(2):
        record = {"num_threads": 1 + seed * (device != "cpu"), "device": device}
        make_run(tmp_path / f"a{seed}", "adam", seed, record=record)
    assert compare([tmp_path]).timing.untimed == frozenset()


def test_an_edited_file_leaves_the_earlier_runs_out(tmp_path: Path) -> None:
    for digest, day in (("before", "01"), ("after", "02")):
        for seed in (0, 1):
            make_run(
                tmp_path / f"{digest}{seed}", seed=seed, data_digest=digest,
                data__path="here/houses.csv", dataset__name="csv",
                record={"started": f"2026-01-{day}T00:00:00+00:00"},
            )  # fmt: skip
    make_run(tmp_path / "other", data_digest="other", data__path="b.csv", dataset__name="csv")
    with pytest.warns(UserWarning, match=r"2 runs made before houses\.csv changed"):
        table = load_runs(tmp_path)
    assert set(table["data_digest"]) == {"after", "other"}


def own_data(folder: Path, digest: str, day: int, seed: int = 0, **keys) -> Path:
    status = keys.pop("status", "completed")
    return make_run(
        folder / f"{digest}{seed}{day}{status}", seed=seed, data_digest=digest,
        data__path="houses.csv", dataset__name="csv", **keys,
        record={"started": f"2026-01-{day:02}T00:00:00+00:00", "status": status},
    )  # fmt: skip


def left_after_edit(*folders: Path) -> tuple[set[str], list[str]]:
    files = RunFiles(folders)
    return {str(record["problem"]["data_digest"]) for _, record in files.records}, files.older


def test_other_settings_of_the_problem_do_not_keep_older_data(tmp_path: Path) -> None:
    own_data(tmp_path, "before", 1, batch_size=32)
    own_data(tmp_path, "after", 2, batch_size=64)
    assert left_after_edit(tmp_path) == ({"after"}, ["1 run made before houses.csv changed"])


def test_an_unfinished_run_of_newer_data_is_not_called_older(tmp_path: Path) -> None:
    own_data(tmp_path, "before", 1)
    own_data(tmp_path, "after", 2, status="failed")
    digests, older = left_after_edit(tmp_path)
    assert "before" in digests
    assert older == []


def test_two_folders_with_files_of_one_name_are_two_problems(tmp_path: Path) -> None:
    own_data(tmp_path / "p", "one", 1)
    own_data(tmp_path / "q", "two", 2)
    assert left_after_edit(tmp_path / "p", tmp_path / "q") == ({"one", "two"}, [])


def test_an_engine_and_a_thread_count_are_not_chosen_apart(tmp_path: Path) -> None:
    """Else no run would have both, and no time would count."""
    for seed in range(6):
        for name, engine, threads in (("adam", "plain", 2), ("sgd", "compiled_mlp", 1)):
            record = {"num_threads": threads, "device": "cpu", "engine": engine}
            make_run(tmp_path / f"{name}{seed}", name, seed, record=record)
    made = compare([tmp_path])
    assert made.costs["ms_per_step"].notna().sum() == 6
    assert made.timing.sentence.count("seconds and costs are") == 1


def test_unequal_gradients_a_step_are_told(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd", "lbfgs"), 2)
    table = load_runs(tmp_path)
    each = table["optimizer"].astype(str).map({"adam": 1, "sgd": 1, "lbfgs": 5})
    table["gradients"] = table["step"] * each
    (told,) = [text for text in caveats(Comparison(table)) if "gradients a step" in text]
    assert told.startswith("lbfgs takes 5 gradients a step, and ")
    table["gradients"] = table["step"]
    assert not [text for text in caveats(Comparison(table)) if "gradients a step" in text]


@pytest.mark.parametrize(("listed", "known"), [(("adam", "sgd"), True), (("adam",), False)])
def test_a_command_settles_only_what_it_runs(tmp_path: Path, listed, known) -> None:
    """The last command into a folder may have left out an optimizer of an earlier one."""
    sweep(tmp_path, ("adam", "sgd"), 3)
    first = {"planned": 3, "retry": "failed", "jobs": [], "words": [f"optimizer={listed}"]}
    runs = [path.parent for path in tmp_path.glob("*/run.json")]
    ended = [
        {"job": number, "overrides": [], "status": "completed", "run": run.name}
        for number, run in enumerate(runs)
        if json.loads((run / "run.json").read_text())["name"] in listed
    ]
    lines = [first | {"failed_before": []}, *ended]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / job_list.JOBS_FILE).write_text(text)
    made = compare([tmp_path])
    assert (only_command(made) is not None) == known
    assert any("this settles it" in told for told in caveats(made)) == known


def test_a_selection_has_files_of_its_own_that_name_it(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd", "nadam"), 6)
    draw_all([tmp_path])
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    options = Options(where=["optimizer=adam", "optimizer=sgd", "seed=0"])
    draw_all([tmp_path], None, options)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before
    words = "of the runs with optimizer=adam or sgd, seed=0 alone"
    for name in ("summary.md", "summary.tex", "train_loss-epoch.txt"):
        assert words in (tmp_path / "where" / name).read_text(), name
    assert "of the runs with" not in (tmp_path / "summary.md").read_text()

"""The status of an ordinary sweep tells the runs that have begun from those that wait."""

import json
from pathlib import Path

import pytest
from made_runs import make_run

from optbench.commands import status
from optbench.formats import job_list


def test_runs_that_run_or_were_interrupted_have_begun(tmp_path: Path) -> None:
    jobs = [[f"seed={seed}"] for seed in range(5)]
    folder = tmp_path / "s"
    folder.mkdir()
    job_list.plan(folder, len(jobs), "failed", jobs)
    lines = []
    for seed, word in enumerate(("completed", "interrupted", "running")):
        name = f"run{seed}"
        make_run(folder / name, "adam", seed, record={"status": word})
        line = {"job": seed, "overrides": jobs[seed], "run": name, "error": None, "status": word}
        lines += [] if word == "running" else [line]  # it has no outcome yet
    with (folder / job_list.JOBS_FILE).open("a") as listed:
        listed.writelines(json.dumps(line) + "\n" for line in lines)
    said = list(status.lines_of(folder))
    assert said == [f"{folder}: 5 runs, 1 done, 2 begun (running, or interrupted), 2 to do"]


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="is not the folder of a sweep"):
        list(status.lines_of(tmp_path))


def test_finished_runs_of_earlier_commands_are_counted_beside_the_list(tmp_path: Path) -> None:
    """An interrupted command may have reused none of them."""
    jobs = [[f"seed={seed}"] for seed in range(5)]
    for seed in range(3):
        make_run(tmp_path / f"run{seed}", "adam", seed)
    job_list.plan(tmp_path, len(jobs), "failed", jobs)
    said = list(status.lines_of(tmp_path))
    assert said[0] == f"{tmp_path}: 5 runs, 0 done, 5 to do"
    assert said[1].startswith("the folder also has 3 finished runs of earlier commands")

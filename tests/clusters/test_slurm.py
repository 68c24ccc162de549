"""`hydra/launcher=slurm` on a real Slurm: equal tables, requeued tasks, a cancelled study."""

import subprocess
import time

import pytest
from cluster_commands import PATIENTLY, TINY, finish, tables, until

from optbench.commands import status as status_command
from optbench.formats import job_list, shared_study
from optbench.sweeps.clusters import queue

SLURM = ["hydra/launcher=slurm", "hydra.launcher.jobs=2", "hydra.launcher.time=20m"]


def submissions(place) -> list[dict]:
    return shared_study.submissions(place / "x")


@pytest.mark.slow
def test_a_tuned_study_is_done_by_two_array_tasks_as_by_one_machine(slurm, command, place):
    words = [
        "-m", *TINY, "hydra/sweeper=tuned", "optimizer=sgd,momentum,adam", "tuning.trials=4",
        "tuning.repeats=3", "seeds=2",
    ]  # fmt: skip
    finish(command(*words, "results_dir=.", "name=alone", "hydra.launcher.workers=1"))
    out, _ = finish(command(*words, "results_dir=.", "name=x", *SLURM))
    assert tables(place / "x") == tables(place / "alone")
    assert "submitted Slurm's array" in out
    assert out.count("drawn") == 1
    (line,) = submissions(place)
    text = "\n".join(status_command.lines_of(place / "x"))
    assert f"Slurm array {line['job']} of 2 tasks" in text
    assert line["logs"] in text


@pytest.mark.slow
def test_a_preempted_task_goes_on_from_its_checkpoint(slurm, command, place):
    (place / "stuck").touch()
    process = command("-m", *TINY, *PATIENTLY, "epochs=4", "results_dir=.", "name=x", *SLURM)
    until((place / "stepping").exists, process)
    (line,) = submissions(place)
    # Slurm's own signal of an end that comes near, which submitit turns into a requeue
    for task in queue.tasks_of(line["job"]) or []:
        subprocess.run(["scancel", "--signal=USR2", task.name], check=True)
    (place / "stuck").unlink()
    finish(process)
    (rows,) = tables(place / "x").values()
    assert len(rows) == 6
    logs = "".join(path.read_text() for path in (place / "x" / ".work" / "slurm").glob("*_log.*"))
    assert "requeue" in logs.lower()


@pytest.mark.slow
def test_a_cancelled_study_is_resumed_by_the_same_command(slurm, command, place):
    words = ["-m", *TINY, *PATIENTLY, "epochs=4", "seed=0,1,2", "results_dir=.", "name=x", *SLURM]
    (place / "stuck").touch()
    process = command(*words)
    until((place / "stepping").exists, process)
    process.terminate()
    time.sleep(2)
    (place / "stuck").unlink()
    process.communicate(timeout=120)
    assert process.returncode == 143
    (line,) = submissions(place)
    deadline = time.monotonic() + 120
    while queue.tasks_of(line["job"]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert len(tables(place / "x")) < 3
    finish(command(*words))
    assert len(tables(place / "x")) == 3
    assert job_list.of_sweep(place / "x")["done"] == 3


@pytest.mark.slow
def test_the_command_need_not_wait(slurm, command, place):
    words = ["-m", *TINY, "seed=0,1", "results_dir=.", "name=x", *SLURM]
    out, _ = finish(command(*words, "hydra.launcher.wait=false"))
    assert "optbench status" in out
    deadline = time.monotonic() + 300
    while job_list.of_sweep(place / "x")["done"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_what_slurm_refuses_gets_words(slurm, command, place):
    process = command(
        "-m", *TINY, "results_dir=.", "name=x", *SLURM, "hydra.launcher.partition=nowhere"
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Slurm does not take the jobs" in err
    assert "Traceback" not in out + err

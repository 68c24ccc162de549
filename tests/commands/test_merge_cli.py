"""`optbench merge` and `optbench status`: folders of one study from several machines."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest
from in_process import sub_command
from made_runs import make_run

from optbench.analysis.table import load_runs
from optbench.formats import job_list, shared_study
from optbench.formats.run import write_sealed
from optbench.runs import claims
from optbench.tuning.joining import join_phases

JOBS = [[f"optimizer={name}", f"seed={seed}"] for name in ("adam", "sgd") for seed in (0, 1)]
merge, status = sub_command("merge"), sub_command("status")


def machine(folder: Path, names: tuple[str, ...], seeds: tuple[int, ...], **keys: object) -> Path:
    """A sweep's folder of one machine, with its own part of the runs."""
    folder.mkdir()
    jobs = [words for words in JOBS if words[0].partition("=")[2] in names]
    job_list.plan(folder, len(jobs), "failed", jobs, command={"task": ["seed=0,1"], "hydra": []})
    for number, words in enumerate(jobs):
        name, seed = words[0].partition("=")[2], int(words[1].partition("=")[2])
        if seed in seeds:
            run = make_run(folder / f"{name}-seed{seed}", name, seed, **keys)
            line = {"job": number, "overrides": words, "status": "completed", "run": run.name}
            job_list.record(folder, line)
    write_sealed(folder / job_list.FIGURE_FILE, {"y": "val_loss"})
    return folder


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(str(path.relative_to(folder)).encode())
        found.update(path.read_bytes() if path.is_file() else b"")
    return found.hexdigest()


def test_parts_of_a_sweep_become_one(tmp_path, capsys):
    one = machine(tmp_path / "a", ("adam",), (0, 1))
    two = machine(tmp_path / "b", ("sgd", "adam"), (1,))
    before = digest(one), digest(two)
    assert merge([str(one), str(two), "-o", str(tmp_path / "c")]) == 0
    assert (digest(one), digest(two)) == before
    assert "3 runs, 1 of them more than once" in capsys.readouterr().out
    table = load_runs(tmp_path / "c")
    assert table["run_id"].nunique() == 3
    first, outcomes = job_list.read(tmp_path / "c")
    assert first["planned"] == 4
    assert len(outcomes) == 3
    assert {tuple(line["overrides"]) for line in outcomes} <= {tuple(words) for words in JOBS}
    progress = job_list.of_sweep(tmp_path / "c")
    assert (progress["done"], progress["missing"]) == (3, 1)
    assert status([str(tmp_path / "c")]) == 0
    assert "4 runs, 3 done, 1 to do" in capsys.readouterr().out


def test_a_conflict_is_reported_and_loses_nothing(tmp_path, capsys):
    one = machine(tmp_path / "a", ("adam",), (0, 1))
    shutil.copytree(one, tmp_path / "b")
    path = tmp_path / "b" / "adam-seed1" / "epochs.csv"
    lines = path.read_text().splitlines()
    cells = lines[3].split(",")
    lines[3] = ",".join([*cells[:2], "9.5", *cells[3:]])
    path.write_text("\n".join(lines) + "\n")
    # times are no difference
    times = tmp_path / "b" / "adam-seed0" / "epochs.csv"
    times.write_text(times.read_text().replace("0.36", "0.37"))
    assert merge([str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "c")]) == 1
    out, err = capsys.readouterr()
    assert "2 runs, 2 of them more than once" in out
    assert err.count("conflict: ") == 1
    assert "differ in line 4 of epochs.csv" in err
    kept = (tmp_path / "c" / "adam-seed1" / "epochs.csv").read_text()
    assert kept == (tmp_path / "a" / "adam-seed1" / "epochs.csv").read_text()


def test_an_unfinished_run_comes_along_with_its_checkpoint(tmp_path):
    one = machine(tmp_path / "a", ("adam",), (0,))
    make_run(one / "left", "adam", 1, record={"status": "interrupted"})
    (one / "left" / "checkpoint.pt").write_bytes(b"state")
    two = machine(tmp_path / "b", ("adam",), (0,))
    assert merge([str(one), str(two), "-o", str(tmp_path / "c")]) == 0
    assert (tmp_path / "c" / "left" / "checkpoint.pt").read_bytes() == b"state"
    # unless another machine has finished it
    three = machine(tmp_path / "d", ("adam",), (1,))
    assert merge([str(one), str(three), "-o", str(tmp_path / "e")]) == 0
    assert {path.parent.name for path in (tmp_path / "e").glob("*/run.json")} == {
        "adam-seed0", "adam-seed1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["a", "-o", "a"], "is there already"),
        (["a", "-o", "a/c"], "lies in a"),
        (["a", "a/", "-o", "c"], "one folder was given twice"),
        (["empty", "-o", "c"], "there are no runs below empty"),
        (["nowhere", "-o", "c"], "there is no folder nowhere"),
        (["a"], "the following arguments are required: -o"),
    ],
    ids=" ".join,
)
def test_mistakes_get_words(tmp_path, monkeypatch, capsys, words, part):
    machine(tmp_path / "a", ("adam",), (0,))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert merge(words) == 1
    assert part in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_a_run_that_is_done_anywhere_is_done():
    def phase(done: list[str], failed: list[str], missing: list[str]) -> dict:
        return {"trials": {"jobs": {"done": done, "failed": failed, "missing": missing}}}

    joined = join_phases([phase(["a"], ["b"], ["c"]), phase(["b"], ["c"], ["a", "d"])])
    found = joined["trials"]
    assert found["jobs"] == {"done": ["a", "b"], "failed": ["c"], "missing": ["d"]}
    assert (found["planned"], found["done"], found["failed"], found["missing"]) == (4, 2, 1, 1)


def test_the_status_shows_workers_runs_and_failures(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    folder = machine(tmp_path / "results" / "x", ("adam", "sgd"), (0,))
    first = job_list.first_line(folder)
    first |= {"command": first["command"] | {"inside": "x"}, "call": {"id": "c1"}}
    text = (folder / "jobs.jsonl").read_text().splitlines()[1:]
    (folder / "jobs.jsonl").write_text("\n".join([json.dumps(first), *text]) + "\n")
    lists = shared_study.call_folder(folder, "c1")
    lists.mkdir(parents=True)
    place = tmp_path / "results" / claims.CLAIM_FOLDER
    for name, left in (("near", False), ("far", True)):
        info = {"worker": name, "place": "elsewhere", "slurm_array": "7", "slurm_task": "3"}
        shared_study.append(lists / f"{name}.jsonl", info | {"slurm_job": "10"})
        if left:
            line = {"job": 1, "overrides": JOBS[1], "status": "failed", "error": "bad\nluck"}
            shared_study.append(lists / f"{name}.jsonl", line)
            shared_study.append(lists / f"{name}.jsonl", shared_study.LEFT)
        else:
            job = info | {"job": "[4/4] sgd seed=1"}
            assert claims.take(place, "r", job, lambda _: False)
            claims.beat(place, name, 1)
    begun = time.monotonic()
    assert status([str(folder)]) == 0
    assert time.monotonic() - begun < 2
    out = capsys.readouterr().out
    assert "4 runs, 2 done, 1 running, 1 failed" in out
    assert "[4/4] sgd seed=1  by near" in out
    assert "optimizer=adam seed=1: bad\n" in out
    assert "near: 0 runs ended, Slurm 7_3 (job 10), at work" in out
    assert "far: 1 run ended, Slurm 7_3 (job 10), has left" in out


def test_the_status_of_something_else_gets_words(tmp_path, capsys):
    assert status([str(tmp_path)]) == 1
    assert "is not the folder of a sweep: it has no jobs.jsonl" in capsys.readouterr().err
    assert status([str(tmp_path / "none")]) == 1

"""The page on images of one's own: its commands run, and a killed sweep ends as a whole one."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from image_files import write_digits
from in_process import call

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "my-images.md").read_text("utf-8")
(SCRIPT,) = re.findall(r"```python\n# pictures\.py\n(.*?)```", PAGE, re.S)
SINGLE, SWEEP = re.findall(r"^    python -m optbench (.*)$", PAGE, re.M)
MOST_MEMORY = 1.5 * 2**30  # bytes, as the page says
TIMED = ("seconds", "total_seconds")


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPTBENCH_")}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def curves(folder: Path) -> dict[str, list[dict[str, str]]]:
    found = {}
    for path in folder.glob("*/epochs.csv"):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        found[path.parent.name] = [{k: v for k, v in r.items() if k not in TIMED} for r in rows]
    return found


def memory(group: int) -> float:
    """Return the bytes that the processes of a group have, shared pages once."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/smaps_rollup"):
        try:
            if os.getpgid(int(status.parent.name)) == group:
                total += int(re.findall(r"^Pss:\s+(\d+)", status.read_text(), re.M)[0]) * 1024
        except (OSError, ProcessLookupError, IndexError):
            continue  # it has ended
    return total


def watched(folder: Path, *words: str, stop_at_checkpoint: bool = False) -> tuple[float, str]:
    """Run the program, kill it with all its processes at its first checkpoint if asked.

    Return the most memory that was seen, and what was printed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "optbench", *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    most, deadline = 0.0, time.monotonic() + 900
    while process.poll() is None:
        assert time.monotonic() < deadline
        most = max(most, memory(process.pid))
        if stop_at_checkpoint and list(folder.glob("results/**/checkpoint*")):
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.1)
    printed = process.communicate()[0]
    assert process.returncode == (-signal.SIGKILL if stop_at_checkpoint else 0), printed
    return most, printed


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="measured on Linux")
@pytest.mark.parametrize("in_memory_mb", [1000, 0])
def test_the_sweep_of_the_page_resumes_after_a_kill_bit_for_bit(tmp_path, in_memory_mb):
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
        subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=tmp_path / name, env=environment(), check=True
        )
    words = [*SWEEP.split(), "checkpoint_seconds=0", f"dataset.in_memory_mb={in_memory_mb}"]
    if not in_memory_mb:  # streamed runs are slower to begin: fewer of them
        words = [word.replace("0,1,2,3,4,5", "0,1") for word in words]
    for _ in range(3):  # a run may end between its checkpoint and the kill
        watched(tmp_path / "killed", *words, stop_at_checkpoint=True)
        if list((tmp_path / "killed").glob("results/**/checkpoint*")):
            break
    before = curves(tmp_path / "killed" / "results" / "pictures")
    watched(tmp_path / "killed", *words)
    records = (tmp_path / "killed" / "results" / "pictures").glob("*/run.json")
    assert any("resumed" in json.loads(path.read_text()) for path in records)
    most, printed = watched(tmp_path / "whole", *words)
    assert most < MOST_MEMORY
    assert "Verdict: " in printed
    folder = tmp_path / "whole" / "results" / "pictures"
    assert (folder / "train_loss-epoch.png").stat().st_size > 10_000
    whole, resumed = curves(folder), curves(tmp_path / "killed" / "results" / "pictures")
    assert len(before) < len(whole) or any(len(before[run]) < len(whole[run]) for run in before)
    assert whole == resumed
    assert len(whole) == (12 if in_memory_mb else 4)


def test_the_single_command_of_the_page_trains(tmp_path, monkeypatch, capsys):
    write_digits(tmp_path / "pictures", 40, 12, classes=2)
    monkeypatch.chdir(tmp_path)
    quick = ("model.width=2", "batch_size=16", "num_threads=1", "results_dir=out")
    assert call(monkeypatch, *SINGLE.split(), *quick) == 0
    assert "completed: out/runs/adam-seed0-" in capsys.readouterr().out
    # read batch by batch, it is the same run, which is done
    assert call(monkeypatch, *SINGLE.split(), *quick, "dataset.in_memory_mb=0") == 0
    assert "already" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "data.path=pictures: there is no such folder"),
        (lambda folder: folder.mkdir(), "has no images in folders of classes (it is empty)"),
    ],
)
def test_bad_folders_end_the_command_in_words(tmp_path, monkeypatch, capsys, make, words):
    make(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *SINGLE.split(), "results_dir=out") == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "word",
    [
        "model=logreg model.batch_norm=true",
        "model=gpt model.batch_norm=true",
        "model=resnet model.batch_norm=true",
        "model=logreg +model.batch_norm=true",
        "model=torchvision +model.batch_norm=true",
    ],
)
def test_batch_norm_is_refused_of_models_without_it(monkeypatch, capsys, tmp_path, word):
    words = ("data.subset=20", "epochs=1", f"results_dir={tmp_path}")
    assert call(monkeypatch, *word.split(), *words) == 1
    error = capsys.readouterr().err
    assert "batch_norm" in error
    assert ("unknown key 'model.batch_norm'" in error) or "does not accept batch_norm" in error
    assert "Traceback" not in error

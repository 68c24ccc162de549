"""The same question gets the same answer, wherever and by whomever it is asked."""

import csv
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["data.subset=300", "model.hidden=[8]", "epochs=2", "log.steps=1", "quiet=true"]
QUICK += ["deterministic=true", "model.dropout=0.2", "model.batch_norm=true", "device=cpu"]
SURROUNDINGS = (
    ({"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C"}, ["hydra/launcher=basic"]),
    ({"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR"},
     ["hydra/launcher=workers", "hydra.launcher.workers=2"]),
    ({"PYTHONHASHSEED": "7", "TZ": "America/St_Johns", "LC_ALL": "POSIX", "PYTHONUTF8": "0",
      "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "2"},
     ["hydra/launcher=workers", "hydra.launcher.workers=1"]),
)  # fmt: skip


def asked(folder: Path, environment: dict[str, str], *words: str) -> dict[str, dict[str, str]]:
    """What the sweep leaves: by run, the bytes of its CSV files but for the times."""
    folder.mkdir(parents=True)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "optbench", "-m", *QUICK, *words, "results_dir=here", "name=x"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for run in (folder / "here" / "x").glob("*/run.json"):
        record = json.loads(run.read_text("utf-8"))
        texts = {"folder": run.parent.name, "problem": record["problem_hash"]}
        for file in run.parent.glob("*.csv"):
            with file.open(newline="", encoding="utf-8") as lines:
                reader = csv.DictReader(lines)
                rows = [[v for k, v in r.items() if "seconds" not in k] for r in reader]
            texts[file.name] = json.dumps(rows)
        found[record["run_id"]] = texts
    return found


@pytest.mark.slow
def test_neither_hashes_nor_locale_nor_time_zone_nor_folder_nor_launcher_matter(tmp_path):
    sweeps = ["optimizer=adam,momentum", "seed=0,1"]
    places = [tmp_path / "a", tmp_path / "b" / "deep er", tmp_path / "c"]
    found = [
        asked(place, environment, *(sweeps if number else sweeps[::-1]), *launcher)
        for number, (place, (environment, launcher)) in enumerate(
            zip(places, SURROUNDINGS, strict=True)
        )
    ]
    assert len(found[0]) == 4
    assert found[0] == found[1] == found[2]


MANY = """
import sys
from pathlib import Path
sys.path.append("tests")
from composed import configuration
from optbench.runner import run as experiment

words = ["data.subset=200", "model.hidden=[4]", "epochs=1", "quiet=true", "num_threads=1"]
words += ["optimizer=adam", "model.dropout=0.1", f"results_dir={sys.argv[1]}", "device=cpu"]
config = configuration(*words)
for seed in range(200):
    outcome = experiment.run(config | {"seed": seed}, Path(sys.argv[1]) / "runs")
    assert outcome.status == "completed"
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    print(pages, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux says how large it is")
def test_two_hundred_runs_in_one_process_leave_its_size_as_it_is(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sizes = [int(line) * resource.getpagesize() / 2**20 for line in done.stdout.split()]
    assert len(sizes) == 200
    warm, end = max(sizes[20:40]), max(sizes[-20:])
    assert end < 1.05 * warm, f"{warm:.0f} MiB after 40 runs, {end:.0f} MiB after 200"

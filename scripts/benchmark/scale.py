"""Measure how long large folders take to read, to draw and to report: `results/benchmark/scale.md`.

    python -m scripts.benchmark.scale --runs 100 1000 10000

Makes folders of synthetic runs, with the files that a run of ten epochs leaves, and asks each
question in a process of its own, whose peak of memory is counted. With --only-load the figures and
the page are left out.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts import ROOT
from scripts.tables import markdown

OUT = ROOT / "results" / "benchmark"
EPOCHS, STEPS_PER_EPOCH, LOG_STEPS = 10, 36, 10
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
QUESTIONS = {
    "load": "load, without a cache",
    "build": "load, and make the cache",
    "cached": "load, with the cache",
    "changed": "load, with the cache, one file changed",
    "status": "optbench status",
    "plot": "figures and tables (optbench plot)",
    "report": "page (optbench report)",
}


def main() -> None:
    """Make the folders, measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--only-load", action="store_true")
    parser.add_argument("--write", action="store_true", help="into results/benchmark")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ask:
        print(json.dumps(answer(asked.ask, asked.folder)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for runs in asked.runs:
            folder = Path(scratch, str(runs))
            begun = time.perf_counter()
            make_folder(folder, runs)
            counts = count_files(folder)
            print(f"{runs} runs made in {time.perf_counter() - begun:.0f} s: {counts}", flush=True)
            questions = list(QUESTIONS)[: 5 if asked.only_load else None]
            for question in questions:
                if question == "build":
                    time.sleep(3)  # files that were changed just now are not kept
                found = ask(question, folder)
                rows.append({"runs": runs, **counts, "what": QUESTIONS[question], **found})
                print(f"  {QUESTIONS[question]}: {found}", flush=True)
    if asked.write:
        write(rows)


def ask(question: str, folder: Path) -> dict[str, Any]:
    """Return the seconds and the peak of memory of one question, in a process of its own."""
    if question == "changed":
        path = next(iter(sorted(folder.glob("*/epochs.csv"))))
        path.write_text(path.read_text())
    command = [sys.executable, "-m", "scripts.benchmark.scale", "--ask", question]
    done = subprocess.run(
        [*command, "--folder", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def answer(question: str, folder: Path) -> dict[str, Any]:
    """Do what a question asks; return wall and CPU seconds, and gigabytes at the peak."""
    begun, cpu = time.perf_counter(), time.process_time()
    if question in ("load", "build", "cached", "changed"):
        from optbench.analysis.table import read_runs
        from optbench.formats import run_cache

        if question == "load":
            run_cache.MIN_RUNS = 10**9
        else:
            run_cache.MIN_RUNS = 1
        table = read_runs(folder)
        assert table["run_id"].nunique() == sum(1 for _ in folder.glob("*/run.json"))
    elif question == "status":
        from optbench.commands import status

        assert list(status.lines_of(folder))
    elif question == "plot":
        from optbench.report.draw import draw_all

        assert draw_all([folder]).paths
    else:
        from optbench.report.page import write as write_page

        write_page([folder], folder / "report.html")
    status_file = Path("/proc/self/status").read_text()  # rusage has the parent's peak in it
    peak = int(status_file.partition("VmHWM:")[2].split()[0]) / 2**20
    return {
        "seconds": round(time.perf_counter() - begun, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "gigabytes": round(peak, 2),
    }


def make_folder(folder: Path, runs: int) -> None:
    """Write a sweep of synthetic runs: seven optimizers, as many seeds as it takes."""
    from optbench.formats import job_list
    from optbench.formats.checksummed_json import add_checksum

    folder.mkdir()
    jobs, lines = [], []
    for number in range(runs):
        name, seed = OPTIMIZERS[number % len(OPTIMIZERS)], number // len(OPTIMIZERS)
        record, files = synthetic(name, seed)
        place = folder / f"{name}-seed{seed}-{record['run_id']}"
        place.mkdir()
        for file, text in files.items():
            (place / file).write_text(text)
        sealed = json.dumps(add_checksum(record), indent=1) + "\n"
        (place / "run.json").write_text(sealed)
        jobs.append([f"optimizer={name}", f"seed={seed}"])
        lines.append({"job": number, "overrides": jobs[-1], "status": "completed"})
        lines[-1] |= {"run": place.name, "error": None}
    job_list.plan(folder, runs, "failed", jobs)
    with (folder / job_list.JOBS_FILE).open("a") as listed:
        listed.writelines(json.dumps(line) + "\n" for line in lines)


def synthetic(name: str, seed: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the record and the CSV files of a run, with a curve that is made up."""
    rng = random.Random(f"{name} {seed}")
    speed = 0.3 + 0.1 * OPTIMIZERS.index(name)

    def loss(step: int) -> float:
        return float(2.3 * (1 + step / 20) ** -speed * (1 + 0.02 * rng.random()))

    total = EPOCHS * STEPS_PER_EPOCH
    epochs = ["epoch,step,train_loss,train_accuracy,running_loss,val_loss,val_accuracy,"
              "test_loss,test_accuracy,seconds,total_seconds"]  # fmt: skip
    for epoch in range(EPOCHS + 1):
        step = epoch * STEPS_PER_EPOCH
        value = loss(step)
        cells = [epoch, step, value, 1 - value / 2.4, "" if not epoch else value, value * 1.05]
        cells += [0.98 - value / 2.4, value * 1.1, 0.97 - value / 2.4, epoch * 0.2, epoch * 0.25]
        epochs.append(",".join(c if isinstance(c, str) else f"{c:.9g}" for c in cells))
    steps = ["step,epoch,train_loss,lr,seconds"]
    for step in sorted({1, *range(LOG_STEPS, total + 1, LOG_STEPS)}):
        steps.append(f"{step},{step / STEPS_PER_EPOCH:.9g},{loss(step):.9g},0.001,{step / 180:.9g}")
    files = {"epochs.csv": "\n".join(epochs) + "\n", "steps.csv": "\n".join(steps) + "\n"}
    record = template()
    config = {**record["config"], "seed": seed}
    config["optimizer"] = {"name": name, "_target_": f"torch.optim.{name}", "lr": 0.001}
    hashes = {
        key.removesuffix(".csv"): hashlib.sha256(text.encode()).hexdigest()
        for key, text in files.items()
    }
    identity = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()[:12]
    return record | {
        "run_id": identity, "name": name, "seed": seed, "config": config, "csv_sha256": hashes,
        "summary": {"rows": {"epochs": EPOCHS + 1, "steps": len(steps) - 1}},
    }, files  # fmt: skip


def template() -> dict[str, Any]:
    """Return what the records of all synthetic runs share: a run's of seven tuned optimizers."""
    global _template
    if _template is None:
        from composed import configuration

        from optbench.config.build import describe_problem
        from optbench.formats.keys import UNRECORDED_KEYS

        config = configuration("num_threads=1")
        kept = {key: value for key, value in config.items() if key not in UNRECORDED_KEYS}
        _template = {
            "format": 1, "run_id": "", "problem_hash": "p" * 12, "settings_hash": "s" * 12,
            "name": "", "seed": 0, "config": kept,
            "problem": describe_problem(config) | {"data_digest": "d" * 12},
            "device": "cpu", "num_threads": 1, "products": None, "engine": "plain",
            "status": "completed", "error": None, "diverged_at_step": None,
            "versions": {"optbench": "0", "torch": "0"}, "machine": {"cpu": "none"},
            "git_commit": None, "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:01:00+00:00", "summary": {},
        }  # fmt: skip
    return json.loads(json.dumps(_template))


_template: dict[str, Any] | None = None


def count_files(folder: Path) -> dict[str, int]:
    """Return the number of files, of inodes, and the megabytes that they take on the disk."""
    files = inodes = blocks = 0
    for path in walk(folder):
        found = path.lstat()
        files += path.is_file()
        inodes += 1
        blocks += found.st_blocks
    return {"files": files, "inodes": inodes, "megabytes": round(blocks * 512 / 1e6)}


def walk(folder: Path) -> Iterator[Path]:
    """Yield all files and folders below a folder."""
    for here, below, files in os.walk(folder):
        yield from (Path(here, name) for name in (*below, *files))


def write(rows: list[dict[str, Any]]) -> None:
    """Write `scale.csv` and `scale.md`."""
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "scale.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    sizes = list(dict.fromkeys(row["runs"] for row in rows))
    table = []
    for what in dict.fromkeys(row["what"] for row in rows):
        line: dict[str, object] = {"what": what}
        for runs in sizes:
            for row in rows:
                if (row["runs"], row["what"]) == (runs, what):
                    worked, passed = row["cpu_seconds"], row["seconds"]
                    line[f"{runs:,} runs"] = f"{worked} s ({passed} s), {row['gigabytes']} GB"
        table.append(line)
    counts = [
        {"runs": f"{row['runs']:,}"} | {key: f"{row[key]:,}" for key in ("files", "inodes")}
        | {"MB on the disk": row["megabytes"]}
        for row in rows if row["what"] == rows[0]["what"]
    ]  # fmt: skip
    words = " ".join(map(str, sizes))
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores of a shared machine"
    load = f"load average {os.getloadavg()[0]:.1f} at the end"
    parts = [
        "# Large folders",
        f"    python -m scripts.benchmark.scale --runs {words} --write",
        "Synthetic runs of ten epochs (a row of `epochs.csv` for each, a row of `steps.csv` every "
        "ten steps). Each question is asked in a process of its own, imports included: seconds "
        "of its processor, seconds that passed, and the peak of its memory. Other processes kept "
        "the machine busy, so that more seconds passed than it worked.",
        "\n".join(markdown(table)), "\n".join(markdown(counts)),
        f"*{machine}, {load}; every number: [scale.csv](scale.csv)*",
    ]  # fmt: skip
    (OUT / "scale.md").write_text("\n\n".join(parts) + "\n", "utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))  # composed.py
    main()

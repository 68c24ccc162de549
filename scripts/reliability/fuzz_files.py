"""Damage result and dataset files in many ways, and read them as optbench does.

A file is cut, emptied, has bits or digits flipped, lines lost, doubled or swapped, is replaced by
a folder, by another file or another encoding, or is gone. Readers must then give the numbers that
were written, leave the run out and name the file, or refuse in words. A traceback, a wrong number,
or a run that is silently missing is a finding. Findings are printed, and the exit status is 1.
Seeds are fixed: the same command does the same damage.
"""

import argparse
import gzip
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import NoReturn

import numpy as np
import pandas as pd
import torch
from composed import configuration

from optbench.analysis.table import RunFiles, read_runs
from optbench.commands import plot
from optbench.common.errors import UserError
from optbench.datasets import loaders
from optbench.formats import job_list
from optbench.formats.groups import config_folder
from optbench.formats.run import COLUMNS, read_sealed, write_sealed
from optbench.formats.study import figure_of, manifests_of
from optbench.report import claim_files, page, repeat_command, verdict_files
from optbench.report.sections import runs
from optbench.runner import run as experiment
from optbench.runs import checkpoints
from scripts.reliability.damage import BYTES, PLACES, Damage
from scripts.reliability.sections import rows_of_other_seeds, write_section

READ_SECONDS = 60  # for one damaged file
TINY = ["data.subset=60", "model.hidden=[4]", "log.steps=1", "num_threads=1", "quiet=true"]
SWEEP = [
    "-m", "name=sweep", "hydra/launcher=basic", "optimizer=sgd,adam", "seed=0,1", "epochs=2",
    "batch_size=16", "diagnostics=layers",
]  # fmt: skip
STUDY = [
    "hydra/sweeper=tuned", "name=study", "hydra/launcher=basic", "optimizer=sgd,adam",
    "tuning.trials=2", "seeds=2", "epochs=1", "log.eval_epochs=1",
]  # fmt: skip
CLAIM = {
    "text": "Adam is faster.",
    "checks": [
        {
            "value": "train_loss",
            "at": "last",
            "lower": {"optimizer.name": "adam"},
            "than": {"optimizer.name": "sgd"},
        }
    ],
}
RESUMED = ["epochs=4", "batch_size=16", "optimizer=adam"]
LABELS = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]


class TimeUp(BaseException):
    """An exception: a reader took too long."""


class Wrong(Exception):
    """An exception: a reader silently gave something else than was written."""


class Fuzz:
    """A folder of results whose files are damaged, with a count of the outcomes."""

    def __init__(self, scratch: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.scratch = scratch
        self.counts: Counter[tuple[str, str, str]] = Counter()  # file, damage, outcome
        self.findings: dict[str, list[str]] = {}
        self.results = scratch / "results"

    def make(self) -> None:
        """Make a sweep with a claim, a tuned study, an interrupted run, and data."""
        environment = os.environ | {"OPTBENCH_RESULTS": str(self.results), "OMP_NUM_THREADS": "1"}
        for words in (SWEEP, STUDY):
            command = [sys.executable, "-m", "optbench", *words, *TINY]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
        write_sealed(self.results / "sweep" / job_list.CLAIM_FILE, CLAIM)
        self.whole = {rows: by_run(read_runs(self.results, rows=rows)) for rows in COLUMNS}
        self.figures = {p: read_sealed(p) for p in self.results.rglob("*.json")}
        lists = self.results.rglob(job_list.JOBS_FILE)
        self.planned = {p: job_list.of_sweep(p.parent) for p in lists}
        (done_run,) = self.run(self.scratch / "done").glob("runs/*")
        self.resumed = (done_run / "epochs.csv").read_text(), (done_run / "steps.csv").read_text()
        self.stopped = self.scratch / "stopped"
        self.run(self.stopped, after=7)
        checkpoint = next(self.stopped.rglob(checkpoints.CHECKPOINT_FILE))
        self.state = torch.load(checkpoint, weights_only=True)
        self.data = self.scratch / "data"
        make_data(self.data)
        self.raw = loaders.kmnist(self.data, download=False)

    def run(self, folder: Path, after: int | None = None) -> Path:
        """Train a run into the folder, or its rest. after: the steps before a stop."""
        words = [*TINY, *RESUMED, f"results_dir={folder}"]
        config = configuration(*words)
        if after is None:
            outcome = experiment.run(config, folder / "runs")
            if outcome.status != "completed":
                raise Wrong(f"the run ended as {outcome.status}")
        else:
            calls = iter(range(1, 10**6))
            planned = experiment.plan(config, folder / "runs")
            experiment.complete(planned, lambda update: None, lambda: next(calls) >= after)
        return folder

    def once(self) -> None:
        """Damage a file and read it."""
        kind = self.rng.choices(("results", "run", "data"), (12, 2, 2))[0]
        roots = {"results": self.results, "run": self.stopped, "data": self.data}
        suffixes = (".json", ".jsonl", ".csv", ".pt", "")
        made = ("summary", "verdict", "claim.csv", "tuning", "time_to", "benchmark", "ranks")
        files = sorted(
            path
            for path in roots[kind].rglob("*")
            if path.is_file()
            and (path.suffix in suffixes or path.suffix == ".gz")
            and not path.name.startswith(made)
            and ".lock" not in str(path)
        )
        copy = None
        if kind == "run":  # reading resumes the run, so each time needs a copy
            copy = self.scratch / "copy"
            shutil.copytree(self.stopped, copy)
            files = [copy / path.relative_to(self.stopped) for path in files]
        path = self.rng.choice(files)
        damage = Damage(self.rng, path, files, self.rng.choice([*BYTES, *BYTES, *PLACES]))
        readers = {
            "results": self.rng.choices((self.tables, self.pages), (14, 1))[0],
            "run": self.go_on,
            "data": self.load,
        }
        signal.alarm(READ_SECONDS)
        try:
            outcome = readers[kind](damage)
        except (Exception, TimeUp) as error:
            outcome = "FINDING"
            self.found(error, damage)
        finally:
            signal.alarm(0)
            if copy:
                shutil.rmtree(copy)
            else:
                damage.undo()
        name = path.name if kind != "data" else f"dataset: {path.name.split('-', 1)[1]}"
        self.counts[name, damage.how, outcome] += 1

    def tables(self, damage: Damage) -> str:
        """Read the tables of all runs: each as written, or left out and named."""
        outcome = "read"
        for rows in COLUMNS:
            try:
                table = read_runs(self.results, rows=rows)
            except UserError:
                outcome = "refused"
                continue
            # For a missing or foreign record, the CSV file beside it is named.
            named = [p for p in table.attrs["problems"] if str(damage.path.parent) in p]
            if damage.path.name == "run.json" or damage.path.name == f"{rows}.csv":
                outcome = "left out" if named else outcome
            found = by_run(table)
            # A record without checksum may say anything about itself, but not about the curves.
            meant = damage.how == "other values" and damage.path.name == "run.json"
            for run_id, columns in found.items():
                before = self.whole[rows].get(run_id)
                if meant:
                    own, *wholes = (
                        {name: part.get(name) for name in COLUMNS[rows]}
                        for part in (columns, *self.whole[rows].values())
                    )
                    if own not in wholes:
                        raise Wrong(f"other numbers in {rows}.csv of {run_id}")
                elif before is None:
                    raise Wrong(f"a run {run_id} that nobody made")
                elif columns != before:
                    raise Wrong(f"other numbers in {rows}.csv of {run_id}")
            if len(found) < len(self.whole[rows]) and not named:
                raise Wrong(f"{rows}.csv: a run is gone, and {damage.path.name} is not named")
        records = RunFiles([self.results]).records
        for _, record in records:
            repeat_command.command(record["config"], config_folder())
        runs.machines(records)
        lists = [job_list.read_or_say(p.parent) for p in self.results.rglob(job_list.JOBS_FILE)]
        runs.failed_jobs([found for found in lists if found is not None], records)
        study = self.results / "study"
        for path, planned in self.planned.items():
            try:
                found_jobs = job_list.of_sweep(path.parent)
                job_list.failed(path.parent)
            except (OSError, ValueError):
                outcome = "refused" if path == damage.path else outcome
                continue
            if path != damage.path and found_jobs != planned:
                raise Wrong(f"{path} has other jobs")
        for name, read in {
            "study.json": lambda: manifests_of([study], pd.DataFrame()),
            "figure.json": lambda: [figure_of([self.results / "sweep"])],
        }.items():
            try:
                found_json = read()
            except UserError:
                outcome = "refused"
                continue
            before = self.figures[(study if "study" in name else self.results / "sweep") / name]
            if damage.how != "other values" and damage.path.name == name:
                gone = damage.how in ("gone", "link to nothing", "link to itself")
                if not gone and any(one != before for one in found_json):
                    raise Wrong(f"{name} has other content")
        return outcome

    def pages(self, damage: Damage) -> str:
        """Call figures, report, verdict and claim: words are allowed, a traceback is not."""
        out, outcome = self.scratch / "out", "read"
        readers: list[Callable[[], object]] = [
            lambda: plot.draw_all([self.results / "sweep"], out, plot.Options(formats=["svg"])),
            lambda: plot.draw_all([self.results / "study"], out, plot.Options(formats=["svg"])),
            lambda: page.write([self.results / "sweep"], out / "report.html"),
            lambda: page.write([self.results / "study"], out / "report.html"),
            lambda: verdict_files.write(self.results / "study"),
            lambda: claim_files.write(self.results / "sweep"),
        ]
        sweep = damage.path.is_relative_to(self.results / "sweep")
        for read in self.rng.sample([readers[i] for i in ((0, 2, 5) if sweep else (1, 3, 4))], 1):
            try:
                read()
            except UserError:
                outcome = "refused"
        shutil.rmtree(out, ignore_errors=True)
        return outcome

    def go_on(self, damage: Damage) -> str:
        """Resume or restart an interrupted run; its rows must equal the undisturbed run's."""
        folder = self.scratch / "copy"
        words = io.StringIO()
        with redirect_stderr(words):
            try:
                self.run(folder)
            except UserError:
                return "refused"
        ends = []
        for path in folder.glob("runs/*/run.json"):
            try:
                record = read_sealed(path)
            except (OSError, ValueError):
                continue
            if record.get("status") == "completed":
                ends.append(path.parent)
        (run,) = ends
        found = (run / "epochs.csv").read_text(), (run / "steps.csv").read_text()
        for now, before in zip(found, self.resumed, strict=True):
            if untimed(now) != untimed(before):
                raise Wrong("the run that went on has other rows")
        return "restarted" if "restarts" in words.getvalue() else "resumed"

    def load(self, damage: Damage) -> str:
        """Load the data: unchanged, or refused. A digest checks KMNIST without checksums."""
        try:
            raw = loaders.kmnist(self.data, download=False)
        except UserError as error:
            if damage.path.name.removesuffix(".gz") not in str(error):
                raise Wrong(f"the message does not name {damage.path}: {error}") from error
            return "refused"
        if all(torch.equal(a, b) for a, b in zip(raw, self.raw, strict=True)):
            return "read"
        if len(raw.train_y) != len(raw.train_x):
            raise Wrong("labels and images that do not belong together")
        return "read as other data, under another digest"

    def found(self, error: BaseException, damage: Damage) -> None:
        """Keep a finding under its exception and place."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "optbench/" in f.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        text = " ".join(str(error).split())[:200]
        name = f"{type(error).__name__} at {place}"
        size = len(damage.after or b"")
        line = f"{damage.path.relative_to(self.scratch)}, {damage.how} ({size} bytes): {text}"
        self.findings.setdefault(name, []).append(line)
        if damage.how == "other values" and damage.after and damage.path.suffix == ".json":
            old, new = (json.dumps(json.loads(t), indent=1).splitlines()
                        for t in (damage.before, damage.after))  # fmt: skip
            changed = [f"{a} -> {b}" for a, b in zip(old, new, strict=False) if a != b][:2]
            self.findings[name][-1] += f" [{'; '.join(changed)[:200]}]"


Told = dict[str, object]  # by column: a run's one value, or the bytes of its rows


def by_run(table: pd.DataFrame) -> dict[str, Told]:
    """Return what the table says of each run, by identity and phase, without its place.

    A run that is both the tuned and the default setting of its study is there in both phases.
    """
    phases = table["phase"].astype(str) if "phase" in table else ""
    run_ids = (table["run_id"].astype(str) + " " + phases).to_numpy()
    starts = [0, *np.flatnonzero(run_ids[1:] != run_ids[:-1]) + 1, len(run_ids)]
    found: dict[str, Told] = {run_ids[start]: {} for start in starts[:-1]}
    for name in table.columns.drop("run"):
        column = table[name]
        one = isinstance(column.dtype, pd.CategoricalDtype)
        values = column.cat.codes.to_numpy() if one else column.to_numpy()
        words = list(map(repr, column.cat.categories)) if one else []
        for start, end in pairwise(starts):
            told: object = words[values[start]] if one and values[start] >= 0 else None
            if not one:
                own = values[start:end]
                told = repr(list(own)) if own.dtype == object else own.tobytes()
                told = None if own.dtype.kind == "f" and np.isnan(own).all() else told
            if told not in (None, "nan"):  # a key that the run does not have
                found[run_ids[start]][name] = told
    return found


def untimed(text: str) -> list[str]:
    """Return the rows of a CSV without the columns of seconds, which come last."""
    rows = [line.split(",") for line in text.splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if "seconds" not in name]
    return [",".join(row[i] for i in kept) for row in rows]


def make_data(root: Path) -> None:
    """Make a small KMNIST of raw and packed files."""
    generator = np.random.default_rng(0)
    folder = root / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    for index, name in enumerate(loaders.IDX_FILES):
        count = 20 if index < 2 else 10
        shape = (count,) if index % 2 else (count, 8, 8)
        head = bytes((0, 0, 8, len(shape))) + b"".join(n.to_bytes(4, "big") for n in shape)
        body = generator.integers(0, 10 if index % 2 else 256, shape, dtype=np.uint8).tobytes()
        if index < 2:
            (folder / name).write_bytes(head + body)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(head + body, mtime=0))


def up(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeUp(f"no end after {READ_SECONDS} s")


def write(seed: int, files: int, fuzz: Fuzz) -> None:
    """Write the figures of this seed, beside those of other seeds."""
    own = [
        {"seed": seed, "file": file, "damage": how, "outcome": outcome, "times": count}
        for (file, how, outcome), count in sorted(fuzz.counts.items())
    ]
    rows: list[Mapping[str, object]] = [*rows_of_other_seeds("files", seed), *own]
    sums: Counter[str] = Counter()
    for row in rows:
        sums[str(row["outcome"])] += int(str(row["times"]))
    seeds = sorted({int(str(row["seed"])) for row in rows})
    parts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(sums.items()))
    write_section(
        "files",
        "Files damaged",
        command=f"fuzz_files --files {files} --seed SEED --write",
        text=f"{sum(sums.values())} files of a sweep, a tuned study, an interrupted run and a "
        f"dataset damaged, one at a time (seeds {', '.join(map(str, seeds))}), and read again: "
        f"{parts}. Read means: the numbers that were written, because the reader has no use for "
        "that file, or because the damage left its content as it was. KMNIST's files have no "
        "published checksums of the unpacked bytes: changed pixels make another dataset, and its "
        "digest another problem. Findings (a traceback, other numbers, a run that is gone without "
        f"a word): {sums['FINDING']}.",
        rows=sorted(rows, key=lambda row: int(str(row["seed"]))),
    )


def main() -> int:
    """Damage and read files; return exit status 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=3000, help="files to be damaged, one by one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--write", action="store_true", help="the figures into results/reliability/files.md"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, up)
    with tempfile.TemporaryDirectory() as scratch:
        fuzz = Fuzz(Path(scratch), asked.seed)
        fuzz.make()
        for _ in range(asked.files):
            with redirect_stdout(io.StringIO()):
                fuzz.once()
    for name, told in sorted(fuzz.findings.items()):
        print(f"FINDING ({len(told)} times) {name}")
        for line in told[:3]:
            print(f"    {line}")
    outcomes = Counter[str]()
    for (_, _, outcome), count in fuzz.counts.items():
        outcomes[outcome] += count
    parts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    print(f"{asked.files} files damaged: {parts}")
    if asked.write:
        write(asked.seed, asked.files, fuzz)
    return 1 if fuzz.findings else 0


if __name__ == "__main__":
    sys.exit(main())

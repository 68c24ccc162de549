"""Kill runs, workers and sweeps at random moments, repeat, and compare results.

The same command is repeated after SIGKILL until the run is done. Each run must then have the rows
and the final metrics of an undisturbed run: each row once, in order, none torn, bit for bit except
for times.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from composed import configuration

from optbench.runner import run as experiment
from scripts import ROOT
from scripts.reliability.sections import write_section

QUICK = [
    "data.subset=600", "model.hidden=[32]", "epochs=6", "log.steps=1", "num_threads=1",
    "quiet=true", "checkpoint_seconds=0", "model.batch_norm=true", "model.dropout=0.2",
]  # fmt: skip
RUNS = (
    ["optimizer=adam"],
    ["optimizer=momentum", "schedule=cosine", "diagnostics=layers"],
    ["optimizer=muon"],
    ["optimizer=adagrad", "shuffle=fixed_order"],
    ["optimizer=rmsprop", "model=cnn", "model.channels=[4]", "~model.hidden", "+model.hidden=[8]"],
)
SWEEP = ["optimizer=adam,momentum,rmsprop", "seed=0,1", "epochs=12", "device=cpu"]
LAUNCHER = ["hydra/launcher=workers", "hydra.launcher.workers=2"]
MAX_KILLS = 8  # of one run or sweep, which may then end in peace
SECTIONS = {
    "run": ("kills", "Killed: single runs"),
    "workers": ("sweep-kills", "Killed: sweeps in several processes"),
}
Case = dict[str, Any]


def main() -> int:
    """Kill, repeat and compare; return exit status 1 if a result differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="of single runs")
    parser.add_argument("--sweep-kills", type=int, default=0, help="of a sweep's processes")
    parser.add_argument("--minutes", type=float, default=60, help="then no other run is begun")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="into results/reliability")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(asked.seed)
    cases: list[Case] = []
    deadline = time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory() as scratch:
        for kind, killed, kills in (
            ("run", kill_runs, asked.kills),
            ("workers", kill_sweeps, asked.sweep_kills),
        ):
            for case in killed(kind, kills, rng, Path(scratch, kind)) if kills else ():
                cases.append({"kind": kind} | case)
                print(" ".join(f"{key}={value}" for key, value in cases[-1].items()), flush=True)
                if time.monotonic() > deadline:
                    break
    for kind, (key, title) in SECTIONS.items():
        mine = [case for case in cases if case["kind"] == kind]
        if not mine:
            continue
        text = summary(kind, mine)
        print(text)
        if asked.write:
            words = {"kills": 0, key: sum(case["kills"] for case in mine), "seed": asked.seed}
            options = " ".join(f"--{name} {value}" for name, value in words.items())
            write_section(
                f"kills-{kind}", title, text=text, rows=mine,
                command=f"kill_runs {options} --write",
            )  # fmt: skip
    return 0 if all(case["result"] == "equal" for case in cases) else 1


def summary(kind: str, cases: list[Case]) -> str:
    """Return what was killed and what came of the kills, in words."""
    what = {"run": "single runs", "workers": "sweeps of 6 runs in two worker processes"}[kind]
    kills = sum(case["kills"] for case in cases)
    parents = sum(case["of the parent"] for case in cases)
    whom = "" if kind == "run" else f" ({parents} of the parent, {kills - parents} of a worker)"
    equal = sum(case["result"] == "equal" for case in cases)
    return (
        f"{len(cases)} {what}, {kills} SIGKILLs at random moments{whom}, the same command again "
        f"after each: {equal} ended as undisturbed ones (bit for bit, apart from times; each row "
        f"once, in order), {len(cases) - equal} did not."
    )


def kill_runs(kind: str, kills: int, rng: random.Random, scratch: Path) -> Iterator[Case]:
    """Kill single runs up to `MAX_KILLS` times each; yield how each ended."""
    expected = []
    for number, words in enumerate(RUNS):
        begun = time.monotonic()
        start(words, scratch / f"whole{number}")()
        expected.append((contents(scratch / f"whole{number}"), time.monotonic() - begun))
    done = runs = 0
    folder = scratch / "killed"
    while done < kills:
        number, here = runs % len(RUNS), 0
        whole, seconds = expected[number]
        while True:
            wait = start(RUNS[number], folder)
            if done < kills and here < MAX_KILLS and wait.kill_after(rng.uniform(0, seconds)):
                done, here = done + 1, here + 1
                continue
            wait()
            break
        result = compare(contents(folder), whole)
        shutil.rmtree(folder)
        runs += 1
        yield {
            "case": " ".join(RUNS[number]), "kills": here, "of the parent": here, "calls": here + 1,
            "result": result,
        }  # fmt: skip


def kill_sweeps(kind: str, kills: int, rng: random.Random, scratch: Path) -> Iterator[Case]:
    """Kill a worker or the parent of sweeps; yield how each sweep ended."""
    words = [*SWEEP, *LAUNCHER]
    begun = time.monotonic()
    sweep(words, scratch / "whole").wait()
    seconds = time.monotonic() - begun
    whole = contents(scratch / "whole")
    folder, done = scratch / "killed", 0
    while done < kills:
        here = parents = calls = 0
        status = None
        while status != 0 and calls < MAX_KILLS + 5:
            process = sweep(words, folder)
            calls += 1
            if done < kills and here < MAX_KILLS:
                # Starting takes most of the time, so half of the kills wait for the first rows.
                time.sleep(rng.uniform(0.2, 0.9) * seconds)
                of_parent = rng.random() < 0.5
                victims = [process.pid] if of_parent else workers(process.pid)
                while not victims and process.poll() is None:  # no worker has started yet
                    time.sleep(0.02)
                    victims = workers(process.pid)
                for victim in rng.sample(victims, 1) if process.poll() is None else ():
                    os.kill(victim, signal.SIGKILL)
                    done, here, parents = done + 1, here + 1, parents + (victim == process.pid)
            status = process.wait()
        result = compare(contents(folder), whole)
        if status != 0:
            result = f"exit status {status} after {calls} calls"
        shutil.rmtree(folder)
        yield {
            "case": " ".join(SWEEP), "kills": here, "of the parent": parents, "calls": calls,
            "result": result,
        }  # fmt: skip


class start:
    """A run in a child process. Calling the object waits for the end."""

    def __init__(self, case: list[str], folder: Path) -> None:
        config = configuration(*QUICK, *case, f"results_dir={folder}")
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                experiment.run(config, folder / "runs")
            finally:
                os._exit(0)

    def __call__(self) -> None:
        os.waitpid(self.pid, 0)

    def kill_after(self, seconds: float) -> bool:
        """Kill the run after a delay; return whether the kill came before the end."""
        time.sleep(seconds)
        if os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = os.fork()  # a process whose end can be awaited
            if self.pid == 0:
                os._exit(0)
            return False
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return True


def sweep(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start the command of a sweep."""
    command = [sys.executable, "-m", "optbench", "-m", *QUICK, *words, f"results_dir={folder}"]
    quiet = subprocess.DEVNULL
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    }
    return subprocess.Popen([*command, "name=x"], stdout=quiet, stderr=quiet, env=env)


def workers(parent: int) -> list[int]:
    """Return the processes that the parent's fork server has forked."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue  # the process has ended meanwhile
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    return [pid for child in children.get(parent, []) for pid in children.get(child, [])]


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    """Return finished runs' CSV files without times, and records, by identity."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/*/run.json")):
        record = json.loads(path.read_text())
        if record["status"] != "completed":
            continue
        assert record["run_id"] not in found, "the run was finished twice"
        run = found[record["run_id"]] = {}
        run["rows"] = record["summary"]["rows"]
        run["left"] = sorted(p.name for p in path.parent.iterdir())
        for file in path.parent.glob("*.csv"):
            with file.open(newline="") as lines:
                run[file.name] = [
                    {k: v for k, v in row.items() if "seconds" not in k}
                    for row in csv.DictReader(lines, strict=True)
                ]
    return found


def compare(found: Any, whole: Any) -> str:
    """Return the first difference, or "equal"."""
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(whole, dict) and isinstance(found, dict) and found.keys() == whole.keys():
        pairs = [(name, found[name], whole[name]) for name in whole]
    elif isinstance(whole, list) and isinstance(found, list) and len(found) == len(whole):
        pairs = list(zip(range(len(whole)), found, whole, strict=True))
    elif found != whole:
        return f"{found!r} instead of {whole!r}"
    for name, a, b in pairs:
        if (text := compare(a, b)) != "equal":
            return f"{name}: {text}"
    return "equal"


if __name__ == "__main__":
    sys.exit(main())

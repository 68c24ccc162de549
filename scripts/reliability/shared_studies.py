"""Disturb studies that several workers share, at random moments, and compare their results.

A tuned study is worked on in three ways: by two `optbench work`, by two tasks of a real Slurm
(scripts/slurm), by Ray on two nodes of this machine. Then something fails. After one more call the
study must be whole: each run done once, and each row as in an undisturbed study, times aside.

With --undisturbed nothing fails, and the three ways are compared with one machine alone: with
--size 7x20x1x8 --full, on mnist_5k as it is.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from scripts import ROOT
from scripts.reliability.sections import write_section

EXACT = ["device=cpu", "engine=plain", "num_threads=1", "deterministic=true"]
TINY = ["data.subset=100", "model.hidden=[8]", "epochs=4", "log.steps=1", "checkpoint_seconds=0"]
STALE_SECONDS = 4.0
STALE = ["--stale", f"{STALE_SECONDS:g}"]
DISK_MEGABYTES = 40
FOLDER = "study"
# of each way: what fails
FAULTS = {
    "work": ("worker killed", "worker paused", "all workers killed", "disk full", "clock +1 h"),
    "slurm": ("task killed", "task preempted", "controller restarted", "command killed"),
    "ray": ("node killed", "task killed", "command killed"),
}
# without the figures, which take longer than such runs
PROGRAM = """
from optbench import __main__
from optbench.sweeps import callback
callback.finish = lambda *_, **__: None
__main__.main()
"""
LATE_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += 3600;
    return done;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""


class Case(NamedTuple):
    """A disturbed study, and what came of it."""

    seed: int
    way: str
    fault: str
    second: float  # after the first run had begun
    done: int  # runs that were finished when it happened
    calls: int  # further calls until the study was whole
    result: str


def main() -> int:
    """Disturb, call again and compare; return exit status 1 if a result differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--ways", default=",".join(FAULTS), help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--size", default="3x4x3", help="optimizers x trials x searches [x seeds]")
    parser.add_argument("--undisturbed", action="store_true", help="compare the ways alone")
    parser.add_argument("--full", action="store_true", help="the whole of mnist_5k, 10 epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600, help="then no other one is begun")
    parser.add_argument("--write", action="store_true", help="into results/reliability")
    asked = parser.parse_args()
    ways = asked.ways.split(",")
    rng, cases = random.Random(asked.seed), list[Case]()
    deadline = time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory() as scratch:
        words = study(asked.size, full=asked.full)
        place = Path(scratch, "alone")
        place.mkdir()
        begun = time.monotonic()
        status = start(place, ["-m", *words, "hydra.launcher.workers=2"]).wait()
        assert status == 0, "the undisturbed study failed"
        print(f"undisturbed: {time.monotonic() - begun:.0f} s", flush=True)
        whole = contents(place / FOLDER)
        if asked.undisturbed:
            results = compare_ways(ways, words, Path(scratch), whole)
            if asked.write:
                write_ways(results, len(whole), asked)
            return 0 if all(row["result"] == "equal" for row in results) else 1
        for number in range(asked.faults):
            if time.monotonic() > deadline:
                break
            way = ways[number % len(ways)]
            fault = FAULTS[way][number // len(ways) % len(FAULTS[way])]
            here = Path(scratch, str(number))
            here.mkdir()
            case = disturb(way, fault, words, here, rng, whole, asked.seed)
            cases.append(case)
            print(" ".join(f"{key}={value}" for key, value in case._asdict().items()), flush=True)
    text = summary(cases, len(whole))
    print(text)
    if asked.write and cases:
        words = [f"--faults {len(cases)}", f"--ways {asked.ways}", f"--size {asked.size}"]
        write_section(
            "shared-studies", "Shared studies, disturbed", text=text,
            rows=[case._asdict() for case in cases],
            command=f"shared_studies {' '.join(words)} --seed {asked.seed} --write",
        )  # fmt: skip
    return 0 if all(case.result == "equal" for case in cases) else 1


def summary(cases: list[Case], runs: int) -> str:
    """Return what was done and what came of it, in words and as a table."""
    lines = ["| way | fault | studies | whole after one more call | equal |", "| --- " * 5 + "|"]
    for way, faults in FAULTS.items():
        for fault in faults:
            mine = [case for case in cases if (case.way, case.fault) == (way, fault)]
            if mine:
                once = sum(case.calls <= 1 for case in mine)
                equal = sum(case.result == "equal" for case in mine)
                lines.append(f"| {way} | {fault} | {len(mine)} | {once} | {equal} |")
    equal = sum(case.result == "equal" for case in cases)
    return (
        f"{len(cases)} tuned studies of {runs} runs, each disturbed once at a random moment: "
        f"{equal} ended as the undisturbed one (each run done once; bit for bit, times aside), "
        f"{len(cases) - equal} did not. Workers count as gone after {STALE_SECONDS:g} s.\n\n"
    ) + "\n".join(lines)


def write_ways(results: list[dict[str, str]], runs: int, asked: argparse.Namespace) -> None:
    """Write how the ways compare with one machine alone."""
    equal = sum(row["result"] == "equal" for row in results)
    text = (
        f"A tuned study of {runs} runs ({asked.size}: optimizers, trials, searches, seeds"
        f"{'; mnist_5k as it is' if asked.full else ''}), on one machine alone and in "
        f"{len(results)} ways. {equal} of {len(results)} gave the same bytes in every table, "
        f"times aside, and the same choices."
    )
    full = " --full" if asked.full else ""
    write_section(
        "shared-ways", "Shared studies, undisturbed", text=text, rows=results,
        command=f"shared_studies --undisturbed --size {asked.size}{full} --write",
    )  # fmt: skip


def compare_ways(
    ways: list[str], words: list[str], scratch: Path, whole: Any
) -> list[dict[str, str]]:
    """Let each way do the study without a disturbance; return a row of each, with its result."""
    results = []
    for way in ways:
        place = scratch / way
        place.mkdir()
        begun = time.monotonic()
        with SCENES[way](place) as scene:
            scene.begin(words, "")
            scene.end()
        result = compare(contents(place / FOLDER), whole)
        if result == "equal" and choices(place / FOLDER) != choices(scratch / "alone" / FOLDER):
            result = "the choices differ"
        seconds = f"{time.monotonic() - begun:.0f}"
        results.append({"way": way, "runs": str(len(whole)), "seconds": seconds, "result": result})
        print(f"{way}: {len(whole)} runs in {seconds} s: {result}", flush=True)
    return results


def choices(folder: Path) -> list[Any]:
    """Return what a study's manifest says of its trials and its choices."""
    manifest = json.loads((folder / "study.json").read_text())
    keys = ("optimizer", "problem", "repeat", "trials", "chosen", "score", "setting")
    return [{key: entry[key] for key in keys} for entry in manifest["contenders"]]


def study(size: str, *, full: bool = False) -> list[str]:
    """Return the words of a tuned study of "OPTIMIZERSxTRIALSxSEARCHES[xSEEDS]"."""
    optimizers, trials, repeats, *seeds = map(int, size.split("x"))
    names = ("sgd", "momentum", "adam", "rmsprop", "adagrad", "nesterov", "adamw")[:optimizers]
    tuning = [f"optimizer={','.join(names)}", f"tuning.trials={trials}"]
    tuning += [f"tuning.repeats={repeats}", "tuning.widenings=1", "hydra/sweeper=tuned"]
    tuning += [f"seeds={number}" for number in seeds]
    return [*EXACT, *([] if full else TINY), *tuning, "results_dir=.", f"name={FOLDER}"]


def start(
    place: Path, words: list[str], env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start optbench in a folder, in a process group of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    given = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | (env or {})
    log = (place / "log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], cwd=place, env=given, stdout=log, stderr=log,
        start_new_session=True,
    )  # fmt: skip


def disturb(
    way: str, fault: str, words: list[str], place: Path, rng: random.Random, whole: Any, seed: int
) -> Case:
    """Let a study be disturbed, call it once more, and compare its results."""
    with ExitFolder(place, small=fault == "disk full"), SCENES[way](place) as scene:
        scene.begin(words, fault)
        await_first(place / FOLDER, scene)
        second = rng.uniform(0, 12)
        time.sleep(second)
        done = len(contents(place / FOLDER))
        scene.fail(fault)
        scene.end()
        calls = 0
        result = compare(contents(place / FOLDER), whole)
        while result != "equal" and calls < 3:
            calls += 1
            start(place, ["work", FOLDER, *STALE]).wait()
            result = compare(contents(place / FOLDER), whole)
    return Case(seed, way, fault, round(second, 1), done, calls, result)


class ExitFolder:
    """A folder for a study, on a small disk of its own if one is to be full."""

    def __init__(self, place: Path, *, small: bool) -> None:
        self.place, self.small = place, small

    def __enter__(self) -> None:
        if self.small:
            size = f"size={DISK_MEGABYTES}m"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", self.place], check=True)

    def __exit__(self, *_: object) -> None:
        if self.small:
            subprocess.run(["umount", "-l", self.place], check=True)


class Scene:
    """A study that is worked on in one way."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.processes: list[subprocess.Popen[bytes]] = []

    def begin(self, words: list[str], fault: str) -> None:
        """Start the study."""
        raise NotImplementedError

    def fail(self, fault: str) -> None:
        """Let something fail."""
        raise NotImplementedError

    def end(self) -> None:
        """Wait until all processes have ended."""
        for process in self.processes:
            process.wait()

    def workers(self) -> list[int]:
        """Return the processes of `optbench work` on this study."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().decode("utf-8", "replace").split("\0")
                here = os.readlink(path.parent / "cwd")  # noqa: PTH115
                if "work" in words and "--stale" in words and here == str(self.place):
                    found.append(int(path.parent.name))
        return sorted(found)


class Work(Scene):
    """Two workers, started by hand."""

    def begin(self, words: list[str], fault: str) -> None:
        """Start a worker with the study's words, and one with its folder."""
        late = {}
        if fault == "clock +1 h":
            late = {"LD_PRELOAD": str(late_clock(self.place))}
        self.processes.append(start(self.place, ["work", *words, *STALE, "--workers", "1"]))
        while not (self.place / FOLDER / "jobs.jsonl").exists():
            time.sleep(0.2)
        self.processes.append(start(self.place, ["work", FOLDER, *STALE, "--workers", "1"], late))

    def fail(self, fault: str) -> None:
        """Kill or pause workers, or fill the disk."""
        first, second = self.processes
        if fault == "worker killed":
            kill(first.pid, signal.SIGKILL)
        elif fault == "all workers killed":
            kill(first.pid, signal.SIGKILL)
            kill(second.pid, signal.SIGKILL)
        elif fault == "worker paused":
            kill(first.pid, signal.SIGSTOP)
            time.sleep(2.5 * STALE_SECONDS)
            kill(first.pid, signal.SIGCONT)
        elif fault == "disk full":
            with suppress(OSError), (self.place / "ballast").open("wb") as file:
                while True:
                    file.write(b"\0" * 2**20)
            time.sleep(5)
            (self.place / "ballast").unlink()


def late_clock(place: Path) -> Path:
    """Return a library that lets a process read a clock which is an hour ahead."""
    source, library = place / "clock.c", place / "clock.so"
    source.write_text(LATE_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


class SlurmScene(Scene):
    """Two tasks of an array of a real Slurm."""

    def begin(self, words: list[str], fault: str) -> None:
        """Submit the study."""
        launcher = ["hydra/launcher=slurm", "hydra.launcher.jobs=2", "hydra.launcher.time=60m"]
        self.processes.append(start(self.place, ["-m", *words, *launcher]))

    def fail(self, fault: str) -> None:
        """Kill or preempt a task, or restart the controller."""
        (command,) = self.processes
        if fault == "task killed":
            os.kill(self.workers()[0], signal.SIGKILL)
        elif fault == "task preempted":
            tasks = subprocess.run(
                ["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True,
                check=True,
            ).stdout.split()  # fmt: skip
            subprocess.run(["scancel", "--signal=USR2", tasks[0]], check=True)
        elif fault == "controller restarted":
            pid = int((slurm_folder() / "slurmctld.pid").read_text())
            os.kill(pid, signal.SIGKILL)
            time.sleep(2)
            subprocess.run([ROOT / "scripts" / "slurm", "restart", slurm_folder()], check=True)
        elif fault == "command killed":
            kill(command.pid, signal.SIGKILL)

    def end(self) -> None:
        """Wait for the command, and for the tasks that it may have left."""
        super().end()
        while self.workers():
            time.sleep(0.5)


class RayScene(Scene):
    """Two nodes of Ray on this machine."""

    def begin(self, words: list[str], fault: str) -> None:
        """Start the study on the cluster."""
        launcher = ["hydra/launcher=ray", "hydra.launcher.jobs=2"]
        address = f"hydra.launcher.address='{self.address}'"
        self.processes.append(start(self.place, ["-m", *words, *launcher, address]))

    address = ""
    node = 0  # the process of the second node

    def fail(self, fault: str) -> None:
        """Kill a node, a worker or the command."""
        (command,) = self.processes
        if fault == "node killed":
            os.kill(self.node, signal.SIGKILL)
        elif fault == "task killed":
            os.kill(self.workers()[0], signal.SIGKILL)
        elif fault == "command killed":
            kill(command.pid, signal.SIGKILL)

    def end(self) -> None:
        """Wait for the command, and for the workers that it may have left."""
        super().end()
        while self.workers():
            time.sleep(0.5)


def slurm_folder() -> Path:
    """Return the folder of the Slurm that this script has started."""
    return Path(os.environ["SLURM_CONF"]).parent


@contextmanager
def slurm_scene(place: Path) -> Iterator[Scene]:
    """Yield a study on a Slurm that is started for it."""
    folder = Path("/tmp") / f"optbench-slurm-{os.getpid()}"
    script = ROOT / "scripts" / "slurm"
    subprocess.run([script, "start", folder], check=True, stdout=subprocess.DEVNULL)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield SlurmScene(place)
    finally:
        subprocess.run([script, "stop", folder], check=False)


@contextmanager
def ray_scene(place: Path) -> Iterator[Scene]:
    """Yield a study on a Ray cluster of two nodes that is started for it."""
    scene = RayScene(place)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # or the nodes would need a common token
    program = [sys.executable, "-m", "ray.scripts.scripts"]
    port = random.randrange(20000, 30000)
    common = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000"]
    before = raylets()
    quiet: Any = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = [*program, "start", "--head", f"--port={port}", "--include-dashboard=false"]
    subprocess.run([*head, "--node-ip-address=127.0.0.1", *common], **quiet)
    first = raylets()
    scene.address = f"127.0.0.1:{port}"
    subprocess.run([*program, "start", f"--address={scene.address}", *common], **quiet)
    (scene.node,) = raylets() - first
    try:
        yield scene
    finally:
        for pid in raylets() - before:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


@contextmanager
def work_scene(place: Path) -> Iterator[Scene]:
    """Yield a study that two workers share."""
    yield Work(place)


SCENES: dict[str, Callable[[Path], Any]] = {
    "work": work_scene, "slurm": slurm_scene, "ray": ray_scene,
}  # fmt: skip


def raylets() -> set[int]:
    """Return the processes of Ray's nodes on this machine."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if path.read_text().strip() == "raylet":
                found.add(int(path.parent.name))
    return found


def kill(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group, which may have ended."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def await_first(folder: Path, scene: Scene) -> None:
    """Wait until the first run has ended."""
    while not contents(folder):
        ended = [process.poll() for process in scene.processes]
        if all(status is not None for status in ended):
            raise SystemExit(f"the study ended with {ended}: {(folder.parent / 'log').read_text()}")
        time.sleep(0.2)


def contents(folder: Path) -> dict[str, Any]:
    """Return the rows of finished runs without times, by phase and identity."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/*/run.json")):
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if record["status"] != "completed":
            continue
        key = f"{path.parent.parent.name} {record['run_id']}"
        if key in found:
            found[f"{key} twice: {path.parent.name}"] = None
            continue
        run = found[key] = {}
        for file in sorted(path.parent.glob("*.csv")):
            with file.open(newline="") as lines:
                run[file.name] = [
                    {k: v for k, v in row.items() if "seconds" not in k}
                    for row in csv.DictReader(lines)
                ]
    return found


def compare(found: dict[str, Any], whole: dict[str, Any]) -> str:
    """Return the first difference, or "equal"."""
    if missing := whole.keys() - found.keys():
        return f"{len(missing)} runs are missing"
    if more := found.keys() - whole.keys():
        return f"too many: {sorted(more)[0]}"
    for key, run in whole.items():
        if found[key] != run:
            return f"{key} differs"
    return "equal"


if __name__ == "__main__":
    if shutil.which("mount") is None or os.getuid() != 0:
        print("a full disk and Slurm need root", file=sys.stderr)
    sys.exit(main())

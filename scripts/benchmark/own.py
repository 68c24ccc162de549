"""The parts of the benchmark that measure optbench alone.
They cover sweeps, memory, optimizers, and the growth of cost.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from scripts import ROOT
from scripts.benchmark.epochs import Worker
from scripts.tables import markdown


def sweep(asked: argparse.Namespace) -> list[str]:
    """Time study=comparison (21 runs) as one sweep, and its runs in fresh processes."""
    n = 1 if asked.quick else 5
    names = ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam"]
    seeds = ["0"] if asked.quick else ["0", "1", "2"]
    ways = {
        "one sweep": [["-m", "study=comparison", f"seed={','.join(seeds)}"]],
        "a process for each run": [
            [f"optimizer={name}", f"seed={seed}"] for seed in seeds for name in names
        ],
    }
    rows = []
    for _ in range(1 if asked.quick else 2):
        for way, calls in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                for words in calls:
                    call(*words, f"epochs={n}", folder=folder)
                rows.append({"way": way, "seconds": time.perf_counter() - start})
    table = pd.DataFrame(rows)
    table.to_csv(asked.out / "sweep.csv", index=False)
    best = table.groupby("way", sort=False)["seconds"].min()
    count = f"{len(names) * len(seeds)} runs of {n} epochs on mnist_5k"
    return [*markdown([{count: way, "seconds": f"{s:.1f}"} for way, s in best.items()]), ""]


def overhead(asked: argparse.Namespace) -> list[str]:
    """Time what a nearly empty run adds to a sweep, and how much of it is figures.

    The two evaluations of the default model alone take longer than all that the sweep adds.
    """
    few, many = (4, 12) if asked.quick else (20, 120)
    rows = []
    for _ in range(asked.rounds[-1]):
        for launcher in ("workers", "basic"):
            seconds = {}
            for runs in (few, many):
                with tempfile.TemporaryDirectory() as folder:
                    start = time.perf_counter()
                    call("-m", f"hydra/launcher={launcher}", "model=logreg",
                         f"seed=range({runs})", "steps=1", folder=folder)  # fmt: skip
                    seconds[runs] = time.perf_counter() - start
            each = (seconds[many] - seconds[few]) / (many - few)
            rows.append({"launcher": launcher, "few": seconds[few], "many": seconds[many],
                         "each": each})  # fmt: skip
    table = pd.DataFrame(rows)
    table.to_csv(asked.out / "overhead.csv", index=False)
    best = table.groupby("launcher", sort=False).min()
    return [
        *markdown(
            [
                {
                    "hydra/launcher": str(name),
                    f"{few} runs of one step, s": f"{row['few']:.1f}",
                    f"{many} runs, s": f"{row['many']:.1f}",
                    "each further run, ms": f"{row['each'] * 1000:.0f}",
                }
                for name, row in best.iterrows()
            ]
        ),
        "",
    ]


def memory(asked: argparse.Namespace) -> list[str]:
    """Measure optbench's peak memory, with all of a dataset and with little of it.

    All processes are summed, with each shared page counted once (proportional set size).
    """
    if not Path("/proc/self/smaps_rollup").exists():
        return ["Memory is read from /proc: left out on this system.", ""]
    name = "mnist_5k" if asked.quick or "OPTBENCH_DATA" not in os.environ else "mnist"
    ways = {"one run": ["seed=0"], "4 runs, 2 workers": ["-m", "seed=range(4)",
            "hydra/launcher=workers", "hydra.launcher.workers=2"]}  # fmt: skip
    rows = []
    for way, words in ways.items():
        peaks = {}
        for size in ("small", "all"):
            subset = ["data.subset=1000"] if size == "small" else []
            with tempfile.TemporaryDirectory() as folder:
                asked_for = [*words, f"dataset={name}", "steps=200", *subset]
                peaks[size] = peak(partial(call, *asked_for, folder=folder))
        rows.append({"way": way} | peaks | {"the dataset adds": peaks["all"] - peaks["small"]})
    pd.DataFrame(rows).to_csv(asked.out / "memory.csv", index=False)
    shown = [{k: v if k == "way" else f"{v:.0f} MiB" for k, v in row.items()} for row in rows]
    return [f"Dataset {name}; small: 1,000 of its images.", "", *markdown(shown), ""]


def peak(work: Callable[[], None], every: float = 0.02) -> float:
    """Return the peak MiB of the processes that `work` starts. every: in seconds."""
    most, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(every):
            most = max(most, sum(held(pid) for pid in descendants(os.getpid())))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return most


def descendants(pid: int) -> list[int]:
    """Return a process's children and all their descendants."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found + [deeper for child in found for deeper in descendants(child)]


def held(pid: int) -> float:
    """Return a process's MiB, shared pages divided by their users; 0 if it has ended."""
    with suppress(OSError):
        for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if row.startswith("Pss:"):
                return int(row.split()[1]) / 1024
    return 0.0


def call(*words: str, folder: str) -> None:
    """Run optbench in a separate process, with its results in `folder`."""
    subprocess.run(
        [sys.executable, "-m", "optbench", *words, "quiet=true", f"results_dir={folder}"],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
    )


def optimizers(asked: argparse.Namespace) -> list[str]:
    """Measure step time and state of each optimizer, beside plain SGD, on one MLP."""
    from optbench import models
    from optbench.common.errors import UserError
    from optbench.config.build import build as build_group
    from optbench.config.compose import compose_run
    from optbench.optimizers import build
    from optbench.training.step_cost import step_cost

    model = models.mlp((1, 28, 28), 10, hidden=[128] if asked.quick else [1000, 1000])
    files = sorted((ROOT / "conf" / "optimizer").glob("**/*.yaml"))
    names = [str(f.relative_to(ROOT / "conf" / "optimizer").with_suffix("")) for f in files]
    costs: dict[str, list[Any]] = {}
    left_out: dict[str, str] = {}
    for _ in range(asked.rounds[-1]):
        for name in names:
            try:
                config = compose_run([f"optimizer={name}"])["optimizer"]
                made = partial(_build, build, build_group("optimizer", config))
                cost = step_cost(made, model, steps=10)
                costs.setdefault(name, []).append(cost)
            except UserError as error:
                left_out[name] = str(error).splitlines()[0]
    sgd = min(cost.milliseconds for cost in costs["sgd"])
    rows = []
    for name, found in costs.items():
        times = [cost.milliseconds for cost in found]
        rows.append(
            {
                "optimizer": name,
                "ms a step": f"{min(times):.3f}",
                "slowest round": f"{max(times):.3f}",
                "times sgd": f"{min(times) / sgd:.1f}",
                "state, bytes a parameter": f"{found[0].bytes_per_parameter:.2f}",
            }
        )
    pd.DataFrame(rows).to_csv(asked.out / "optimizers.csv", index=False)
    notes = [f"- {name}: {why}" for name, why in left_out.items()]
    return [*markdown(rows), "", *(["Left out:", "", *notes, ""] if notes else [])]


def _build(build: Any, factory: Any, params: Any) -> Any:
    import torch

    holder = torch.nn.ParameterList(params)
    return build(factory, holder)


def growth(asked: argparse.Namespace, data: Path) -> list[str]:
    """Measure optbench's seconds per epoch by parameters, examples and runs."""
    widths = [64, 256] if asked.quick else [64, 128, 256, 512, 1024, 2048]
    total = len(np.load(data)["train_y"])
    rows: list[dict[str, Any]] = []
    worker = Worker("optbench")
    try:
        for _ in range(asked.rounds[-1]):
            for width in widths:
                n = 784 * width + width + width * 10 + 10
                answer = worker.ask(data=str(data), model=str(width), epochs=2, device="cpu")
                rows.append({"grows": "parameters", "count": n, "seconds": answer["seconds"][1]})
            for share in (8, 4, 2, 1):
                n = total // share
                answer = worker.ask(data=str(data), model="128", epochs=2, examples=n, device="cpu")
                rows.append({"grows": "examples", "count": n, "seconds": answer["seconds"][1]})
            for runs in (1, 2, 4, 8):
                start = time.perf_counter()
                for _ in range(runs):
                    worker.ask(data=str(data), model="128", epochs=1, device="cpu")
                seconds = time.perf_counter() - start
                rows.append({"grows": "runs, one after another", "count": runs, "seconds": seconds})
    finally:
        worker.close()
    table = pd.DataFrame(rows).groupby(["grows", "count"], sort=False)["seconds"].min()
    table.to_csv(asked.out / "growth.csv")
    lines = []
    for key, s in table.items():
        grows, count = cast(tuple[str, int], key)
        each = f"{s / count:.2f} s" if "runs" in grows else f"{s / count * 1e6:.2f} µs"
        line = {"what grows": grows, "count": f"{count:,}", "seconds": f"{s:.3f}", "each": each}
        lines.append(line)
    return [*markdown(lines), ""]

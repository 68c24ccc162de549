"""Time optbench and its peers on the same job in turn; write results/benchmark.

Each peer runs in a separate process that stays alive. A round asks each peer in turn, so that other
load on the machine falls on all alike. Peers whose library is missing are named and left out:
`pip install '.[benchmark]'` brings all of them. The first epoch of a job, in which some compile, is
not counted. Start-up is reported apart.
"""

import argparse
import os
import platform
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from optbench.common.machine import cpu_name
from scripts import ROOT

try:
    import numpy as np

    from scripts.benchmark.epochs import epochs
    from scripts.benchmark.job import KINDS, is_model
    from scripts.benchmark.own import growth, memory, optimizers, overhead, sweep
    from scripts.benchmark.peers import ALLOCATOR, PEERS
    from scripts.benchmark.tables import write_page
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run it with a Python that has them: pip install '.[benchmark]'")

SIZES = ("128", "512-256", "1000-1000")
MODELS = (
    *SIZES, *(f"{size}+dropout" for size in SIZES), *(f"{size}+norm" for size in SIZES),
    *(f"512-256{part}+own" for part in ("", "+dropout", "+norm")), *KINDS,
)  # fmt: skip
NAMES = ("train_x", "train_y", "test_x", "test_y")
WINDOWS = 1280  # of 64 characters, for training and for test
PARTS = ("peers", "models", "sections")
SECTIONS = ("epochs", "gpu", "growth", "sweep", "overhead", "memory", "optimizers")


def main() -> None:
    """Measure the sections asked for and write the tables."""
    parser = argparse.ArgumentParser(f"python -m {__package__}", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few minutes: small and few")
    parser.add_argument(
        "--rounds",
        type=counts,
        help="how often each peer is asked: a number, or one for each model (default 5,3,2; "
        "quick: 2). The other sections take the last",
    )
    parser.add_argument(
        "--epochs",
        type=counts,
        default=[2, 1],
        help="counted epochs of a round, likewise (default 2,1)",
    )
    parser.add_argument("--examples", type=count, help="training images in the epochs, the first")
    parser.add_argument("--threads", type=count, help="threads of torch (default: its choice)")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        help="folder for the tables (default: results/benchmark for all that can be measured, and "
        "else results/benchmark-part)",
    )
    asked = parser.parse_args()
    for option, known in (("sections", SECTIONS), ("peers", PEERS)):
        if unknown := set(getattr(asked, option).split(",")) - set(known):
            parser.error(f"--{option}: there is no {', '.join(sorted(unknown))}")
    if not all(map(is_model, asked.models.split(","))):
        parser.error(
            f"--models: {', '.join(KINDS)}, or widths of hidden layers, such as 1000-1000, "
            "with +dropout, +norm, +own"
        )
    part = asked.quick or any(vars(asked)[k] != parser.get_default(k) for k in PARTS)
    asked.out = asked.out or ROOT / "results" / ("benchmark-part" if part else "benchmark")
    asked.rounds = asked.rounds or ([2] if asked.quick else [5, 3, 2])
    if asked.threads:
        os.environ["OMP_NUM_THREADS"] = str(asked.threads)
        if hasattr(os, "sched_setaffinity"):  # JAX takes every core it may
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.threads])
    asked.out.mkdir(parents=True, exist_ok=True)
    import torch

    torch.set_num_threads(asked.threads or torch.get_num_threads())
    sections = asked.sections.split(",")
    lines = ["# Benchmark", "", *machine(torch), ""]
    with tempfile.TemporaryDirectory() as folder:
        data, source = dataset(Path(folder), asked.quick)
        if asked.examples:
            source += f", of which an epoch takes the first {asked.examples:,}"
        lines += [
            f"Data: {source}. Batch 128, Adam (Lion where +own), float32, the test set evaluated "
            "each epoch.",
            "",
        ]
        gpu = torch.cuda.is_available()
        if not gpu:
            lines += ["No CUDA device here: nothing was measured on one.", ""]
        for device in ("cpu", "cuda") if gpu else ("cpu",):
            if ("epochs" if device == "cpu" else "gpu") in sections:
                lines += [f"## Seconds per epoch on {device}", "", *epochs(asked, data, device)]
        if "growth" in sections:
            lines += ["## How cost grows", "", *growth(asked, data["mlp"])]
    others = {
        "sweep": ("A sweep of runs", sweep),
        "overhead": ("What a sweep adds to a run", overhead),
        "memory": ("Memory", memory),
        "optimizers": ("What a step of each optimizer costs", optimizers),
    }
    for section, (title, measure) in others.items():
        if section in sections:
            lines += [f"## {title}", "", *measure(asked)]
    command = " ".join(["python -m scripts.benchmark", *sys.argv[1:]])
    (asked.out / "README.md").write_text("\n".join([*lines, f"Made by `{command}`.", ""]), "utf-8")
    if "epochs" in sections and asked.out.resolve() == ROOT / "results" / "benchmark":
        write_page(asked.out)
    print("\n".join(lines))


def count(text: str) -> int:
    """Parse a number above 0."""
    found = int(text)
    if found < 1:
        raise ValueError
    return found


def counts(text: str) -> list[int]:
    """Parse one number per model; the last serves for all further models."""
    return [count(part) for part in text.split(",")]


def machine(torch: Any) -> list[str]:
    """Return the machine and the versions, in words."""
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    allocator = ALLOCATOR or "the system's"
    return [
        f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
        f"{gpu}{load}; torch {torch.__version__}, Python {platform.python_version()}; "
        f"optbench and the bound with {allocator} allocator of memory."
    ]


def dataset(folder: Path, quick: bool) -> tuple[dict[str, Path], str]:
    """Write the data of each kind of model as an npz; return their paths, and MNIST's source.

    Of OPTBENCH_DATA MNIST is taken, else the bundled part, and for a table Letter Recognition, or
    none. Of the bundled text it is the first windows.
    """
    from optbench import datasets, prepare
    from optbench.common.errors import UserError
    from optbench.datasets import loaders

    root = os.environ.get("OPTBENCH_DATA")
    if not quick and root is not None and (Path(root) / "MNIST" / "raw").exists():
        raw, source = loaders.mnist(root=root, download=False), "MNIST"
    else:
        raw, source = loaders.mnist_5k(), "mnist_5k (bundled; MNIST where OPTBENCH_DATA has it)"
    rows = raw._replace(train_x=raw.train_x[:, 0], test_x=raw.test_x[:, 0])
    text = prepare(datasets.austen(), preprocessing="integers", val_size=0)
    made = {"mlp": prepare(raw, val_size=0), "lstm": prepare(rows, val_size=0), "gpt": text}
    with suppress(UserError):
        table = datasets.letter(root or "")
        made["tabular"] = prepare(table, preprocessing="standardize_features", val_size=0)
    found = {}
    for kind, data in made.items():
        most = WINDOWS if kind == "gpt" else None
        parts = {name: getattr(data, name)[:most].numpy() for name in NAMES}
        found[kind] = folder / f"{kind}.npz"
        np.savez(found[kind], **parts)
    images = f"{source}, {len(made['mlp'].train_y)} training images"
    return found | {"cnn": found["mlp"]}, images


if __name__ == "__main__":
    main()

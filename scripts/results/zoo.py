"""Make results/zoo: the optimizers of the field in one sweep, on an MLP and on a small GPT.

Each sweep is killed after some of its runs, and finished by the same command. A table of its runs
is committed. `--draw` makes figures, tables and README from these tables alone.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from optbench import load_runs
from optbench.formats.job_list import of_sweep
from optbench.report import finish
from scripts import ROOT
from scripts.results.captions import words_of
from scripts.results.packed import pack, unpack
from scripts.tables import markdown

OUT = ROOT / "results" / "zoo"
STUDIES = {
    "zoo": "An MLP 784-128-10 on mnist_5k, ten epochs",
    "zoo_gpt": "The smallest GPT on 4,800 windows of Jane Austen, one epoch",
}
FIGURES = ("train_loss-gradients", "test_accuracy-epoch")
KILLED_AFTER = 20  # runs
LOOK_SECONDS = 0.5


def main() -> None:
    """Run each sweep twice, keep a table of its runs, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true", help="run nothing: draw from the tables")
    parser.add_argument("--results-dir", default="results", help="where the runs go")
    asked = parser.parse_args()
    parts = []
    for name, title in STUDIES.items():
        table = OUT / f"{name}.csv.xz"
        if not asked.draw:
            sweep = Path(asked.results_dir).resolve() / "sweeps" / name
            run(name, asked.results_dir, sweep)
            pack(sweep, table)
        parts.append(section(name, title, table))
    head = (
        "# The optimizers of the field, run\n\n"
        "Each optimizer at its published defaults and under the "
        "schedule that its authors ask for (`schedule=authors`), with eight seeds on the MLP and "
        "three on the GPT. Nothing was tuned, so that this shows that they run, how many gradients "
        "they take, and how their curves look; it does not say which is best: for that, see "
        "[a tuned comparison](../fair_comparison/README.md). The axis counts gradients, since a "
        "step of SAM takes two. "
        f"Each sweep was killed by SIGKILL after {KILLED_AFTER} runs, and finished by the same "
        "command.\n"
    )
    (OUT / "README.md").write_text("\n".join([head, *parts]), "utf-8")


def run(name: str, results: str, sweep: Path) -> None:
    """Start a study, kill it after some runs, and finish it."""
    words = [sys.executable, "-m", "optbench", "-m", f"study={name}", "quiet=true"]
    words += [f"results_dir={results}"]
    print(f"$ python -m optbench -m study={name}", flush=True)
    if not sweep.exists():
        first = subprocess.Popen(words, cwd=ROOT, start_new_session=True)
        while first.poll() is None and done(sweep) < KILLED_AFTER:
            time.sleep(LOOK_SECONDS)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        print(f"killed with {done(sweep)} runs done", flush=True)
    subprocess.run(words, cwd=ROOT, check=True)


def done(sweep: Path) -> int:
    """Return how many runs of a sweep are done."""
    return int(of_sweep(sweep)["done"]) if sweep.exists() else 0


def section(name: str, title: str, table: Path) -> str:
    """Draw a sweep's figures beside its table, and return its part of the README."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / name
        unpack(table, folder)
        finish(folder, quiet=True)
        shown = []
        for figure in FIGURES:
            if (folder / f"{figure}.png").exists():
                for suffix in (".png", ".txt"):
                    shutil.copyfile(folder / f"{figure}{suffix}", OUT / f"{name}-{figure}{suffix}")
                picture = OUT / f"{name}-{figure}.png"
                shown.append(f"![{words_of(picture, title)}]({picture.name})")
        rows = costs(load_runs(folder))
    command = f"    python -m optbench -m study={name}"
    written = "\n".join(
        markdown([{str(k): v for k, v in row.items()} for row in rows.to_dict("records")])
    )
    return "\n\n".join([f"## {title}", command, *shown, written]) + "\n"


def costs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per optimizer: medians of the last losses, and its gradients a step."""
    last = runs.sort_values("epoch").groupby(["optimizer", "seed"]).tail(1)
    last = last.assign(per_step=last["gradients"] / last["step"])
    columns = ["train_loss", "test_loss", "per_step"]
    found = last.groupby("optimizer")[columns].median().sort_values("test_loss").reset_index()
    found = found.round({"train_loss": 4, "test_loss": 4, "per_step": 2})
    return found.rename(columns={"per_step": "gradients a step"})


if __name__ == "__main__":
    main()

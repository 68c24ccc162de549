"""Make results/comparison: tune each optimizer's learning rate, then compare.

Phase 1 runs study=comparison_mnist_grid on validation data. Phase 2 runs study=comparison_mnist
with the chosen rates and new seeds. A second call resumes where the first stopped.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from optbench import load_runs
from scripts import ROOT
from scripts.tables import markdown

OUT = Path("results/comparison")
OPTIMIZERS = ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam"]


def main() -> None:
    """Run both phases and write the figure, the tables and the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--seeds", default="1,2,3", help="seeds of phase 2 (default 1,2,3)")
    asked = parser.parse_args()
    common = f"num_threads=1 results_dir={OUT}/runs"
    grid = {
        name: f"python -m optbench -m study=comparison_mnist_grid optimizer={name} "
        f"name=grid-{name} {common}"
        for name in OPTIMIZERS
    }
    run_all(list(grid.values()), asked.processes)
    tried = trials()
    best = tried.loc[tried.groupby("optimizer")["val_loss"].idxmin()].set_index("optimizer")["lr"]
    final = {
        name: f"python -m optbench -m study=comparison_mnist optimizer={name} "
        f"optimizer.lr={best[name]:g} seed={asked.seeds} name=final-{name} " + common
        for name in OPTIMIZERS
    }
    run_all(list(final.values()), asked.processes)
    folders = " ".join(f"{OUT}/runs/final-{name}" for name in OPTIMIZERS)
    draw = f"python -m optbench plot {folders} -o {OUT}"
    page = "python -m scripts.results.reports comparison"
    run_all([draw, page], 1)
    tried.to_csv(ROOT / OUT / "grid.csv", index=False)
    commands = [*grid.values(), *final.values(), draw, page]
    (ROOT / OUT / "README.md").write_text(readme(tried, best, commands), "utf-8")


def run_all(commands: list[str], processes: int) -> None:
    """Run the commands, several at a time; stop at the first failure."""

    def run(command: str) -> None:
        print(f"$ {command}", flush=True)
        words = [sys.executable if word == "python" else word for word in command.split()]
        subprocess.run(words, cwd=ROOT, check=True)

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(run, commands))


def trials() -> pd.DataFrame:
    """Return a row per optimizer and rate: last validation loss, inf if diverged."""
    table = load_runs(*(ROOT / OUT / "runs" / f"grid-{name}" for name in OPTIMIZERS))
    last = table.groupby("run", observed=True).tail(1)
    frame = pd.DataFrame(
        {
            "optimizer": last["optimizer"].astype(str),
            "lr": last["optimizer.lr"].astype(float),
            "status": last["status"].astype(str),
            "val_loss": last["val_loss"].where(last["status"] == "completed", float("inf")),
            "val_accuracy": last["val_accuracy"],
        }
    )
    frame["optimizer"] = pd.Categorical(frame["optimizer"], OPTIMIZERS)
    return frame.sort_values(["optimizer", "lr"]).astype({"optimizer": str})


def readme(tried: pd.DataFrame, best: "pd.Series[float]", commands: list[str]) -> str:
    """Return the README: what was done and how to repeat it."""
    grid = tried.pivot_table(index="optimizer", columns="lr", values="val_loss", sort=False)
    rates = sorted(tried["lr"].unique())
    edges = [name for name in OPTIMIZERS if best[name] in (rates[0], rates[-1])]
    rows = [
        {"optimizer": name}
        | {
            f"{rate:g}": ("**{:.3f}**" if rate == best[name] else "{:.3f}").format(loss)
            for rate in rates
            if (loss := grid.get(rate, {}).get(name, float("inf"))) is not None
        }
        for name in OPTIMIZERS
    ]
    return "\n".join(
        [
            "# The comparison study on the full MNIST",
            "",
            "![training loss against passes over the dataset](running_loss-epoch.png)",
            "",
            "MLP 784-1000-1000-10, ReLU, dropout 0.2 on the input and 0.5 on the hidden layers,",
            "batch 128, 54,000 training images (6,000 are kept for validation). The loss is the",
            "running mean of the mini-batch cross-entropy over each epoch, with dropout, as in",
            "figure 2(a) of Kingma & Ba 2015.",
            "",
            "Each optimizer's learning rate is the one of ten with the lowest validation loss",
            "after five epochs of seed 0 (all other settings as in `conf/optimizer/`). The curves",
            "are of seeds that took no part in the choice. All have the same budget: ten trials.",
            "Other runs and other work shared the machine: the times do not tell what an optimizer",
            "costs. [report.html](report.html), opened in a browser, has the curves of every run.",
            "",
            "## Validation loss of each learning rate (`grid.csv`)",
            "",
            *markdown(rows),
            "",
            f"At the edge of the grid: {', '.join(edges) or 'none'}. `inf` is a run that diverged.",
            "",
            "## Final values (`summary.csv`)",
            "",
            (ROOT / OUT / "summary.md").read_text("utf-8"),
            "## Commands",
            "",
            "`python -m scripts.results.mnist_comparison` runs these, once",
            "`scripts/fetch-data mnist` got the data:",
            "",
            *(f"    {command}" for command in commands),
            "",
        ]
    )


if __name__ == "__main__":
    main()

"""Make results/gallery: a page with every kind of figure, from the committed runs of small studies.

`--run` trains the studies first, and packs their runs into results/gallery/STUDY.csv.xz.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from optbench.commands import plot
from optbench.figures.kinds import KINDS
from optbench.report import finish
from scripts import ROOT
from scripts.results.captions import words_of
from scripts.results.packed import pack, unpack
from scripts.results.pictures import save_small

OUT = ROOT / "results" / "gallery"
SMALL_OVERRIDES = "data.subset=1500 epochs=6 num_threads=1"
STUDIES = {
    "tuned": "hydra/sweeper=tuned optimizer=sgd,momentum,adagrad,rmsprop,adam model=logreg,mlp "
    f"tuning.trials=8 seeds=8 {SMALL_OVERRIDES}",
    "rates": "optimizer=sgd,momentum,adam,adamw optimizer.lr=0.0003,0.001,0.003,0.01,0.03,0.1,0.3 "
    f"seed=0,1,2 {SMALL_OVERRIDES}",
    "grid": "optimizer=sgd,momentum,adam initializer=too_small,he_normal,too_large "
    f"model.batch_norm=false,true seed=0,1,2 {SMALL_OVERRIDES}",
    "decay": "hydra/sweeper=tuned optimizer=momentum,adamw tuning.trials=24 "
    f"tuning.repeats=3 seeds=6 {SMALL_OVERRIDES}",
    "layers": "optimizer=sgd optimizer.lr=0.1 initializer=too_small,xavier_normal,he_normal "
    f"'model.hidden=[64,64,64,64,64,64]' seed=0,1,2 diagnostics=layers {SMALL_OVERRIDES}",
}


class Entry(NamedTuple):
    """A figure of the page: file, heading, kind, study and the command's options."""

    name: str
    heading: str
    kind: str
    study: str
    words: str = ""


ENTRIES = [
    Entry("curves", "Loss curves", "curves", "tuned", "--where phase=tuned model.name=mlp"),
    Entry("facets", "Loss curves, by a setting", "curves", "tuned", "--where phase=tuned"),
    Entry("test", "Test metrics", "test", "grid", "--where initializer=he_normal"),
    Entry("learning_rate", "Sensitivity to the learning rate", "learning_rate", "rates"),
    Entry(
        "trials", "The trials of a tuned study", "learning_rate", "tuned", "--where model.name=mlp"
    ),
    Entry("grid", "Small multiples", "grid", "grid", "--facet initializer model.batch_norm"),
    Entry("finals", "Final values", "finals", "tuned", "--where phase=tuned"),
    Entry(
        "ranks", "Ranks and critical difference", "ranks", "tuned",
        "--where phase=tuned model.name=mlp",
    ),
    Entry("profile", "Performance profile", "profile", "tuned", "--where phase=tuned"),
    Entry("time_to_target", "Time to target", "time_to_target", "tuned", "--where phase=tuned"),
    Entry("budget", "Budget curves", "budget", "tuned", "--where model.name=mlp"),
    Entry("rate_decay", "Maps of learning rate and weight decay", "rate_decay", "decay"),
    Entry("layers", "Layers by depth", "layers", "layers", "--lines initializer"),
    Entry("cost", "What a step costs", "cost", "tuned", "--where phase=tuned model.name=mlp"),
    Entry(
        "one_column", "For one column of a page", "curves", "tuned",
        "--where phase=tuned model.name=mlp --columns 1",
    ),
    Entry(
        "two_columns", "For two columns", "grid", "grid",
        "--facet model.batch_norm initializer --columns 2",
    ),
    Entry(
        "talk", "For a talk", "finals", "tuned",
        "--where phase=tuned model.name=mlp --style talk",
    ),
]  # fmt: skip


def main() -> None:
    """Train the studies if asked, draw every figure from their runs, and write the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="train the studies, and pack their runs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        if asked.run:
            for name in STUDIES:
                train(name, runs / "trained")
                pack(runs / "trained" / name, OUT / f"{name}.csv.xz")
        for name in STUDIES:
            unpack(OUT / f"{name}.csv.xz", runs / name)
        parts = [section(entry, runs) for entry in ENTRIES]
        finish(runs / "tuned", quiet=True)
        table = (runs / "tuned" / "summary.tex").read_text("utf-8")
    parts.insert(len(ENTRIES) - 3, TRAJECTORIES)
    sweeps = "\n".join(f"    {sweep(name)}" for name in STUDIES)
    text = "\n".join([INTRODUCTION, sweeps, "", *parts, TABLES, "```tex", table + "```", "", END])
    (OUT / "README.md").write_text(text, "utf-8")


def train(name: str, results: Path) -> None:
    """Make the runs of a study."""
    words = [*shlex.split(sweep(name).replace("=RUNS", f"={results}"))[1:], "quiet=true"]
    print(f"$ {sweep(name)}", flush=True)
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def sweep(name: str) -> str:
    """Return the command that makes a study's runs."""
    multirun = "" if is_tuned(name) else "-m "
    return f"python -m optbench {multirun}{STUDIES[name]} name={name} results_dir=RUNS"


def is_tuned(name: str) -> bool:
    """Return whether a study tunes, which needs no `-m`."""
    return "hydra/sweeper=tuned" in STUDIES[name]


def section(entry: Entry, runs: Path) -> str:
    """Draw one figure from a folder of studies; return its part of the page."""
    words = ["--kind", entry.kind, *shlex.split(entry.words), "--format", "png"]
    with tempfile.TemporaryDirectory() as folder:
        print(f"$ {command(entry)}", flush=True)
        if plot.main([str(runs / entry.study), "-o", folder, *words]):
            sys.exit(f"{entry.name} was not drawn")
        (picture,) = Path(folder).glob("*.png")
        caption = picture.with_suffix(".txt").read_text("utf-8")
        alternative = words_of(picture, entry.heading)
        save_small(picture, OUT / f"{entry.name}.png")
    function = KINDS[entry.kind].function
    made_by = f"`{function.__module__}.{function.__name__}`"
    if entry.name == "trials":
        made_by = "`optbench.figures.trials.rate_scatter`"
    quoted = [fill(line, 99, initial_indent="> ", subsequent_indent="> ") for line in
              caption.splitlines()]  # fmt: skip
    return "\n".join(
        [
            f"## {entry.heading}", "", f"![{alternative}]({entry.name}.png)", "",
            f"{made_by}, or", "", f"    {command(entry)}", "", "\n>\n".join(quoted), "",
        ]
    )  # fmt: skip


def command(entry: Entry) -> str:
    """Return the command that draws the figure."""
    return f"python -m optbench plot RUNS/{entry.study} --kind {entry.kind} {entry.words}".strip()


INTRODUCTION = """\
# Every kind of figure

Each was made by the command below it, of small studies on the bundled 6,000 images of MNIST. The
small runs are there to show figures: they settle nothing. The text in quotation is the caption that
is written beside each figure. `RUNS` is a folder for the runs, which these commands fill:
"""
TRAJECTORIES = """\
## Ways over a function of two variables

![Three paths over a ravine and their losses: momentum overshoots](../trajectories/ravine.png)

`optbench.trajectories.contours.still`, and as an animation `optbench.trajectories.contours.animate`
([ravine.gif](../trajectories/ravine.gif)), or

    python -m optbench trajectories function=ravine optimizer=sgd,momentum,nesterov \\
        optimizer.lr=0.1 steps=120

More of them: [results/trajectories](../trajectories/README.md).
"""
TABLES = """\
## Tables

`optbench.analysis.latex.to_latex`; every sweep writes it as `summary.tex`, beside `summary.md` and
`summary.csv`. `python -m optbench report FOLDER --table COLUMN --cells mean_std` writes others.

A value is bold only where its optimizer may be claimed to be better than every other
one in the column.
"""
END = (
    "`python -m scripts.results.gallery` draws these figures from the committed runs and writes "
    "this file; with `--run` it trains first.\n"
)

if __name__ == "__main__":
    main()

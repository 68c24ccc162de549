"""Make results/fair_comparison from its runs, which are committed as one compressed table.

`--runs FOLDER` takes the runs of `python -m optbench study=fair_comparison name=fair_comparison`
into runs.csv.xz: a row per run, with its files as text. Without it the figures, tables, page and
verdict are made anew from that table, and README.md and the verdict in the project's README.md
with them. `--unpack FOLDER` writes the runs' folders: the study's command then reuses them.
"""

import argparse
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Comparison, compare
from optbench.analysis.leader import ranked
from optbench.analysis.pairing import by_seed
from optbench.analysis.trials import order_of, trial_scores
from optbench.analysis.tuned.rate_decay import RATE, RateDecayMap, rate_decay_maps
from optbench.common.files import replace_text
from optbench.common.metrics import metric_of
from optbench.common.text import number
from optbench.figures.tuned.rate_decay import problem_names
from optbench.report import finish
from optbench.report import page as report
from scripts import ROOT
from scripts.results.captions import words_of
from scripts.results.packed import pack, unpack
from scripts.results.reports import picture

OUT = ROOT / "results" / "fair_comparison"
TABLE = OUT / "runs.csv.xz"
RUN_FILES = ("run.json", "epochs.csv", "steps.csv")
KEPT = (".png", ".txt", ".csv", ".md", ".tex", ".html")  # of what a study's end writes
TITLE = "Nine optimizers under an equal tuning budget"
NEAREST = 2  # rivals of each problem's leader, in the project's README
SHOWN_PAIRS = 4  # rows there at most
ROW = re.compile(r"\|.* (worse|better|cannot)")  # of the verdict's table
WIDTH = 100  # columns of a paragraph
EXPLAINED = "adam"  # whose rank the page of the study explains


def main() -> int:
    """Pack or unpack the runs, or make everything from them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="a finished study's folder, to be packed")
    parser.add_argument("--unpack", type=Path, help="a folder, to be written")
    asked = parser.parse_args()
    if asked.runs:
        count = pack(asked.runs, TABLE, RUN_FILES)
        print(f"{TABLE}: {count} files, {TABLE.stat().st_size} bytes")
    if asked.unpack:
        unpack(TABLE, asked.unpack)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "fair_comparison"
        unpack(TABLE, study)
        finish(study, quiet=True)
        written = report.write([study], study / "report.html", title=TITLE)
        print(f"{written.runs} runs")
        keep(study)
        explained = map_texts(compare([study]), EXPLAINED)
        picture(OUT / "report.html", OUT / "report.png")
    write_readme(explained)
    return 0


def keep(study: Path) -> None:
    """Copy what the study's end wrote, in place of what an earlier one wrote."""
    for path in OUT.iterdir():
        if path.suffix in KEPT:
            path.unlink()
    for path in study.iterdir():
        if path.suffix in KEPT:
            shutil.copy(path, OUT / path.name)


def map_texts(made: Comparison, name: str) -> list[str]:
    """Return why an optimizer has its rank on each problem, from its map beside the leader's.

    A map is of learning rate by weight decay, of the trials of all searches.
    """
    maps = {
        (one.problem, one.optimizer): one for one in rate_decay_maps(made.of_trials, *made.protocol)
    }
    runs, smaller = (
        made.table[made.table["run"].isin(made.main or [])],
        metric_of(made.judged).smaller,
    )
    texts, metric = [], made.protocol.metric
    for problem, where in sorted(problem_names(made).items(), key=lambda item: item[1]):
        own_runs = set(runs.loc[runs["problem"].astype(str) == problem, "run"])
        order = ranked(by_seed(made, made.judged, only=own_runs), smaller)
        scores = trial_scores(made.of_trials, *made.protocol)
        leader = order_of(scores[scores["problem"] == problem], metric)[0]
        own, best = maps[problem, name], maps[problem, leader]
        behind = own.top > best.top if smaller else own.top < best.top
        texts.append(
            f"On {where} {name} is number {order.index(name) + 1} of {len(order)} by "
            f"{metric_of(made.judged).label}. {cells_text(own)}; {distance_text(made, own)}. Of "
            f"the leader, {leader}: {cells_text(best)}; {distance_text(made, best)}. "
            f"The best of {name}'s {own.trials} trials has a {metric_of(metric).label} of "
            f"{number(own.top)}, the best of {leader}'s {best.trials} has {number(best.top)}: "
            f"{'none' if behind else 'one'} of {name}'s reaches the leader's best."
        )
    return texts


def cells_text(one: RateDecayMap) -> str:
    """Return how many of a map's cells are about as good as its best, in words."""
    tried = int((~np.isnan(one.best)).sum() + one.lost.sum())
    near = int(one.near.sum())
    return (
        f"{near} of the {tried} cells tried on its map ({100 * near / tried:.0f} %) "
        f"{'lies' if near == 1 else 'lie'} within 5 % of its best"
    )


def distance_text(made: Comparison, one: RateDecayMap) -> str:
    """Return where a map's best cell is, and how far the default rate is from that."""
    row, column = one.optimum
    low, high = one.rates[column : column + 2]
    first = made.table.drop_duplicates("run").astype({"problem": str, "optimizer": str})
    here = (first["problem"] == one.problem) & (first["optimizer"] == one.optimizer)
    default = float(first.loc[here & (first["phase"].astype(str) == "default"), RATE].iloc[0])
    decades = math.log10(math.sqrt(low * high) / default)
    side = "above" if decades > 0 else "below"
    distance = f"{abs(decades):.1f} decades {side}"
    return (
        f"its best cell is at a learning rate of {low:.2g} to {high:.2g} and a decay of about "
        f"{one.decays[row]}, "
        + (
            f"which holds its default ({default:g})"
            if low <= default <= high
            else f"{distance} its default ({default:g})"
        )
    )


def verdict_rows(found: pd.DataFrame, verdict: str) -> tuple[str, list[str]]:
    """Return how many pairs are worse and how many cannot be told, and the rows to show.

    found: verdict.csv, verdict: verdict.md, whose rows have the same order. The rows are of each
    leader's nearest rivals, whatever came of them.
    """
    lines = [line for line in verdict.splitlines() if ROW.match(line)]
    words = found["verdict"].str.split(" (", regex=False).str[0]
    counts = words.value_counts()
    told = " and ".join(
        f"{word} in {counts[word]}" for word in ("worse", "better") if word in counts
    )
    told = f"the other is {told}; " if told else ""
    near = found["difference"].abs().groupby(found["problem"], sort=False)
    shown = [at for _, part in near for at in part.nsmallest(NEAREST).index]
    told = f"Of all {len(found)} pairs, {told}{counts.get('cannot tell', 0)} cannot tell"
    return told, [lines[at] for at in shown[:SHOWN_PAIRS]]


def write_readme(explained: Sequence[str]) -> None:
    """Write the page of the study, and the verdict into the project's README.md.

    explained: `map_texts`.
    """
    verdict = (OUT / "verdict.md").read_text("utf-8")
    pictures = "\n".join(
        f"![{words_of(path, 'The page of the study, in a browser')}]({path.name})"
        for path in sorted(OUT.glob("*.png"))
    )
    maps = "\n\n".join(fill(one, WIDTH) for one in explained)
    text = f"""# {TITLE}

SGD, momentum, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam, AdamW and Muon on 2,000 images of
mnist_5k, five epochs, batch 128: an MLP 784-128-10 and a CNN of 8 and 16 channels. Each search has
20 trials, the first of them the default setting, and is repeated nine times. Each search's best
setting, and the default setting, then get two new seeds, and the test set is measured once.

    python -m optbench study=fair_comparison name=fair_comparison

All runs are in `runs.csv.xz`. `python -m scripts.results.fair_comparison` makes the figures, the
tables, the verdict and this page from them, and the interactive page [report.html](report.html),
to be downloaded and opened.

{pictures}

## Verdict

{verdict}
## {EXPLAINED.capitalize()}'s rank and its map

{maps}

## Final values

{(OUT / "summary.md").read_text("utf-8")}"""
    replace_text(OUT / "README.md", text)
    told, rows = verdict_rows(pd.read_csv(OUT / "verdict.csv"), verdict)
    path = ROOT / "README.md"
    old = path.read_text("utf-8")
    head, start, rest = old.partition("The leader of [nine tuned optimizers]")
    table, rule, rest = rest.partition("| --- | --- | --- | --- | --- |\n")
    header = table.split("\n\n")[1]
    tail = rest.split("\n\n", 1)[1]
    interval = "its 95 % interval (of the pair alone; p is corrected)"
    said = f"""{start}(results/fair_comparison/README.md) against its two nearest
rivals on each problem: the loss on the test set, other minus leader, with {interval}.
{told}."""
    shown = "\n".join(rows)
    replace_text(path, f"{head}{said}\n\n{header}{rule}{shown}\n\n{tail}")


if __name__ == "__main__":
    sys.exit(main())

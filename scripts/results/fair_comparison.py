"""Make results/fair_comparison from its runs, which are committed as one compressed table.

`--runs FOLDER` takes the runs of `python -m optbench study=fair_comparison name=fair_comparison`
into runs.csv.xz: a row per run, with its files as text. Without it the figures, tables, page and
verdict are made anew from that table, and README.md and the verdict in the project's README.md
with them. `--unpack FOLDER` writes the runs' folders: the study's command then reuses them.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from optbench.common.files import replace_text
from optbench.report import finish
from optbench.report import page as report
from scripts import ROOT
from scripts.results.captions import words_of
from scripts.results.packed import unpack, write
from scripts.results.reports import picture

OUT = ROOT / "results" / "fair_comparison"
TABLE = OUT / "runs.csv.xz"
STUDY_FILES = ("study.json", "jobs.jsonl", "figure.json", "engines.json")
RUN_FILES = ("run.json", "epochs.csv", "steps.csv")
KEPT = (".png", ".txt", ".csv", ".md", ".tex", ".html")  # of what a study's end writes
TITLE = "Nine optimizers under an equal tuning budget"
SHOWN_PAIRS = 3  # of the verdict, in the project's README


def main() -> int:
    """Pack or unpack the runs, or make everything from them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="a finished study's folder, to be packed")
    parser.add_argument("--unpack", type=Path, help="a folder, to be written")
    asked = parser.parse_args()
    if asked.runs:
        count = pack(asked.runs, TABLE)
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
        picture(OUT / "report.html", OUT / "report.png")
    write_readme()
    return 0


def pack(study: Path, table: Path) -> int:
    """Write a study's files into a compressed table; return their number."""
    rows = [(name, study / name) for name in STUDY_FILES if (study / name).exists()]
    for folder in sorted(path.parent for path in study.glob("*/*/run.json")):
        if json.loads((folder / "run.json").read_text("utf-8")).get("status") == "running":
            continue  # of a study that was stopped
        rows += [(str((folder / name).relative_to(study)), folder / name) for name in RUN_FILES]
    return write(table, ((name, path.read_bytes().decode()) for name, path in rows))


def keep(study: Path) -> None:
    """Copy what the study's end wrote, in place of what an earlier one wrote."""
    for path in OUT.iterdir():
        if path.suffix in KEPT:
            path.unlink()
    for path in study.iterdir():
        if path.suffix in KEPT:
            shutil.copy(path, OUT / path.name)


def write_readme() -> None:
    """Write the page of the study, and the verdict into the project's README.md."""
    verdict = (OUT / "verdict.md").read_text("utf-8")
    pictures = "\n".join(
        f"![{words_of(path, 'The page of the study, in a browser')}]({path.name})"
        for path in sorted(OUT.glob("*.png"))
    )
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
## Final values

{(OUT / "summary.md").read_text("utf-8")}"""
    replace_text(OUT / "README.md", text)
    lines = [line for line in verdict.splitlines() if re.match(r"\|.* (worse|better|cannot)", line)]
    path = ROOT / "README.md"
    old = path.read_text("utf-8")
    head, rule, rest = old.partition("| --- | --- | --- | --- | --- |\n")
    tail = rest.lstrip("\n").split("\n\n", 1)[1]
    shown = "\n".join(lines[:SHOWN_PAIRS])
    replace_text(path, f"{head}{rule}{shown}\n\n{tail}")


if __name__ == "__main__":
    sys.exit(main())

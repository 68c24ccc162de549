"""Make results/claims: run the studies of conf/study/claims, and judge each.

A table of each study's runs is committed. `--judge` makes verdicts, figures and README from these
tables alone. A second call resumes where the first stopped. The README covers all studies judged.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
import yaml

from optbench.analysis.claims import judge
from optbench.analysis.claims.sides import SETTING_RULE, three_digits
from optbench.formats.job_list import CLAIM_FILE, FIGURE_FILE
from optbench.formats.run import read_sealed, write_sealed
from optbench.report import finish
from scripts import ROOT
from scripts.results.captions import words_of
from scripts.results.packed import pack, unpack

STUDIES = ROOT / "conf" / "study" / "claims"
OUT = ROOT / "results" / "claims"
RUNS = OUT / "runs"  # a compressed table of the runs of each study


def main() -> None:
    """Run and judge each study, keep a table of its runs, and write the README."""
    names = sorted(path.stem for path in STUDIES.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(names)}")
    parser.add_argument("--judge", action="store_true", help="run nothing: judge the tables")
    parser.add_argument("--results-dir", default="results", help="where the runs go")
    asked = parser.parse_args()
    if unknown := set(asked.studies) - set(names):
        parser.error(f"no study claims/{', claims/'.join(sorted(unknown))}")
    results = Path(asked.results_dir).resolve()

    for name in asked.studies or names:
        table = RUNS / f"{name}.csv.xz"
        if not asked.judge:
            print(f"$ {command(name)}", flush=True)
            words = ["-m", "optbench", "-m", f"study=claims/{name}", "quiet=true"]
            subprocess.run(
                [sys.executable, *words, f"results_dir={results}"],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                check=True,
            )
            pack(results / "sweeps" / "claims" / name, table)
        if table.exists():
            judge_table(name, table)
    done = [name for name in names if (OUT / f"{name}.csv").exists()]
    (OUT / "README.md").write_text(readme(done), "utf-8")


def judge_table(name: str, table: Path) -> None:
    """Judge a claim by the table of its runs; write claim and figure beside the README."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / name
        unpack(table, folder)
        # The study may have changed its claim and its figure since the runs.
        (folder / CLAIM_FILE).write_text(json.dumps(study(name)["claim"], indent=1) + "\n")
        options = read_sealed(folder / FIGURE_FILE) | study(name).get("figure", {})
        write_sealed(folder / FIGURE_FILE, options)
        finish(folder, quiet=True)
        picture = folder / figure(study(name))
        shutil.copyfile(folder / "claim.csv", OUT / f"{name}.csv")
        shutil.copyfile(picture, OUT / f"{name}.png")
        shutil.copyfile(picture.with_suffix(".txt"), OUT / f"{name}.txt")


def study(name: str) -> dict[str, Any]:
    """Return the study's YAML, before Hydra composes it."""
    config: dict[str, Any] = yaml.safe_load((STUDIES / f"{name}.yaml").read_text("utf-8"))
    return config


def figure(config: dict[str, Any]) -> str:
    """Return the file that shows the claim: its own figure, or the study's curves."""
    chosen = config["claim"].get("figure")
    if chosen is None:
        options = config.get("figure", {})
        chosen = f"{options.get('y', 'train_loss')}-{options.get('x', 'epoch')}"
    return "claim.png" if isinstance(chosen, dict) else f"{chosen}.png"


def command(name: str) -> str:
    """Return the command that runs a study."""
    return f"python -m optbench -m study=claims/{name}"


def readme(names: list[str]) -> str:
    """Return the README: a table of the claims, and a section on each."""
    found = {name: pd.read_csv(OUT / f"{name}.csv") for name in names}
    verdicts = {name: judge.verdict_of(list(frame["word"])) for name, frame in found.items()}
    counts = [f"{list(verdicts.values()).count(word)} {word}" for word in judge.CLAIM_SENTENCES]
    lines = [
        "# The claims of the textbooks, checked",
        "",
        fill(
            f"Of {len(names)} claims: {', '.join(counts)}. Each claim is a study of small runs (up "
            "to 4,500 images of MNIST, wine, or 4,000 windows of novels; small networks; 5 to 30 "
            "epochs, of a text one) with eight to ten "
            "seeds for each setting, and a few comparisons on which it stands: settings are paired "
            "by seed (the same initial weights, the same batches) and tested by the exact "
            "two-sided signed-rank test. A claim held where every comparison came out as claimed "
            "with p <= 0.05 (all must, so nothing is to be corrected: the intersection-union "
            "test). It did not hold where one came out the other way round with p <= 0.05 after "
            "Holm's correction over the claim's comparisons (one is enough, so the correction is "
            "needed). Otherwise it cannot be told. Differences are Hodges-Lehmann estimates with "
            "95 % intervals. It is a verdict on these settings, not on all.",
            99,
        ),
        "",
        fill(
            f"{SETTING_RULE} (The two chosen settings alone were called different in 20 % of "
            "studies of SGD against itself, resampled from runs of which some collapse; by this "
            "rule 1 % are.) Rates are at most a factor of 2 apart within half a "
            "decade of the best. A warning says where neighbouring rates still differ by more "
            "than the two sides.",
            99,
        ),
        "",
        "| study | claimed | measured (medians) | verdict |",
        "| --- | --- | --- | --- |",
    ]
    for name in names:
        text = " ".join(study(name)["claim"]["text"].split())
        rows = [f"{short(row)}" for _, row in found[name].iterrows()]
        lines.append(f"| [{name}](#{name}) | {text} | {'<br>'.join(rows)} | {verdicts[name]} |")
    for name in names:
        bullets = [f"- {text}" for text in found[name]["text"]]
        words = words_of(OUT / f"{name}.png", f"What was measured for the claim {name}")
        lines += ["", f"## {name}", "", f"![{words}]({name}.png)", "", *bullets, ""]
        lines += [judge.CLAIM_SENTENCES[verdicts[name]], ""]
        joined = "; ".join(found[name]["warnings"].dropna())
        for warning in dict.fromkeys(joined.split("; ") if joined else []):
            lines += [f"Warning: {warning}.", ""]
        lines += [f"    {command(name)}"]
    lines += ["", "`python -m scripts.results.claims` runs them all and writes this file.", ""]
    return "\n".join(lines)


def short(row: "pd.Series[Any]") -> str:
    """Return one comparison in a table's cell."""
    other = f" ({row['than']})" if isinstance(row["than"], str) else ""
    a, b = (three_digits(float(row[key])) for key in ("median", "median_than"))
    numbers = f"{a} ({row['side']}), {b}{other}, p = {row['p']:.2g}"
    if row["p"] <= 0.05 and row["word"] == "cannot tell":  # decided only before the correction
        numbers += f", corrected {row['p_holm']:.2g}"
    return f"{row['value']}: {numbers}: {row['word']}"


if __name__ == "__main__":
    main()

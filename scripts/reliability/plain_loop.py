"""Compare 30 models x 15 optimizers on the command line with a plain torch loop.

Each pair trains for 300 steps, once undisturbed, and once stopped and resumed at a random step.
tests/plain_loop.py has the loop and the rule by which two losses are equal. The test suite runs
forty of the pairs.
"""

import argparse
import contextlib
import csv
import io
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from plain_loop import COMPILED_PAIRS, PAIRS, STEPS, check_pair

from scripts import ROOT
from scripts.reliability.sections import write_section


def main() -> int:
    """Check all pairs or the named ones; return exit status 1 if a pair differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", metavar="MODEL-OPTIMIZER", help="all, unless named")
    parser.add_argument("--seed", type=int, default=0, help="of where runs are stopped")
    parser.add_argument(
        "--write",
        action="store_true",
        help="the section in results/reliability; named pairs replace their rows alone",
    )
    asked = parser.parse_args()
    known = {f"{model}-{optimizer}" for model, optimizer in PAIRS}
    if unknown := set(asked.pairs) - known:
        parser.error(f"no pair {', '.join(sorted(unknown))}; there is: {', '.join(sorted(known))}")
    torch.set_num_threads(1)
    rows = []
    for model, optimizer in PAIRS:
        if asked.pairs and f"{model}-{optimizer}" not in asked.pairs:
            continue
        stop_at = random.Random(f"{asked.seed} {model} {optimizer}").randrange(1, STEPS)
        rule = "float64" if (model, optimizer) in COMPILED_PAIRS else "bit for bit"
        row = {"model": model, "optimizer": optimizer, "rule": rule, "stopped_at": stop_at}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            try:
                check_pair(model, optimizer, Path(folder), stop_at)
                row["result"] = "equal"
            except Exception as error:  # the other pairs go on after any error
                row["result"] = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
        rows.append(row)
        if row["result"] != "equal":
            print(f"{model}-{optimizer}: {row['result']}", flush=True)
    if asked.pairs and asked.write:
        rows = merged(rows)
    equal = sum(row["result"] == "equal" for row in rows)
    text = (
        f"{len(rows)} pairs of a model and an optimizer, {STEPS} steps each on the default command "
        f"line, undisturbed and stopped and resumed at a random step: {equal} gave the losses of a "
        f"loop of plain torch. {sum(row['rule'] != 'float64' for row in rows)} are held to it bit "
        "for bit. The others take compiled steps: these may be twice as far from the loop in "
        "float64 as a loop in float32 is, and 1e-6."
    )
    print(text)
    if asked.write:
        command = f"plain_loop --seed {asked.seed} --write"
        write_section(
            "plain-loop", "Beside a loop of plain torch", command=command, text=text, rows=rows
        )
    return 0 if equal == len(rows) else 1


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the last table, with those of the named pairs in their places."""
    with (ROOT / "results/reliability/plain-loop.csv").open(encoding="utf-8") as file:
        last = {(row["model"], row["optimizer"]): row for row in csv.DictReader(file)}
    last |= {(row["model"], row["optimizer"]): row for row in rows}
    return [last[pair] for pair in PAIRS if pair in last]


if __name__ == "__main__":
    sys.exit(main())

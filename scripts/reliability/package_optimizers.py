"""Train with every optimizer class of six packages, each in a separate process.

A class trains a small network (convolution, layer norm, dropout) for 40 steps on the command line's
path: twice whole, and once stopped and resumed. Losses must equal, bit for bit, a plain loop that
calls the class in one of four manners. A second call resumes where the first was stopped, and
repeats what failed.

    pip install pytorch-optimizer torch_optimizer schedulefree prodigyopt lion-pytorch heavyball
"""

import argparse
import csv
import importlib.metadata
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

from scripts.reliability.package_cases import PACKAGES, Row, classes, in_child
from scripts.reliability.sections import write_section

COLUMNS = (
    "package", "version", "class", "outcome", "manner", "state_bytes", "gradients", "sentence",
)  # fmt: skip
GOOD = ("equal, resumed", "equal, restarts", "refused", "missing")


def main() -> int:
    """Try the classes that no earlier call tried; return 1 if one differs or failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="classes whose PACKAGE:NAME holds this text")
    parser.add_argument("--seconds", type=float, default=90, help="the longest for one class")
    parser.add_argument("--minutes", type=float, default=60, help="then no other class is begun")
    parser.add_argument("--table", type=Path, default=Path("package-optimizers.csv"))
    parser.add_argument("--write", action="store_true", help="into results/reliability")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # a process with threads cannot be forked
    warnings.simplefilter("ignore")
    rows, end = read(asked.table), time.monotonic() + 60 * asked.minutes
    for package, module in PACKAGES.items():
        try:
            version, found = importlib.metadata.version(package), classes(module)
        except ImportError as error:
            rows[package, ""] = case(package, "", "", {"outcome": "missing", "sentence": error.msg})
            continue
        rows.pop((package, ""), None)
        for cls in found:
            key = (package, cls.__name__)
            old = rows.get(key, {"version": "", "outcome": ""})
            new = old["version"] != version or old["outcome"] == "failed"
            if new and asked.only in ":".join(key) and time.monotonic() < end:
                rows[key] = case(*key[:1], version, cls.__name__, in_child(cls, asked.seconds))
                print(" | ".join(rows[key].values()), flush=True)
                write(asked.table, list(rows.values()))
    ordered = sorted(rows.values(), key=lambda row: list(PACKAGES).index(row["package"]))
    print(text := summary(ordered))
    if asked.write:
        write_section(
            "package-optimizers", "Optimizers of six packages",
            command="package_optimizers --write",
            text=text, rows=ordered,
        )  # fmt: skip
    return 0 if all(row["outcome"] in GOOD for row in ordered) else 1


def case(package: str, version: str, name: str, found: Row) -> Row:
    row = {"package": package, "version": version, "class": name} | found
    return {key: row.get(key, "") for key in COLUMNS}


def read(path: Path) -> dict[tuple[str, str], Row]:
    """Return the results of earlier calls by package and class."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["package"], row["class"]): row for row in csv.DictReader(file)}


def write(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def summary(rows: list[Row]) -> str:
    """Return the outcomes of each package, and the messages of refusals."""
    outcomes = [*GOOD[:3], *sorted({row["outcome"] for row in rows} - set(GOOD[:3]))]
    lines = [f"| package | classes | {' | '.join(outcomes)} |", "|---" * (2 + len(outcomes)) + "|"]
    for package in dict.fromkeys(row["package"] for row in rows):
        mine = [row for row in rows if row["package"] == package]
        count = Counter(row["outcome"] for row in mine)
        name = " ".join([package, mine[0]["version"]])
        cells = [str(count[outcome]) for outcome in outcomes]
        lines.append(f"| {name} | {len(mine)} | {' | '.join(cells)} |")
    others = [
        f"- {row['package']} `{row['class']}` ({row['outcome']}): {row['sentence']}"
        for row in rows
        if row["outcome"] != "equal, resumed"
    ]
    return "\n".join([ABOUT, "", *lines, "", *others])


ABOUT = """Each class with its own defaults trains a network with a convolution, a layer norm and
dropout for 40 steps, through the path of the command line. *Equal*: two runs of one seed, and a
plain loop that calls the class in the manner that the CSV names, give the same losses to the last
bit. *Resumed*: so does a run that was stopped at step 23 and resumed. *Restarts*: the run says,
at its start or where it would be resumed, that it begins anew, and then equals the whole.
*Refused*: one sentence, no traceback. The CSV has the bytes of state for each parameter, and the
gradients that a step takes. heavyball runs with `heavyball.utils.compile_mode = None`, since
torch.compile takes minutes for each of its classes."""


if __name__ == "__main__":
    sys.exit(main())

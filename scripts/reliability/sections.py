"""The sections of results/reliability, and the README.md that consists of them.
Each script that measures writes one section.
"""

import csv
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from optbench import __version__
from scripts import ROOT

FOLDER = ROOT / "results" / "reliability"
ABOUT = """# What was done to it, and what it survived

Each section is written by the script that its command names, which prints the same figures; the
CSV beside it has every single case.
"""


def write_section(
    name: str,
    title: str,
    *,
    command: str,
    text: str,
    rows: Sequence[Mapping[str, object]],
    folder: Path = FOLDER,
) -> Path:
    """Write `NAME.md`, `NAME.csv` and a new README.md; return the path of `NAME.md`.

    name: of the files, such as "kills". command: a module of this package and its options, which
    repeats the measurement. text: Markdown on the measurement. rows: one per case, with the same
    keys; without rows there is no CSV.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = (
        f"{datetime.now(UTC):%Y-%m-%d}, optbench {__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    parts = [f"## {title}", f"    python -m {__package__}.{command}", text.strip()]
    if rows:
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        parts.append(f"Every case: [{name}.csv]({name}.csv).")
    path = folder / f"{name}.md"
    path.write_text("\n\n".join([*parts, f"*{made}*"]) + "\n", "utf-8")
    assemble(folder)
    return path


def rows_of_other_seeds(name: str, seed: int, folder: Path = FOLDER) -> list[dict[str, str]]:
    """Return the rows of `NAME.csv` with other seeds, left by earlier measurements."""
    path = folder / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["seed"] != str(seed)]


def assemble(folder: Path = FOLDER) -> Path:
    """Write README.md from the sections in the folder, in order of their names."""
    sections = [p for p in sorted(folder.glob("*.md")) if p.name != "README.md"]
    texts = [path.read_text("utf-8").strip() for path in sections]
    readme = folder / "README.md"
    readme.write_text("\n\n".join([ABOUT.strip(), *texts]) + "\n", "utf-8")
    return readme


if __name__ == "__main__":
    print(assemble(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))

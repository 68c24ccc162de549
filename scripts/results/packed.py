"""Finished runs as one compressed table, from which pages are made anew.

A row per file of a study's folder. Columns: path (in the study's folder) and text.
"""

import csv
import io
import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path

STUDY_FILES = ("study.json", "jobs.jsonl", "figure.json", "engines.json")
RUN_FILES = ("run.json", "epochs.csv", "steps.csv")
NO_STEPS = ("trials", "rungs")  # phases of which no figure draws single steps


def pack(study: Path, table: Path, files: Sequence[str] = RUN_FILES) -> int:
    """Write a study's files into a compressed table; return their number.

    files: of each run, where they exist. Runs that are not finished are left out.
    """
    rows = [(name, study / name) for name in STUDY_FILES if (study / name).exists()]
    found = [*study.glob("*/run.json"), *study.glob("*/*/run.json")]
    for folder in sorted(path.parent for path in found):
        if json.loads((folder / "run.json").read_text("utf-8")).get("status") == "running":
            continue  # of a study that was stopped
        names = [f for f in files if f != "steps.csv" or folder.parent.name not in NO_STEPS]
        present = [folder / name for name in names if (folder / name).exists()]
        rows += [(str(path.relative_to(study)), path) for path in present]
    table.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(table, "wt", encoding="utf-8", newline="", preset=9) as file:
        writer = csv.writer(file)
        writer.writerow(("path", "text"))
        writer.writerows((name, path.read_bytes().decode()) for name, path in rows)
    return len(rows)


def unpack(table: Path, study: Path) -> None:
    """Write the files of a compressed table below a folder."""
    for name, text in read(table):
        path = study / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", newline="")


def read(table: Path) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file in a compressed table."""
    csv.field_size_limit(2**31 - 1)  # a study's manifest is long
    with lzma.open(table, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(io.StringIO(file.read(), newline=""))
        next(rows)
        yield from ((name, text) for name, text in rows)

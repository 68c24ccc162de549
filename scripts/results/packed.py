"""Runs as one compressed table: a row per file, with its path and its text.

The table is committed. Its runs' folders can be written again, and read as after the sweep.
"""

import csv
import io
import json
import lzma
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from optbench.formats.checksummed_json import add_checksum, remove_checksum

SWEEP_FILES = ("figure.json", "jobs.jsonl", "study.json", "engines.json")
RUN_FILES = ("run.json", "epochs.csv", "layers.csv")
DEFAULTS = {"results_dir": "results", "root": "~/.cache/optbench"}  # as conf/config.yaml has them
# as the value of a key, or as an override in a list of words
FOLDER = re.compile(r'\b((results_dir|root)(?:": "|=))/[^"]*')


def pack(folder: Path, table: Path, run_files: Sequence[str] = RUN_FILES) -> int:
    """Write what figures and verdicts need of a sweep or a tuned study; return the number of files.

    Runs that have not ended are left out.
    """
    rows = [(name, folder / name) for name in SWEEP_FILES]
    for record in sorted(folder.rglob("run.json")):
        if json.loads(record.read_text("utf-8")).get("status") != "running":
            run = record.parent
            rows += [(str((run / name).relative_to(folder)), run / name) for name in run_files]
    return write(table, ((name, p.read_bytes().decode()) for name, p in rows if p.exists()))


def write(table: Path, rows: Iterable[tuple[str, str]]) -> int:
    """Write paths and texts into a compressed table; return the number of rows.

    In JSON files the folders of the machine become the default ones.
    """
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = [(name, without_folders(name, text)) for name, text in rows]
    with lzma.open(table, "wt", encoding="utf-8", newline="", preset=9) as file:
        writer = csv.writer(file)
        writer.writerow(("path", "text"))
        writer.writerows(rows)
    return len(rows)


def without_folders(name: str, text: str) -> str:
    """Return a JSON file's text with the default folders in place of those of its machine."""
    if not name.endswith((".json", ".jsonl")):
        return text
    found = FOLDER.sub(lambda match: match[1] + DEFAULTS[match[2]], text)
    if found == text or not name.endswith(".json"):
        return found
    remove_checksum(json.loads(text))  # ValueError where it was damaged before
    return json.dumps(add_checksum(json.loads(found)), indent=1, allow_nan=False) + "\n"


def unpack(table: Path, folder: Path) -> None:
    """Write the files of a compressed table below a folder."""
    for name, text in read(table):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", newline="")


def read(table: Path) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file in a compressed table."""
    csv.field_size_limit(2**31 - 1)  # a study's manifest is long
    with lzma.open(table, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(io.StringIO(file.read(), newline=""))
        next(rows)
        yield from ((name, text) for name, text in rows)

"""Runs as one compressed table: a row per file, with its path and its text.

The table is committed. Its runs' folders can be written again, and read as after the sweep.
"""

import csv
import io
import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path

from optbench.formats.checksummed_json import add_checksum, remove_checksum

SWEEP_FILES = ("figure.json", "jobs.jsonl")
RUN_FILES = ("run.json", "epochs.csv", "layers.csv")
RESULTS, DATA = "results", "~/.cache/optbench"  # as conf/config.yaml has them


def pack_sweep(sweep: Path, table: Path) -> int:
    """Write the files of a sweep that its figures and verdict need; return their number."""
    paths = [sweep / name for name in SWEEP_FILES]
    for record in sorted(sweep.glob("*/run.json")):
        paths += [record.parent / name for name in RUN_FILES]
    found = [path for path in paths if path.exists()]
    return write(table, ((str(p.relative_to(sweep)), p.read_bytes().decode()) for p in found))


def write(table: Path, rows: Iterable[tuple[str, str]]) -> int:
    """Write paths and texts into a compressed table; return the number of rows.

    Of a `run.json` the folders of the machine become the default ones.
    """
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = [(name, without_folders(name, text)) for name, text in rows]
    with lzma.open(table, "wt", encoding="utf-8", newline="", preset=9) as file:
        writer = csv.writer(file)
        writer.writerow(("path", "text"))
        writer.writerows(rows)
    return len(rows)


def without_folders(name: str, text: str) -> str:
    """Return a file's text; in a `run.json` the folders of its machine become the default ones."""
    if not name.endswith("run.json"):
        return text
    record = remove_checksum(json.loads(text))
    config = record["config"]
    config["results_dir"] = RESULTS
    for part in ("data", "dataset"):
        if "root" in config.get(part, ()):
            config[part]["root"] = DATA
    return json.dumps(add_checksum(record), indent=1, allow_nan=False) + "\n"


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

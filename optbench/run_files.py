"""The files of one run, read strictly: a damaged one is refused, never guessed at.

The counterpart of `optbench.runs`, which writes them. Every function raises OSError or
ValueError, the latter with the end of a sentence that begins with the file's name.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
STATUSES = ("completed", "diverged", "failed", "interrupted", "running")
COLUMNS = {
    "epochs": [
        *["epoch", "step", "train_loss", "train_accuracy", "running_loss", "val_loss"],
        *["val_accuracy", "test_loss", "test_accuracy", "seconds", "total_seconds"],
    ],
    "steps": ["step", "epoch", "train_loss", "lr", "seconds"],
}
# what `run.json` says of the optimizer's step, the same in every row of the table
COST_COLUMNS = ("step_ms", "state_bytes_per_parameter")
ALWAYS = ("epoch", "step", "train_loss", "seconds")  # never an empty cell
REQUIRED = {
    "run_id": str,
    "problem_hash": str,
    "name": str,
    "seed": int,
    "config": dict,
    "problem": dict,
}


def read_record(path: Path) -> dict[str, Any]:
    """One `run.json`, checked for what the table relies on."""
    try:
        record = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError("is not a JSON object")
    if record.get("format") != FORMAT:
        raise ValueError(
            f"has format {record.get('format')!r}; this version of optbench reads format {FORMAT}"
        )
    for key, kind in REQUIRED.items():
        if not isinstance(record.get(key), kind):
            raise ValueError(f"has no {key!r} ({kind.__name__})")
    if record.get("status") not in STATUSES:
        raise ValueError(f"has status {record.get('status')!r}, not one of {', '.join(STATUSES)}")
    return record


def read_rows(path: Path, record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The columns of `epochs.csv` or `steps.csv` of a finished run with this record.

    A run that diverged before its first step has no row in `steps.csv`. One at step 0 stands for
    it (all values NaN, no time spent), or the figures would forget it.
    """
    columns = read_csv(path, COLUMNS[path.stem])
    check_rows(path.stem, columns, record)
    if not len(columns["step"]):
        start = ("step", "epoch", "seconds")
        return {name: np.array([0.0 if name in start else math.nan]) for name in columns}
    return columns


def read_csv(path: Path, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """A CSV file of numbers as columns.

    Strict where `pandas.read_csv` is lenient: a short line would be filled with NaN there, and
    NaN is a legitimate value here (a diverged run).
    """
    text = read_text(path)
    if not text.strip():
        raise ValueError("is empty")
    if not text.endswith("\n"):
        raise ValueError("breaks off in the middle of its last line")
    head, *lines = text.splitlines()
    header = head.split(",")
    if missing := [name for name in needed if name not in header]:
        raise ValueError(f"lacks the column(s) {', '.join(missing)}")
    if len(set(header)) != len(header) or "" in header:
        raise ValueError("has a column without a name, or one name twice")
    filled = [header.index(name) for name in ALWAYS]
    rows = []
    for number, line in enumerate(lines, start=2):
        cells = line.split(",")
        if len(cells) != len(header):
            raise ValueError(f"line {number} has {len(cells)} fields instead of {len(header)}")
        if not all(cells[index] for index in filled):
            raise ValueError(f"line {number} has an empty cell among {', '.join(ALWAYS)}")
        try:
            rows.append([float(cell) if cell else math.nan for cell in cells])
        except ValueError:
            raise ValueError(f"line {number} holds something that is not a number") from None
        if "_" in line:  # Python reads 1_0 as ten
            raise ValueError(f"line {number} holds something that is not a number")
    values = np.array(rows, dtype=float).reshape(-1, len(header))  # (rows, columns)
    columns = dict(zip(header, values.T, strict=True))
    step = columns["step"]
    if not (np.isfinite(step) & (step == np.round(step))).all() or (np.diff(step) <= 0).any():
        raise ValueError("has a column 'step' that does not count upwards in whole numbers")
    for name in ("epoch", "seconds"):
        if not np.isfinite(columns[name]).all() or (np.diff(columns[name]) < 0).any():
            raise ValueError(f"has a column {name!r} that runs backwards or is not finite")
    return columns


def check_rows(rows: str, columns: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Raise ValueError where the CSV of `rows` lost lines, judged by the run's record."""
    count = len(columns["step"])
    summary = record.get("summary")
    written = summary.get("rows") if isinstance(summary, dict) else None  # older runs: no count
    expected = written.get(rows) if isinstance(written, dict) else None
    if expected is not None and count != expected:
        raise ValueError(f"has {count} rows and should have {expected}")
    if not count:
        if rows == "steps" and record.get("diverged_at_step") == 0:
            return
        raise ValueError("has a header and no rows")
    if rows == "steps" or record["status"] != "completed":
        return
    step, epoch = columns["step"][-1], columns["epoch"][-1]
    steps, epochs = record["config"].get("steps"), record["config"].get("epochs")
    if steps is not None:
        if step < steps:
            raise ValueError(f"ends at step {step:g} of {steps}, yet the run completed")
    # half an epoch of slack: the last, smaller batch may be dropped
    elif epochs is not None and epoch < epochs - 0.5:
        raise ValueError(f"ends at epoch {epoch:g} of {epochs}, yet the run completed")


def read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None

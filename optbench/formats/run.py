"""The files of one run, read strictly: a damaged file is refused, not guessed.

`optbench.runs.folder` writes the files. Every function here raises OSError or ValueError. The
message of a ValueError continues a sentence that begins with the file's name.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from optbench import __version__
from optbench.common.files import read_text, replace_text
from optbench.common.metrics import TASK_METRICS
from optbench.formats.checksummed_json import add_checksum, remove_checksum
from optbench.formats.record import FINISHED, UNFINISHED, PlannedRecord, RunRecord, Stop

FORMAT = 1
RUN_COLUMNS = (
    "run", "run_id", "problem", "status", "seed", "optimizer", "device", "engine", "stopped",
)  # fmt: skip
STATUSES = (*FINISHED, *UNFINISHED)
COLUMNS = {
    "epochs": [
        *["epoch", "step", "train_loss", "train_accuracy", "running_loss", "val_loss"],
        *["val_accuracy", "test_loss", "test_accuracy", "seconds", "total_seconds"],
    ],
    "steps": ["step", "epoch", "train_loss", "lr", "seconds"],
    "layers": [  # written only with diagnostics=layers
        *["epoch", "step", "layer", "kind", "depth", "activation_mean", "activation_std"],
        *["dead_fraction", "output_grad_std", "weight_norm", "weight_rank", "grad_norm"],
        *["update_norm", "update_ratio", "noise_scale", "saturated_fraction", "grad_variance"],
        *["activation_p15", "activation_p50", "activation_p85"],
    ],
}
ADDED_COLUMNS = (  # which files of earlier versions lack
    "saturated_fraction", "grad_variance", "activation_p15", "activation_p50", "activation_p85",
)  # fmt: skip
COUNTED = ("forwards", "gradients")  # columns of epochs.csv and steps.csv, since version 0.2
AVERAGED = "averaged_"  # begins the columns of averaged weights
PARTS = ("train", "val", "test")
SHARPNESS_COLUMNS = ("sharpness", "preconditioned_sharpness")  # with diagnostics=sharpness
METRIC_COLUMNS = tuple(  # of epochs.csv, where the task has more metrics than the accuracy
    f"{part}_{metric}" for metric in TASK_METRICS if metric != "accuracy" for part in PARTS
)
AVERAGED_COLUMNS = tuple(  # of epochs.csv, where weights are averaged
    f"{AVERAGED}{part}_{what}" for part in PARTS for what in ("loss", *TASK_METRICS)
)
GAP = "loss_gap"  # of tables, from the losses of epochs.csv: test minus training
TEXT_COLUMNS = ("layer", "kind")  # all others hold numbers
FILLED_COLUMNS = {  # which never have an empty cell
    "epochs": ("epoch", "step", "train_loss", "seconds"),
    "steps": ("epoch", "step", "train_loss", "seconds"),
    "layers": ("epoch", "step", "kind"),
}
# costs from `run.json`, the same in every row of the table
COST_COLUMNS = (
    "step_ms", "step_spread", "state_bytes_per_parameter", "peak_mb", "runs_at_once",
)  # fmt: skip
REQUIRED_KEYS = {
    "run_id": str,
    "problem_hash": str,
    "name": str,
    "seed": int,
    "config": dict,
    "problem": dict,
}

OPTIONAL_KEYS = {
    "device": str, "versions": dict, "summary": dict, "cohort": int, "engine": str,
    "started": str, "finished": str,
}  # fmt: skip


def columns_of(rows: str, record: PlannedRecord) -> list[str]:
    """Return the columns that a run with this record writes to a CSV file."""
    counted = record.get("counted", [])
    if rows == "steps":
        return [*COLUMNS[rows], *counted, *internals_of(record)]
    if rows != "epochs":
        return COLUMNS[rows]
    further = record.get("metrics", [])
    named = [f"{part}_{metric}" for metric in further for part in PARTS]
    columns = [*COLUMNS[rows], *counted, *named]
    if (record["config"].get("averaging") or {}).get("kind") is not None:
        metrics = ("loss", "accuracy", *further)
        columns += [f"{AVERAGED}{part}_{metric}" for part in PARTS for metric in metrics]
    if record["config"].get("diagnostics") == "sharpness":
        columns += SHARPNESS_COLUMNS
    return columns


def internals_of(record: PlannedRecord) -> list[str]:
    """Return the columns of steps.csv that log the optimizer itself (`log.optimizer`)."""
    names = (record["config"].get("log") or {}).get("optimizer")
    return [str(name) for name in names or []]


def read_record(path: Path) -> RunRecord:
    """Return a `run.json`, after checking all values that the table needs."""
    record = read_sealed(path)
    check_format(record)
    for key, kind in REQUIRED_KEYS.items():
        if not isinstance(record.get(key), kind):
            raise ValueError(f"has no {key!r} ({kind.__name__})")
    for key, kind in OPTIONAL_KEYS.items():
        if not isinstance(record.get(key), kind | None):
            raise ValueError(f"has {record[key]!r} as its {key!r} ({kind.__name__})")
    stop_of(record)
    if record.get("status") not in STATUSES:
        raise ValueError(f"has status {record.get('status')!r}, not one of {', '.join(STATUSES)}")
    return cast(RunRecord, record)


def check_format(record: Mapping[str, Any]) -> None:
    """Raise ValueError for a record that only another version of optbench can read.

    Format 1 is the only one so far. Its first records lack later keys: `cost`, `cohort`,
    `resumed`, `settings_hash` and `summary.rows`.
    """
    found = record.get("format")
    if isinstance(found, int) and not isinstance(found, bool) and found > FORMAT:
        versions = record.get("versions")
        by = versions.get("optbench") if isinstance(versions, dict) else None
        raise ValueError(
            f"has format {found}, of optbench {by or 'as yet unknown'}, and this version "
            f"({__version__}) reads formats up to {FORMAT}: update optbench"
        )
    if found != FORMAT or isinstance(found, bool):
        raise ValueError(f"has format {found!r}; this version of optbench reads format {FORMAT}")


def read_rows(path: Path, record: RunRecord) -> dict[str, np.ndarray]:
    """Return the columns of a CSV file of a finished run with this record.

    A run that diverged before its first step has no row in `steps.csv`. It gets a row at step 0,
    with NaN and no time, so that the figures do not lose the run.
    """
    if path.stem == "layers" and not path.exists() and record["config"].get("diagnostics") is None:
        raise ValueError("was not written: the run logged no layers (diagnostics=layers does)")
    text = read_text(path)
    columns = parse_csv(path.stem, text, partial="imported" in record)
    check_rows(path.stem, columns, record)
    if digests(record).get(path.stem) not in (None, hashlib.sha256(text.encode()).hexdigest()):
        raise ValueError(
            "was changed after the run: its SHA-256 is not the one in run.json. Get the file back, "
            "or run again what it held (the same command does)"
        )
    if not len(columns["step"]):
        start = ("step", "epoch", "seconds")
        return {
            name: np.array(["" if name in TEXT_COLUMNS else 0.0 if name in start else math.nan])
            for name in columns
        }
    return columns


def digests(record: RunRecord) -> dict[str, str]:
    """Return the SHA-256 of each CSV file at the run's end; {} for older runs."""
    found = record.get("csv_sha256")
    return dict(found) if isinstance(found, dict) else {}


def intact(folder: Path, record: RunRecord) -> bool:
    """Return whether a finished run's CSV files still have their recorded digests."""
    try:
        for name, expected in digests(record).items():
            path = folder / f"{name}.csv"
            if not path.is_file():  # opening a pipe would wait for its writer
                return False
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return False
    except (OSError, ValueError):
        return False
    return True


def read_csv(path: Path) -> dict[str, np.ndarray]:
    """Return one of a run's CSV files as columns; see `parse_csv`."""
    return parse_csv(path.stem, read_text(path))


def parse_csv(rows: str, text: str, partial: bool = False) -> dict[str, np.ndarray]:
    """Return the text of `epochs.csv`, `steps.csv` or `layers.csv` as columns.

    partial: whether cells other than the step may be empty, as of runs that others trained.

    Columns hold numbers, except `TEXT_COLUMNS`. `pandas.read_csv` would fill a short line with NaN,
    which is a legitimate value of a diverged run.
    """
    if not text.strip():
        raise ValueError("is empty")
    if not text.endswith("\n"):
        raise ValueError("breaks off in the middle of its last line")
    head, *lines = text.splitlines()
    header = head.split(",")
    needed = [name for name in COLUMNS[rows] if name not in ADDED_COLUMNS]
    if missing := [name for name in needed if name not in header]:
        raise ValueError(f"lacks the column(s) {', '.join(missing)}")
    if len(set(header)) != len(header) or "" in header:
        raise ValueError("has a column without a name, or one name twice")
    always = ("step",) if partial else FILLED_COLUMNS[rows]
    filled = [header.index(name) for name in always]
    cells = []  # (rows, columns)
    for number, line in enumerate(lines, start=2):
        row = line.split(",")
        if len(row) != len(header):
            raise ValueError(f"line {number} has {len(row)} fields instead of {len(header)}")
        if not all(row[index] for index in filled):
            raise ValueError(f"line {number} has an empty cell among {', '.join(always)}")
        cells.append(row)
    columns = {}
    for index, name in enumerate(header):
        column = [row[index] for row in cells]
        columns[name] = np.array(column, dtype=object) if name in TEXT_COLUMNS else _numbers(column)
    step = columns["step"]
    counted = np.diff(step) >= 0 if rows == "layers" else np.diff(step) > 0
    if not (np.isfinite(step) & (step == np.round(step))).all() or not counted.all():
        raise ValueError("has a column 'step' that does not count upwards in whole numbers")
    for name in ("epoch", "seconds"):
        values = columns.get(name, np.empty(0))
        values = values[~np.isnan(values)] if partial else values
        if not np.isfinite(values).all() or (np.diff(values) < 0).any():
            raise ValueError(f"has a column {name!r} that runs backwards or is not finite")
    return columns


def _numbers(cells: Sequence[str]) -> np.ndarray:
    """Return the cells of a column as numbers, with NaN for empty ones."""
    values = []
    for number, cell in enumerate(cells, start=2):
        try:
            values.append(float(cell) if cell else math.nan)
        except ValueError:
            raise ValueError(f"line {number} holds something that is not a number") from None
        if "_" in cell:  # Python reads 1_0 as ten
            raise ValueError(f"line {number} holds something that is not a number")
    return np.array(values, dtype=float)


def check_rows(rows: str, columns: Mapping[str, np.ndarray], record: RunRecord) -> None:
    """Raise ValueError where a CSV file has fewer rows than the run's record says."""
    count = len(columns["step"])
    summary = record.get("summary")
    written = summary.get("rows") if isinstance(summary, dict) else None  # older runs: no count
    expected = written.get(rows) if isinstance(written, dict) else None
    if expected is not None and count != expected:
        raise ValueError(f"has {count} rows and should have {expected}")
    if not count:
        if rows != "epochs" and record.get("diverged_at_step") == 0:
            return
        raise ValueError("has a header and no rows")
    if rows != "epochs" or record["status"] != "completed":
        return
    step, epoch = columns["step"][-1], columns["epoch"][-1]
    if stopped := stop_of(record):
        if step > stopped["step"] or (rows == "epochs" and step < stopped["step"]):
            raise ValueError(f"ends at step {step:g}, and the run stopped at {stopped['step']}")
        return
    steps, epochs = record["config"].get("steps"), record["config"].get("epochs")
    if not isinstance(steps, int | float | None) or not isinstance(epochs, int | float | None):
        raise ValueError("cannot be checked: the budget in run.json is no number")
    if steps is not None:
        if step < steps:
            raise ValueError(f"ends at step {step:g} of {steps}, yet the run completed")
    # half an epoch of slack: the last, smaller batch may be dropped
    elif epochs is not None and epoch < epochs - 0.5:
        raise ValueError(f"ends at epoch {epoch:g} of {epochs}, yet the run completed")


def reference_of(record: RunRecord) -> float | None:
    """Return the training loss of a problem's solution in closed form, or None."""
    found = record.get("reference")
    value = found.get("train_loss") if isinstance(found, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def stop_of(record: Mapping[str, Any]) -> Stop | None:
    """Return why and at which step a run ended before its budget of steps, or None."""
    found = record.get("stopped")
    if found is None:
        return None
    by, step = (found.get("by"), found.get("step")) if isinstance(found, dict) else (None, None)
    if not isinstance(by, str) or not isinstance(step, int):
        raise ValueError(f"has {found!r} as its 'stopped' (by, step)")
    return {"by": by, "step": step}


def check_whole(folder: Path, record: RunRecord) -> None:
    """Raise ValueError or OSError where a finished run's CSV files have changed.

    This is quicker than reading the numbers.
    """
    if not intact(folder, record):
        raise ValueError("has a CSV file that was changed or lost after the end")
    summary = record.get("summary")
    written = summary.get("rows") if isinstance(summary, dict) else None
    if not isinstance(written, dict):  # an older run: no count
        check_rows("epochs", read_csv(folder / "epochs.csv"), record)
        return
    for name, count in written.items():
        data = (folder / f"{name}.csv").read_bytes()
        if data.count(b"\n") != count + 1 or not data.endswith(b"\n"):
            raise ValueError(f"has lost rows of {name}.csv")


def read_sealed(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file, without its checksum."""
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError("is not a JSON object")
    json.dumps(content, ensure_ascii=False).encode()  # ValueError for half a surrogate pair
    return remove_checksum(content)


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its checksum, as a whole. Raise ValueError for NaN."""
    replace_text(path, json.dumps(add_checksum(content), indent=1, allow_nan=False) + "\n")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config by dotted keys, with lists as JSON and None as "null"."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat[prefix + key] = json.dumps(value)
        else:
            flat[prefix + key] = "null" if value is None else value
    return flat

"""What was run, as plain data for the report: curves, layers, the list of runs, their commands."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench import jobs, style
from optbench.commands import command
from optbench.keys import measured_columns, order, short, show
from optbench.layout import Layout
from optbench.panels import default_log, series_of, titles, y_label
from optbench.run_files import read_record
from optbench.stats import smaller_is_better
from optbench.table import FINISHED, find_runs, flatten

CURVE_BYTES = 780_000  # of base64 in a report, so that the whole stays below 1.5 MB
MOST_ROWS, FEWEST_ROWS = 400, 20  # of one run
MOST_VALUES = 12  # of a configuration key by which panels may be made
CLOCKS = {"step": "optimizer steps", "epoch": "epochs", "seconds": "training time (s)"}
Record = tuple[Path, dict[str, Any]]


class Names(NamedTuple):
    """How the series are called, drawn and switched."""

    series: list[dict[str, Any]]  # name, toggle, color, dash
    place: dict[str, int]  # in them, of the series of each run
    toggles: list[dict[str, Any]]  # name, color, dash: what is clicked on and off
    toggle_of: dict[str, str]  # from any name of a series or an optimizer


def names_of(plan: Layout) -> Names:
    """Each series once, in the order of the figures, with its colour and dashes.

    One switch per optimizer; where there is a single one, per setting.
    """
    variants = dict(zip(plan.runs["run"], plan.runs["variant"], strict=True))
    owners = dict(zip(plan.runs["run"], plan.runs["optimizer"], strict=True))
    several = len(set(owners.values())) > 1
    series: dict[str, dict[str, Any]] = {}
    place: dict[str, int] = {}
    for _, members, look in series_of(plan.runs, plan):
        for run in members:
            name = variants[run]
            toggle = owners[run] if several else name
            series.setdefault(name, {"name": name, "toggle": toggle, **drawn(look)})
            place[run] = list(series).index(name)
    toggles: dict[str, dict[str, Any]] = {}
    for entry in series.values():
        name = entry["toggle"]
        of_name = drawn(style.look(name)) if several else entry
        part = {key: of_name[key] for key in ("color", "dash")}
        toggles.setdefault(name, {"name": name, **part})
    toggle_of = {name: str(entry["toggle"]) for name, entry in series.items()}
    toggle_of |= {name: name for name in toggles}
    return Names(list(series.values()), place, list(toggles.values()), toggle_of)


def drawn(look: style.Look) -> dict[str, Any]:
    """A look as a colour in hexadecimal and a list of dashes in line widths."""
    color = look.color
    if not isinstance(color, str):
        color = "#" + "".join(f"{round(255 * part):02x}" for part in color)
    dash = [] if isinstance(look.dashes, str) else list(look.dashes[1])
    return {"color": color, "dash": dash}


def packed(values: np.ndarray) -> str:
    """float32, little-endian, in base64: seven digits in 5.3 bytes, NaN and infinities included."""
    with np.errstate(over="ignore"):
        return base64.b64encode(np.asarray(values).astype("<f4").tobytes()).decode()


def thinned(rows: int, most: int) -> np.ndarray:
    """Which of so many rows are kept: all, or evenly spaced ones with the first and the last."""
    if rows <= most:
        return np.arange(rows)
    return np.unique(np.linspace(0, rows - 1, most).round().astype(int))


def curves(
    tables: dict[str, pd.DataFrame], plan: Layout, names: Names, first: str
) -> dict[str, Any]:
    """Every logged number of every compared run, thinned where there are too many rows.

    tables: `load_runs` by its `rows` ("epochs", "steps"). first: the metric that is shown at first.
    Arrays that several runs share (steps, epochs) are kept once: columns are indices of `arrays`.
    """
    logged = {rows: metrics_of(table) for rows, table in tables.items()}
    columns = sum(len(found) + 1 for found in logged.values())
    most = int(CURVE_BYTES / max(1, len(plan.runs) * columns) / (16 / 3))
    most = min(MOST_ROWS, max(FEWEST_ROWS, most))
    keys = facet_keys(plan)
    values = {key: sorted({show(v): v for v in plan.runs[key]}.values(), key=order) for key in keys}
    places = {key: {show(v): i for i, v in enumerate(found)} for key, found in values.items()}
    found = sorted(plan.runs["panel"], key=lambda panel: [panel_order(value) for value in panel])
    panels = {str(panel): ", ".join(titles(plan, panel)) for panel in found}
    arrays: dict[str, int] = {}
    entries: list[dict[str, Any]] = [
        {
            "panel": list(panels).index(str(row["panel"])),
            "series": names.place[row["run"]],
            "seed": int(row["seed"]),
            "diverged": row["status"] == "diverged",
            "keys": [places[key][show(row[key])] for key in keys],
        }
        for row in plan.runs.to_dict("records")
    ]
    longest: dict[str, int] = {}
    for rows, table in tables.items():
        at = table.groupby("run", observed=True, sort=False).indices
        length = [len(at[run]) if run in at else 0 for run in plan.runs["run"]]
        longest[rows] = max(length)
        for entry, run, own in zip(entries, plan.runs["run"], length, strict=True):
            if not own:
                continue
            # as the panel's longest run, so that medians have a common grid; and the end
            beside = zip(length, entries, strict=True)
            all_rows = max(size for size, other in beside if other["panel"] == entry["panel"])
            kept = thinned(all_rows, most)
            chosen = np.asarray(at[run])[np.unique([*kept[kept < own], own - 1])]
            for name in [*CLOCKS, *logged[rows]]:
                text = packed(table[name].to_numpy()[chosen])
                entry.setdefault(rows, {})[name] = arrays.setdefault(text, len(arrays))
    return {
        "metrics": [
            {
                "key": name,
                "rows": rows,
                "label": y_label(tables[rows], name),
                "log": default_log(name),
                "percent": "accuracy" in name,
                "smaller": smaller_is_better(name),
            }
            for rows, found in logged.items()
            for name in sorted(found, key=lambda name: name != first)
        ],
        "clocks": CLOCKS,
        "panels": list(panels.values()),
        "facets": [{"key": short(k), "values": [show(v) for v in values[k]]} for k in keys],
        "runs": entries,
        "arrays": list(arrays),
        "most": most,
        "rows": longest,
    }


def panel_order(value: object) -> tuple[int, float, str]:
    """The order of panels: that of their values, and the tuned phase before the default one."""
    phases = {"tuned": "0", "default": "1"}
    return order(phases.get(str(value), value))


def metrics_of(table: pd.DataFrame) -> list[str]:
    """The logged columns that hold a finite number and are no clock."""
    skip = {*CLOCKS, "total_seconds", "step_ms", "state_bytes_per_parameter"}
    names = [name for name in measured_columns(table) if name not in skip]
    return [name for name in names if np.isfinite(table[name].to_numpy(dtype=float)).any()]


def facet_keys(plan: Layout) -> list[str]:
    """The configuration keys by which the panels may be split further."""
    found = []
    skip = {"run", "run_id", "problem", "status", "panel", "setting", "variant", "series", "name"}
    for key in map(str, plan.runs):
        if key in skip or "._" in key or key.endswith("digest"):
            continue
        if 1 < len(plan.runs[key].map(show).unique()) <= MOST_VALUES:
            found.append(key)
    return found


def records_of(folders: Sequence[str | Path]) -> list[Record]:
    """Every readable `run.json` below the folders; `load_runs` names the others."""
    found: list[Record] = []
    for folder in find_runs(folders)[0]:
        try:
            found.append((folder, read_record(folder / "run.json")))
        except (OSError, ValueError):
            continue
    return found


def run_list(
    records: Sequence[Record], folders: Sequence[Path], table: pd.DataFrame, conf: Path
) -> dict[str, Any]:
    """One entry per run with its command, and the configuration: what is shared, what differs.

    conf: see `commands.command`.
    """
    flat = [{k: show(v) for k, v in flatten(record["config"]).items()} for _, record in records]
    keys = list(dict.fromkeys(key for config in flat for key in config))
    shared = {
        key: flat[0][key]
        for key in keys
        if key in flat[0] and all(config.get(key) == flat[0][key] for config in flat)
    }
    finished = {record["run_id"] for _, record in records if record["status"] in FINISHED}
    used = set(map(str, table["run"].unique()))
    entries = []
    for (folder, record), config in zip(records, flat, strict=True):
        status = record["status"]
        if status not in FINISHED and record["run_id"] in finished:
            continue  # it was run again
        step = record.get("diverged_at_step")
        message = f"the loss was not finite at step {step}" if status == "diverged" else ""
        if status not in FINISHED:
            message = str(record.get("error") or "no message: the process ended")
        entries.append(
            {
                "run": relative(folder, folders),
                "name": str(record["name"]),
                "seed": record["seed"],
                "status": status,
                "phase": str(record["config"].get("phase") or ""),
                "message": message,
                "compared": str(folder) in used,
                "command": command(record["config"], conf),
                "differs": {k: v for k, v in config.items() if k not in shared and "._" not in k},
            }
        )
    return {"shared": shared, "runs": entries}


def relative(folder: Path, folders: Sequence[Path]) -> str:
    """A run's folder as seen from the one that was given."""
    for base in folders:
        if folder != base and folder.is_relative_to(base):
            return str(folder.relative_to(base))
    return folder.name


def missing(plan: Layout, folders: Sequence[Path]) -> list[str]:
    """Runs that are not there: seeds that others of their panel have, and planned jobs."""
    found = []
    for _, part in plan.runs.groupby(plan.runs["panel"].map(str), sort=False):
        seeds = sorted(part["seed"].unique())
        where = ", ".join(titles(plan, part["panel"].iloc[0]))
        for name, own in part.groupby("variant", sort=False):
            lacking = [str(seed) for seed in seeds if seed not in set(own["seed"])]
            if lacking:
                head = f"{where}: " if where else ""
                found.append(f"{head}{name} lacks seed {', '.join(lacking)}")
    for path in sorted({path for folder in folders for path in folder.rglob(jobs.FILE)}):
        try:
            lost = jobs.of_sweep(path.parent)["jobs"]["missing"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no list that can be read, or one of an older version
        found += [f"planned and not run: {text}" for text in lost]
    return found


def failed_jobs(folders: Sequence[Path], records: Sequence[Record]) -> list[dict[str, str]]:
    """Jobs of sweeps that failed before they had a folder: what was asked for, and the message."""
    told = {str(record.get("error")) for _, record in records}
    return [
        {"command": " ".join(map(str, job["overrides"])), "message": str(job.get("error"))}
        for path in sorted({path for folder in folders for path in folder.rglob(jobs.FILE)})
        for job in jobs.failed(path.parent)
        if str(job.get("error")) not in told
    ]


def machines(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The versions, devices and commits that the runs were made with, most frequent first."""
    counts: dict[str, int] = {}
    for _, record in records:
        facts = {key: show(value) for key, value in (record.get("versions") or {}).items()}
        for key in ("device", "machine", "git_commit"):
            value = record.get(key)
            if isinstance(value, dict):
                facts |= {name: show(item) for name, item in value.items()}
            elif value:
                facts[key.replace("_", " ")] = show(value)
        text = json.dumps(facts)
        counts[text] = counts.get(text, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return [{"runs": count, "facts": json.loads(text)} for text, count in ranked]

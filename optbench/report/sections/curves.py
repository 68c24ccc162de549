"""The curves of a report as plain data, with names, styles and switches of series."""

import base64
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from optbench.analysis.columns import logged_columns, panel_key, short_name
from optbench.analysis.comparison import Comparison
from optbench.analysis.final_values import Timing
from optbench.analysis.series import Layout
from optbench.common.metrics import metric_of
from optbench.common.text import show, sort_key
from optbench.figures import style
from optbench.figures.axes import y_label
from optbench.figures.curves import MAX_BANDS, reference_of_panel
from optbench.figures.looks import series_of
from optbench.figures.panels import titles

CURVE_BYTES = 1_200_000  # of base64, so that a whole report stays below 1.5 MB
MAX_ROWS, MIN_ROWS = 400, 20  # of one run
MAX_KEY_VALUES = 12  # of a configuration key that may split panels
CLOCKS = {"step": "optimizer steps", "epoch": "epochs", "seconds": "training time (s)"}


class Names(NamedTuple):
    """The names, styles and switches of series."""

    series: list[dict[str, Any]]  # name, label (in its panel), toggle, color, dash
    place: dict[str, int]  # run: the index of its series in `series`
    toggles: list[dict[str, Any]]  # name, label, color, dash of each switch
    toggle_of: dict[str, str]  # the name of a series or an optimizer: its switch

    def toggle(self, name: str, optimizer: str) -> str:
        """Return the switch of an optimizer's series, by either name."""
        return self.toggle_of.get(name, self.toggle_of.get(optimizer, optimizer))


def names_of(plan: Layout) -> Names:
    """Return each series once in the figures' order, with colour and dashes.

    There is one switch per optimizer, or per setting of a single optimizer.
    """
    variants = dict(zip(plan.runs["run"], plan.runs["variant"], strict=True))
    owners = dict(zip(plan.runs["run"], plan.runs["optimizer"], strict=True))
    several = len(set(owners.values())) > 1
    series: dict[str, dict[str, Any]] = {}
    place: dict[str, int] = {}
    for label, members, look in series_of(plan.runs, plan):
        for run in members:
            name = variants[run]
            entry = {"name": name, "label": label, "toggle": owners[run] if several else name}
            series.setdefault(name, entry | drawn(look))
            place[run] = list(series).index(name)
    toggles: dict[str, dict[str, Any]] = {}
    for entry in series.values():
        name = entry["toggle"]
        of_name = drawn(style.style_of(name)) if several else entry
        part = {key: of_name[key] for key in ("color", "dash")}
        label = name if several else entry["label"]
        toggles.setdefault(name, {"name": name, "label": label, **part})
    # A series may have the name of another optimizer.
    toggle_of = {name: name for name in toggles}
    toggle_of |= {name: str(entry["toggle"]) for name, entry in series.items()}
    return Names(list(series.values()), place, list(toggles.values()), toggle_of)


def drawn(look: style.LineStyle) -> dict[str, Any]:
    """Return a style as a hexadecimal colour and a list of dashes in line widths.

    shade: whether the colour is one of several shades, whose order a dark page reverses."""
    dash = [] if isinstance(look.dashes, str) else list(look.dashes[1])
    return {"color": to_hex(look.color), "dash": dash, "shade": not isinstance(look.color, str)}


def packed(values: np.ndarray) -> str:
    """Return float32 in base64: seven digits in 5.3 bytes, with NaN and infinities."""
    with np.errstate(over="ignore"):
        return base64.b64encode(np.asarray(values).astype("<f4").tobytes()).decode()


def thinned(rows: int, most: int) -> np.ndarray:
    """Return which rows are kept: all, or evenly spaced ones with first and last."""
    if rows <= most:
        return np.arange(rows)
    return np.unique(np.linspace(0, rows - 1, most).round().astype(int))


def curves(
    tables: dict[str, pd.DataFrame],
    plan: Layout,
    names: Names,
    first: str,
    timing: Timing | None = None,
) -> dict[str, Any]:
    """Return every logged number of every compared run, thinned if rows are many.

    tables: `load_runs` for each of its `rows` ("epochs", "steps"). first: the metric shown first.
    Arrays that several runs share (steps, epochs) are kept once. Columns are indices of `arrays`.
    Runs without comparable times have no seconds.
    """
    timing = timing or Timing()
    logged = {rows: metrics_of(table) for rows, table in tables.items()}
    columns = sum(len(found) + 1 for found in logged.values())
    most = int(CURVE_BYTES / max(1, len(plan.runs) * columns) / (16 / 3))
    most = min(MAX_ROWS, max(MIN_ROWS, most))
    keys = facet_keys(plan)
    values = {
        key: sorted({show(v): v for v in plan.runs[key]}.values(), key=sort_key) for key in keys
    }
    places = {key: {show(v): i for i, v in enumerate(found)} for key, found in values.items()}
    found = sorted(plan.runs["panel"], key=lambda panel: [panel_key(value) for value in panel])
    panels = {str(panel): ", ".join(titles(plan, panel)) for panel in found}
    arrays: dict[str, int] = {}
    place_of = {panel: i for i, panel in enumerate(panels)}
    entries: list[dict[str, Any]] = [
        {
            "panel": place_of[str(row["panel"])],
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
        cells = {name: table[name].to_numpy() for name in [*CLOCKS, *logged[rows]]}
        longest_of: dict[int, int] = {}  # of each panel
        for entry, own in zip(entries, length, strict=True):
            longest_of[entry["panel"]] = max(own, longest_of.get(entry["panel"], 0))
        for entry, run, own in zip(entries, plan.runs["run"], length, strict=True):
            if not own:
                continue
            # All runs of a panel are thinned like its longest, so that medians have a common grid.
            # Each run also keeps its last row.
            kept = thinned(longest_of[entry["panel"]], most)
            chosen = np.asarray(at[run])[np.unique([*kept[kept < own], own - 1])]
            clocks = [name for name in CLOCKS if name != "seconds" or run not in timing.untimed]
            for name in [*clocks, *logged[rows]]:
                text = packed(cells[name][chosen])
                entry.setdefault(rows, {})[name] = arrays.setdefault(text, len(arrays))
    return {
        "metrics": [
            {
                "key": name,
                "rows": rows,
                "label": y_label(tables[rows], name),
                "log": metric_of(name).log,
                "percent": metric_of(name).percent,
                "smaller": metric_of(name).smaller,
            }
            for rows, found in logged.items()
            for name in sorted(found, key=lambda name: name != first)
        ],
        "clocks": CLOCKS,
        "timing": timing.sentence,
        "panels": list(panels.values()),
        "references": [_reference(tables.get("epochs"), plan.runs, panel) for panel in panels],
        "facets": [{"key": short_name(k), "values": [show(v) for v in values[k]]} for k in keys],
        "runs": entries,
        "arrays": list(arrays),
        "most": most,
        "bands": MAX_BANDS,
        "rows": longest,
    }


def _reference(table: pd.DataFrame | None, runs: pd.DataFrame, panel: str) -> float | None:
    """Return the least training loss of a panel's problem, if figures draw it."""
    if table is None:
        return None
    return reference_of_panel(table, runs[runs["panel"].map(str) == panel], "train_loss")


def metrics_of(table: pd.DataFrame) -> list[str]:
    """Return the logged columns that hold a finite number and are no clock."""
    skip = {*CLOCKS, "total_seconds"}
    names = [name for name in logged_columns(table) if name not in skip]
    return [name for name in names if np.isfinite(table[name].to_numpy(dtype=float)).any()]


def facet_keys(plan: Layout) -> list[str]:
    """Return the configuration keys by which the panels may be split further."""
    found = []
    skip = {
        "run",
        "run_id",
        "problem",
        "status",
        "panel",
        "keys",
        "setting",
        "variant",
        "series",
        "name",
    }
    for key in map(str, plan.runs):
        if key in skip or "._" in key or key.endswith("digest"):
            continue
        shown = plan.runs[key].map(show)
        # A hyperparameter with one value per optimizer says no more than the optimizer's name.
        own = key.startswith("optimizer.") and shown.groupby(plan.runs["optimizer"]).nunique() < 2
        if 1 < shown.nunique() <= MAX_KEY_VALUES and not np.all(own):
            found.append(key)
    return found


def split_by(made: Comparison) -> str:
    """Return the key that splits panels with too many lines, as figures do; else ""."""
    plan, spread = made.plan, made.spread(made.options.facet, made.options.lines)
    found = [key for key in spread.facet if key not in plan.facet and key in facet_keys(plan)]
    return short_name(found[0]) if found else ""

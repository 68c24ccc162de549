"""Published and own values as frames of one form: series, x, value."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from optbench import load_runs
from optbench.common.text import show
from scripts.results.reproductions.studies import OUT, Study

PUBLISHED = OUT / "published"


def published(study: Study, folder: Path = PUBLISHED) -> pd.DataFrame:
    """Return the published values, with x moved to our count of passes.

    Columns: series, x, value. The YAML's `published` names the file and its columns; `series` may
    be a text with columns in braces. `shift` is added to x.
    """
    asked = study.spec["published"]
    table = pd.read_csv(folder / f"{asked['file']}.csv")
    for key, value in asked.get("where", {}).items():
        table = table[table[key] == value]
    frame = pd.DataFrame(
        {
            "series": series_of(table, asked["series"], {}),
            "x": table[asked["x"]].astype(float) + asked.get("shift", 0),
            "value": table[asked["value"]].astype(float),
        }
    )
    return frame.sort_values(["series", "x"], ignore_index=True)


def ours(study: Study, folder: Path) -> pd.DataFrame:
    """Return our values: series, x, value, low, high (over the seeds; value is the median).

    The YAML's `ours` has `rows` (epochs, layers), `where` (columns and the values kept), `series` (a
    column, or a text with columns in braces), `names` (of series), `x`, `value` and `at` (all, or
    the last row of each run). A run that diverged has the value inf.
    """
    asked = study.spec["ours"]
    table = load_runs(folder, rows=asked.get("rows", "epochs"))
    for key, value in asked.get("where", {}).items():
        wanted = [show(each) for each in (value if isinstance(value, list) else [value])]
        table = table[table[key].map(show).isin(wanted)]
    if asked.get("at", "all") == "last":
        table = table.groupby("run", observed=True, sort=False).tail(1)
    value = 100 * (1 - table["test_accuracy"]) if asked["value"] == "test_error_pct" else None
    value = table[asked["value"]] if value is None else value
    frame = pd.DataFrame(
        {
            "series": series_of(table, asked["series"], asked.get("names", {})),
            "x": table[asked["x"]].astype(float),
            "value": value.astype(float) * asked.get("scale", 1),
        }
    )
    lost = (table["status"] == "diverged").to_numpy() & (asked.get("at") == "last")
    frame.loc[lost, "value"] = float("inf")
    grouped = frame.dropna().groupby(["series", "x"])["value"]
    spread = grouped.agg(value="median", low="min", high="max")
    return spread.reset_index()


def series_of(table: pd.DataFrame, text: str, names: Mapping[str, str]) -> "pd.Series[str]":
    """Return the series of each row: a column's values, or a text with columns in braces."""
    if "{" not in text:
        found = table[text].astype(str)
    else:
        keys = [part.partition("}")[0] for part in text.split("{")[1:]]
        found = pd.Series(text, index=table.index)
        for key in keys:
            cells = table[key].map(show)
            found = pd.Series(
                [
                    old.replace("{" + key + "}", cell)
                    for old, cell in zip(found, cells, strict=True)
                ],
                index=table.index,
                dtype=object,
            )
    return found.map(lambda name: names.get(name, name))


def seconds(folder: Path) -> float:
    """Return the seconds that all runs took, added up."""
    table = load_runs(folder)
    return float(table.groupby("run", observed=True)["total_seconds"].max().sum())


def values_at(frame: pd.DataFrame, x: float) -> dict[str, Any]:
    """Return each series' value at the point that is nearest to x."""
    found = {}
    for name, part in frame.groupby("series"):
        found[str(name)] = float(part["value"].to_numpy()[(part["x"] - x).abs().argmin()])
    return found

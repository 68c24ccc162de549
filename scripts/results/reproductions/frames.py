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
    """Return the published values: series, x (with `shift` added), value; empty without numbers.

    The YAML's `published` names the file and its columns, and may have `where` (columns and the
    value kept), `only` (series) and `as`.
    """
    asked = study.spec["published"]
    if asked is None:  # statements alone
        return pd.DataFrame({"series": [], "x": [], "value": []})
    table = pd.read_csv(folder / f"{asked['file']}.csv")
    for key, value in asked.get("where", {}).items():
        table = table[table[key] == value]
    frame = frame_of(table, asked)
    if "only" in asked:
        frame = frame[frame["series"].isin(asked["only"])]
    return frame.sort_values(["series", "x"], ignore_index=True)


def ours(study: Study, folder: Path) -> pd.DataFrame:
    """Return our values: series, x, value, low, high (over the seeds; value is the median).

    The YAML's `ours` names the columns. It may have `rows` (epochs, layers), `where` (columns and
    the values kept), `names` (of series), `at` (all, or the last row of each run), `times` (a
    column that is multiplied), `only` (series) and `as`. At the last row a diverged run has the
    value inf.
    """
    asked = study.spec["ours"]
    table = load_runs(folder, rows=asked.get("rows", "epochs"))
    for key, value in asked.get("where", {}).items():
        wanted = [show(each) for each in (value if isinstance(value, list) else [value])]
        table = table[table[key].map(show).isin(wanted)]
    last = asked.get("at", "all") == "last"
    if last:
        table = table.groupby("run", observed=True, sort=False).tail(1)
    frame = frame_of(table, asked)
    if "times" in asked:
        frame["value"] *= table[asked["times"]].astype(float).to_numpy()
    if last:
        frame.loc[(table["status"] == "diverged").to_numpy(), "value"] = float("inf")
    if "only" in asked:
        frame = frame[frame["series"].isin(asked["only"])]
    grouped = frame.dropna().groupby(["series", "x"])["value"]
    return grouped.agg(value="median", low="min", high="max").reset_index()


def drift(study: Study, folder: Path) -> pd.DataFrame:
    """Return the percentiles of the inputs of the last activation: series, x, p15, p50, p85.

    The YAML's `drift` names the kind of the activation. Its inputs are the outputs of the layer
    before it, from the rows of layers.csv.
    """
    table = load_runs(folder, rows="layers")
    kind = table["kind"].astype(str)
    depth = table.loc[kind == study.spec["drift"], "depth"].max()
    table = table[(table["depth"] == depth) & (kind != study.spec["drift"])]
    table = table.groupby(["run", "step"], observed=True, sort=False).tail(1)
    asked = study.spec["ours"]
    return pd.DataFrame(
        {
            "series": series_of(table, asked["series"], asked.get("names", {})),
            "x": table["step"].astype(float),
            **{p: table[f"activation_{p}"].astype(float) for p in ("p15", "p50", "p85")},
        }
    ).reset_index(drop=True)


def frame_of(table: pd.DataFrame, asked: Mapping[str, Any]) -> pd.DataFrame:
    """Return the columns series, x and value of a table, by the names in a study's YAML.

    `series` is a column, or a text with columns in braces. `as: error_pct` makes a percentage of
    errors of an accuracy.
    """
    value = table[asked["value"]].astype(float)
    if asked.get("as") == "error_pct":
        value = 100 * (1 - value)
    frame = pd.DataFrame(
        {
            "series": series_of(table, asked["series"], asked.get("names", {})),
            "x": table[asked["x"]].astype(float) + asked.get("shift", 0),
            "value": value,
        }
    )
    return frame.reset_index(drop=True)


def series_of(table: pd.DataFrame, text: str, names: Mapping[str, str]) -> "pd.Series[str]":
    """Return the series of each row: a column's values, or a text with columns in braces."""
    if "{" not in text:
        found = table[text].map(show) if text in table else pd.Series(text, index=table.index)
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
    return found.astype(object).map(lambda name: names.get(name, name))


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

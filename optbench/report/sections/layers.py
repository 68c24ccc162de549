"""The statistics of layers in a report, as plain data."""

from typing import Any

import numpy as np

from optbench.analysis.columns import logged_columns
from optbench.analysis.comparison import Comparison
from optbench.figures.panels import titles
from optbench.report.sections.curves import Names, thinned


def layers(made: Comparison, names: Names, most: int = 60) -> dict[str, Any]:
    """Return layers' statistics by step: seed medians, a panel per problem and layer.

    Raises UserError if no layers were logged."""
    table = made.rows("layers")
    skip = {"epoch", "step", "layer", "kind", "depth"}
    metrics = [name for name in logged_columns(table) if name not in skip]
    plan = made.series()
    variant = dict(zip(plan.runs["run"], plan.runs["variant"], strict=True))
    text = {
        run: ", ".join(titles(plan, panel))
        for run, panel in zip(plan.runs["run"], plan.runs["panel"], strict=True)
    }
    runs = table["run"].astype(object)
    layer = table["layer"].astype(str)
    kind = table["kind"].astype(str)
    titled = ("layer " + layer + ", " + kind).where(layer != "all", "the whole model")
    rows = table[["step", *metrics]].assign(
        layer=titled, variant=runs.map(variant), panel=runs.map(text), run=runs
    )
    grid = np.sort(rows["step"].unique())
    rows = rows[rows["step"].isin(grid[thinned(len(grid), most)])]
    keys = ["panel", "layer", "variant"]
    owners = plan.owners
    entries: list[dict[str, Any]] = []
    for (panel, which, series), part in rows.groupby(keys, sort=False):
        name = str(series)
        own = part.groupby("step", sort=True)[metrics].median()
        values = {
            metric: own[metric].to_numpy(dtype=float)
            for metric in metrics
            if np.isfinite(own[metric].to_numpy(dtype=float)).any()
        }
        entries.append(
            {
                "panel": f"{panel}: {which}".removeprefix(": "),
                "name": name,
                "toggle": names.toggle(name, owners[name]),
                "x": own.index.to_numpy(dtype=float),
                "n": int(part["run"].nunique()),
                "values": values,
            }
        )
    present = [name for name in metrics if any(name in entry["values"] for entry in entries)]
    return {"metrics": present, "lines": entries}

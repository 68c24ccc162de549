"""Everything that a report shows, as one JSON object of tables, statistics and figures."""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from optbench import __version__
from optbench.analysis.caveats import objections
from optbench.analysis.columns import of_runs, where
from optbench.analysis.comparison import has_rates, ranked, ranks_figure, times_to_target
from optbench.analysis.series import layout
from optbench.analysis.table import read_runs
from optbench.analysis.time_to_target import phases, reach_figure
from optbench.commands.plot import UNDATED, Options, from_config, split_trials
from optbench.common.errors import UserError
from optbench.common.metrics import smaller_is_better
from optbench.config.groups import config_folder
from optbench.figures import style
from optbench.figures.panels import TooManyPanels, check_column
from optbench.formats.keys import COSMETIC_KEYS, NO_EFFECT_KEYS
from optbench.formats.study import figure_of, manifests_of, protocol_of
from optbench.report import tables as report_data
from optbench.report.sections import curves, pairs, targets, verdict
from optbench.report.sections import runs as report_runs
from optbench.stats.ranks import mean_ranks

MOST_REACHED = 40  # rows of the figure of times to target


def collect(
    folders: Sequence[Path],
    conditions: Sequence[str] = (),
    y: str | None = None,
    facet: Sequence[str] | None = None,
) -> dict[str, Any]:
    """All that the page shows, as plain data. Raises UserError as `load_runs` and `layout` do."""
    loaded = where(read_runs(*folders), conditions)
    left_out, older = list(loaded.attrs["problems"]), loaded.attrs["older"]
    trials, table = split_trials(loaded)
    tables = {"epochs": table}
    try:
        tables["steps"] = of_runs(read_runs(*folders, rows="steps"), table)
        left_out = sorted({*left_out, *tables["steps"].attrs["problems"]})
    except UserError:
        pass  # the curves of the mini-batches are an addition
    if y is not None:
        check_column(table, y)
    options = from_config(Options(y=y, facet=facet), figure_of(folders))
    manifests = manifests_of(folders, loaded)
    protocol = protocol_of(manifests)
    tuned = trials is not table
    facet, lines = options.facet, options.lines
    plan = layout(table, facet, lines)
    for frame in (loaded, trials, *tables.values()):
        frame.attrs["mixed"] = False  # they were asked for side by side, or are of one problem
    names = curves.names_of(plan)
    first = options.y or "train_loss"
    final = first if first in table and np.isfinite(table[first]).any() else "train_loss"
    column = protocol.metric.replace("val_", "test_") if tuned and y is None else final
    if not np.isfinite(table[column]).any():
        column = final
    records = report_runs.records_of(folders)
    if conditions:
        wanted = set(loaded["run_id"].astype(str))
        records = [(path, record) for path, record in records if record["run_id"] in wanted]
    target = options.target
    found = maybe(lambda: times_to_target(table, protocol.metric, final, facet, lines, target))
    warnings = maybe(lambda: objections(table, trials, manifests, column, facet, lines)) or []
    cards = maybe(lambda: verdict.cards(table, trials, protocol, column, names)) or []
    data: dict[str, Any] = {
        "version": __version__,
        "title": ", ".join(  # a name may hold bytes that are no text
            folder.resolve().name.encode("utf-8", "backslashreplace").decode() for folder in folders
        ),
        "facts": facts(table, trials, plan),
        "names": names.series,
        "toggles": names.toggles,
        "verdict": {"cards": cards, "column": column.replace("_", " ")},
        "warnings": list(map(readable, warnings)),
        "view": {"y": first, "x": options.x or "epoch", "log": options.log},
        "curves": curves.curves(tables, plan, names, first),
        "ranking": report_data.ranking(table, column, facet, lines, names),
        "matrices": maybe(lambda: pairs.matrices(table, column, names)) or [],
        "ranks": ranks_of(table, column, facet, names),
        "rates": None,
        "budget": None,
        "reached": None,
        "reached_figure": None,
        "performance": None,
        "layers": maybe(lambda: layers_of(folders, table, names)),
        "runs": report_runs.run_list(records, folders, table, config_folder()),
        "missing": report_runs.missing(plan, folders, manifests),
        "failed_jobs": report_runs.failed_jobs(folders, records),
        "left_out": [*left_out, *older],
        "older": older,
        "machines": report_runs.machines(records),
    }
    if tuned:
        data["rates"] = maybe(lambda: report_data.tuned_rates(trials, *protocol, names))
        data["budget"] = maybe(lambda: report_data.budget(trials, *protocol, names))
    elif has_rates(table):
        data["rates"] = maybe(lambda: report_data.swept_rates(table, final, facet, names))
    if found is not None:
        data["reached"] = targets.reached(found, names)
        data["performance"] = targets.performance(found, names)
        if len(found.frame) <= MOST_REACHED:
            data["reached_figure"] = picture(lambda: reach_figure(found), names)
    result: dict[str, Any] = plain(data)
    return result


def maybe(job: Callable[[], Any]) -> Any:
    """A section that nobody asked for: None where it does not apply to these runs."""
    try:
        return job()
    except UserError:
        return None


def layers_of(folders: Sequence[Path], table: pd.DataFrame, names: curves.Names) -> dict[str, Any]:
    """The section of layer statistics; UserError where none were logged."""
    return report_data.layers(of_runs(read_runs(*folders, rows="layers"), table), names)


def facts(table: pd.DataFrame, trials: pd.DataFrame, plan: Any) -> list[list[str]]:
    """What was compared, in a few words each."""
    runs = plan.runs
    main = phases(table)
    seeds = [int(seed) for seed in sorted(runs["seed"].unique())]
    lines = [
        ["runs compared", str(len(runs))],
        ["optimizers", str(runs["optimizer"].nunique())],
        ["problems", str(runs["problem"].nunique())],
        ["seeds", str(len(seeds))],
    ]
    if trials is not table:
        lines.insert(1, ["trials", str(trials["run"].nunique())])
    for key, name in (("dataset.name", "dataset"), ("model.name", "model")):
        if key in runs:
            lines.append([name, ", ".join(sorted(set(map(str, runs[key]))))])
    lines.append(["kind", "tuned study" if main else "sweep" if len(runs) > 1 else "single run"])
    return lines


def readable(text: str) -> str:
    """A warning without the overrides that say where files go and how a study is made."""
    head, colon, rest = text.partition(": ")
    words = head.split(" ")
    if not colon or not all("=" in word for word in words):
        return text
    left_out = (*COSMETIC_KEYS, *NO_EFFECT_KEYS)
    kept = [word for word in words if word.split("=")[0].split(".")[0] not in left_out]
    return f"{' '.join(kept)}: {rest}"


def ranks_of(
    table: pd.DataFrame, column: str, facet: Sequence[str] | None, names: curves.Names
) -> dict[str, Any] | None:
    """The critical-difference diagram and its mean ranks; None where it does not apply."""
    image = picture(lambda: ranks_figure(table, column, facet), names)
    if image is None:
        return None
    ranks = mean_ranks(ranked(table, column, facet)[0], smaller_is_better(column))
    return image | {"rows": [[str(name), float(value)] for name, value in ranks.items()]}


def picture(job: Callable[[], Figure], names: curves.Names) -> dict[str, Any] | None:
    """A matplotlib figure as SVG with a text alternative made of its own words; None where it does
    not apply. groups: which switch the parts of the SVG follow, by what is before the dot of their
    id."""
    try:
        figure = job()
    except (UserError, TooManyPanels):
        return None
    stream = io.StringIO()
    with rc_context({**style.RC, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata=UNDATED["svg"])
        words = [
            text.get_text()
            for axes in figure.axes
            for text in [*axes.texts, *axes.get_yticklabels(), axes.title]
        ]
    svg = stream.getvalue()
    caption = " ".join(figure.get_supxlabel().split())
    return {
        "svg": svg[svg.index("<svg") :],
        "alt": "; ".join(word for word in words if word),
        "caption": caption,
        "groups": {style.group_of(name): toggle for name, toggle in names.toggle_of.items()},
    }


def plain(value: Any) -> Any:
    """Numbers to six significant digits, infinities and NaN as JSON has them (text and null)."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        rounded = float(f"{value:.6g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
    return int(value) if isinstance(value, np.integer) else value

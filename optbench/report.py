"""`python -m optbench.report FOLDER -o report.html`: one self-contained, interactive page.

The flow is that of the figures: folder, tidy tables, statistics, one JSON object, a template. The
page carries no active content from the data: a Content-Security-Policy allows the page's own
script and style by their hashes and nothing else, and the script builds text nodes only.
"""

import argparse
import base64
import hashlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from optbench import __version__, report_data, report_runs, report_verdict, style
from optbench.__main__ import config_folder
from optbench.errors import UserError
from optbench.figures import has_rates, ranks_figure, times_to_target
from optbench.keys import where
from optbench.jobs import ASIDE, HARMLESS
from optbench.layout import layout
from optbench.objections import objections
from optbench.panels import TooManyPanels
from optbench.plot import UNDATED, Options, from_config, split_trials
from optbench.reach import phases, reach_figure
from optbench.stats import smaller_is_better
from optbench.study_files import figure_of, manifests_of, protocol_of
from optbench.table import load_runs

WEB = Path(__file__).resolve().parent / "web"
SCRIPTS = ("uPlot.iife.min.js", "data.js", "chart.js", "table.js", "report.js")
STYLES = ("uPlot.min.css", "report.css")
MOST_REACHED = 40  # rows of the figure of times to target


class Written(NamedTuple):
    """What was written, and what was left out of it."""

    path: Path
    runs: int
    problems: list[str]  # one line per file that could not be used


def write(
    folders: Sequence[str | Path], out: str | Path, conditions: Sequence[str] = ()
) -> Written:
    """Write the report of all finished runs below `folders` into the file `out`.

    conditions: KEY=VALUE filters. Raises UserError where there is no run, or no file can be
    written; damaged and unfinished runs are named in the report and in the result.
    """
    data = collect([Path(folder) for folder in folders], conditions)
    page = render(data)
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the name of a file, as in -o {out}/report.html")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, "utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another -o") from None
    return Written(out, len(data["curves"]["runs"]), data["left_out"])


def collect(folders: Sequence[Path], conditions: Sequence[str] = ()) -> dict[str, Any]:
    """All that the page shows, as plain data. Raises UserError as `load_runs` and `layout` do."""
    loaded = where(load_runs(*folders), conditions)
    left_out = list(loaded.attrs["problems"])
    trials, table = split_trials(loaded)
    tables = {"epochs": table}
    try:
        _, steps = split_trials(where(load_runs(*folders, rows="steps"), conditions))
        tables["steps"] = steps[steps["run"].isin(set(table["run"]))]
        left_out = sorted({*left_out, *steps.attrs["problems"]})
    except UserError:
        pass  # the curves of the mini-batches are an addition
    options = from_config(Options(), figure_of(folders))
    manifests = manifests_of(folders, loaded)
    protocol = protocol_of(manifests)
    tuned = trials is not table
    facet, lines = options.facet, options.lines
    plan = layout(table, facet, lines)
    names = report_runs.names_of(plan)
    first = options.y or "train_loss"
    ranked = first if first in table and np.isfinite(table[first]).any() else "train_loss"
    column = protocol.metric.replace("val_", "test_") if tuned else ranked
    if not np.isfinite(table[column]).any():
        column = ranked
    records = report_runs.records_of(folders)
    wanted = {record["run_id"] for _, record in records} if not conditions else set(
        loaded["run_id"].astype(str)
    )  # fmt: skip
    records = [(path, record) for path, record in records if record["run_id"] in wanted]

    def maybe(job: Callable[[], Any]) -> Any:
        """A section that does not apply, and that nobody asked for, is left out."""
        try:
            return job()
        except UserError:
            return None

    found = maybe(
        lambda: times_to_target(table, protocol.metric, ranked, facet, lines, options.target)
    )
    rates: Callable[[], Any] = lambda: report_data.tuned_rates(trials, *protocol, names)  # noqa: E731
    if not tuned:
        rates = lambda: (  # noqa: E731
            report_data.swept_rates(table, ranked, facet, names) if has_rates(table) else None
        )
    return plain(
        {
            "version": __version__,
            "title": ", ".join(folder.resolve().name for folder in folders),
            "facts": facts(table, trials, plan),
            "names": names.series,
            "toggles": names.toggles,
            "verdict": {
                "cards": maybe(
                    lambda: report_verdict.cards(table, trials, protocol, column, names)
                ) or [],
                "smaller": smaller_is_better(column),
                "column": column.replace("_", " "),
            },
            "warnings": [
                readable(text)
                for text in maybe(
                    lambda: objections(table, trials, manifests, ranked, facet, lines)
                ) or []
            ],
            "curves": report_runs.curves(tables, plan, names, first),
            "view": {
                "y": first,
                "x": options.x or "epoch",
                "log": options.log,
            },
            "ranking": report_data.ranking(table, column, facet, lines, names),
            "matrices": maybe(lambda: report_verdict.matrices(table, column, names)) or [],
            "ranks": picture(lambda: ranks_figure(table, column, facet)),
            "rates": maybe(rates),
            "budget": maybe(lambda: report_data.budget(trials, *protocol, names)) if tuned else None,
            "reached": None if found is None else report_data.reached(found, names),
            "reached_figure": None
            if found is None or len(found.frame) > MOST_REACHED
            else picture(lambda: reach_figure(found)),
            "performance": None if found is None else report_data.performance(found, names),
            "layers": maybe(lambda: layers_of(folders, conditions, names)),
            "runs": report_runs.run_list(records, folders, table, config_folder()),
            "missing": report_runs.missing(plan, folders),
            "failed_jobs": report_runs.failed_jobs(folders, records),
            "left_out": left_out,
            "machines": report_runs.machines(records),
        }
    )  # fmt: skip


def layers_of(
    folders: Sequence[Path], conditions: Sequence[str], names: report_runs.Names
) -> dict[str, Any]:
    """The section of layer statistics; UserError where none were logged."""
    _, table = split_trials(where(load_runs(*folders, rows="layers"), conditions))
    return report_data.layers(table, names)


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
    kept = [word for word in words if word.split("=")[0].split(".")[0] not in (*ASIDE, *HARMLESS)]
    return f"{' '.join(kept)}: {rest}"


def picture(job: Callable[[], Figure]) -> dict[str, str] | None:
    """A matplotlib figure as SVG with a text alternative made of its own words; None where it does
    not apply."""
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


def render(data: dict[str, Any]) -> str:
    """The page. Text from runs is in it once, as JSON in which no tag can open or close."""
    script = "\n".join((WEB / name).read_text("utf-8") for name in SCRIPTS)
    css = "\n".join((WEB / name).read_text("utf-8") for name in STYLES)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    page = environment.from_string((WEB / "report.html").read_text("utf-8"))
    return page.render(
        title=data["title"],
        script=Markup(script),
        style=Markup(css),
        data=Markup(text),
        script_hash=source_hash(script),
        style_hash=source_hash(css),
        version=data["version"],
        licence=(WEB / "uPlot.LICENSE").read_text("utf-8"),
    )


def source_hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 when something was wrong or a file was left out (named on stderr)."""
    parser = argparse.ArgumentParser(
        prog="python -m optbench.report",
        description="Write one self-contained page: verdict, interactive curves, tables, commands.",
    )
    parser.add_argument(
        "folders", nargs="+", metavar="FOLDER", help="a run, a sweep, a study, or a folder above"
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="the page (default: report.html in the one FOLDER)"
    )
    parser.add_argument(
        "--where", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="only runs with this value; several values of one key are alternatives",
    )  # fmt: skip
    asked = parser.parse_args(argv)
    try:
        if asked.out is None and len(asked.folders) != 1:
            raise UserError("several folders were given: say where the page goes with -o FILE")
        out = asked.out or os.path.join(asked.folders[0], "report.html")  # noqa: PTH118
        written = write(asked.folders, out, asked.where)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{written.path}  ({written.path.stat().st_size / 1e6:.2f} MB, {written.runs} runs)")
    for problem in written.problems:
        print(f"left out: {problem}", file=sys.stderr)
    return 1 if written.problems else 0


if __name__ == "__main__":
    sys.exit(main())

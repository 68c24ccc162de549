"""`python -m optbench.plot FOLDER...`: every figure and table again, from the CSV files alone."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from optbench import figures, style
from optbench.errors import UserError
from optbench.keys import where
from optbench.layout import layout
from optbench.objections import objections
from optbench.panels import TooManyPanels, add_note
from optbench.plots import curves
from optbench.progress import streams
from optbench.run_files import COLUMNS
from optbench.spreadsheet import to_csv
from optbench.study_files import figure_of, manifests_of, protocol_of
from optbench.summary import summary, to_markdown
from optbench.table import load_runs

FORMATS = ("png", "pdf", "svg")
# dates off: the same CSV files give the same bytes
UNDATED: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


class Options(NamedTuple):
    """What to draw. None: as the sweep's `figure.json` says, else the default."""

    y: str | None = None  # a logged column; train_loss
    x: str | None = None  # epoch, step or seconds; epoch
    facet: Sequence[str] | None = None  # config keys of the panels; those in which problems differ
    lines: str | None = None  # config key of the lines; the optimizer and its settings
    log: bool | None = None  # logarithmic y; True for losses
    rows: str = "epochs"  # epochs or steps: which CSV file the main figure reads
    where: Sequence[str] = ()  # KEY=VALUE filters
    formats: Sequence[str] = ("png", "pdf")
    target: str | None = None  # of times to target: see `reach.reach`; that of the worst


class DrawResult(NamedTuple):
    paths: list[Path]
    table: pd.DataFrame  # of epochs.csv, filtered
    summary: pd.DataFrame
    problems: list[str]  # one line per file left out
    warnings: list[str]  # what a reviewer would object to


def draw_all(
    folders: Sequence[str | Path], out: str | Path | None = None, options: Options | None = None
) -> DrawResult:
    """Write the figures and tables of all finished runs below `folders` into `out`.

    out: a folder, made if missing; the default is the one folder given.
    Raises UserError when nothing can be drawn as asked; damaged and unfinished runs are left out
    and named in the result.
    """
    options = options or Options()
    places = [Path(folder) for folder in folders]
    if unknown := [name for name in options.formats if name not in FORMATS]:
        raise UserError(f"unknown format {', '.join(unknown)}; allowed: {', '.join(FORMATS)}")
    if options.rows not in COLUMNS:
        raise UserError(f"unknown rows {options.rows!r}; allowed: {', '.join(COLUMNS)}")
    if out is None and len(folders) != 1:
        raise UserError("several folders were given: say where the figures go with -o DIR")
    table = where(load_runs(*folders), options.where)
    problems = list(table.attrs["problems"])
    trials, table = split_trials(table)
    main = table
    if options.rows == "steps":
        _, main = split_trials(where(load_runs(*folders, rows="steps"), options.where))
        problems = sorted({*problems, *main.attrs["problems"]})
    options = from_config(options, figure_of(places))
    y, x = options.y or "train_loss", options.x or "epoch"
    facet, lines = options.facet, options.lines
    layout(table, facet, lines)  # refuses problems of several folders that nobody asked for
    for frame in (table, trials, main):
        frame.attrs["mixed"] = False

    # all figures before the first file: a mistake leaves nothing half written
    drawn: dict[str, Figure] = {}
    stem = f"{y}-{x}" + ("-steps" if options.rows == "steps" else "")
    stem = re.sub(r"[^\w.-]", "_", stem)  # a column may have any name, a file not
    final = y if y in table and np.isfinite(table[y]).any() else "train_loss"
    try:
        drawn[stem] = curves(main, y, x, facet, lines, options.log)
        if stem != "test_accuracy-epoch" and np.isfinite(table["test_accuracy"]).any():
            drawn["test_accuracy-epoch"] = curves(table, "test_accuracy", "epoch", facet, lines)
    except TooManyPanels as error:
        problems.append(f"{stem}: {error}")
    protocol = protocol_of(manifests := manifests_of(places, table))
    more = figures.extras(table, trials, protocol, final, facet, lines, options.target)
    problems += more.left_out
    drawn |= more.figures
    warnings = objections(table, trials, manifests, final, facet, lines)
    for figure in drawn.values() if warnings else ():
        rest = f" ({len(warnings)} warnings, in summary.md)" if len(warnings) > 1 else ""
        add_note(figure, f"Warning: {warnings[0]}{rest}")
    # the table of final values has the panels of the figure, and each run is in one line of it
    finals = summary(table, final, facet, lines)
    texts = {
        "summary.csv": to_csv(finals),
        "summary.md": to_markdown(finals) + "".join(f"\nWarning: {text}\n" for text in warnings),
        **{f"{name}.csv": to_csv(frame) for name, frame in more.tables.items()},
    }
    out = writable(Path(folders[0] if out is None else out))
    paths = []
    try:
        for name, figure in drawn.items():
            for suffix in options.formats:
                paths.append(out / f"{name}.{suffix}")
                with rc_context(style.RC):
                    figure.savefig(paths[-1], metadata=UNDATED.get(suffix))
        for name, text in texts.items():
            paths.append(out / name)
            paths[-1].write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {paths[-1]}: {error.strerror}; choose another -o") from None
    return DrawResult(paths, table, finals, problems, warnings)


def from_config(options: Options, figure: dict[str, object]) -> Options:
    """Fill what was not asked for from a sweep's `figure` config."""
    filled: dict[str, object] = {}
    for key in ("y", "x", "facet", "lines"):
        if getattr(options, key) is None and figure.get(key):
            value = figure[key]
            filled[key] = [value] if key == "facet" and isinstance(value, str) else value
    if options.log is None and figure.get("log") is False:
        filled["log"] = False
    if options.target is None and figure.get("target") is not None:
        filled["target"] = str(figure["target"])
    return options._replace(**filled)  # type: ignore[arg-type]


def split_trials(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials of a tuned study, and the runs that are compared: the same table without one."""
    tried = table["phase"].astype(str) == "trials" if "phase" in table else None
    if tried is None or not tried.any() or tried.all():
        return table, table
    return table[tried], table[~tried]


def writable(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another -o") from None
    if not os.access(out, os.W_OK):
        raise UserError(f"cannot write to {out}: permission denied; choose another -o")
    return out


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m optbench.plot",
        description="Draw the figures and tables of finished runs again, from their CSV files.",
    )
    add = parser.add_argument
    add("folders", nargs="+", metavar="FOLDER", help="a run, a sweep, or any folder above them")
    add("-o", "--out", metavar="DIR", help="where to write (default: the one FOLDER)")
    add("--y", metavar="COLUMN", help="a logged column (default: train_loss)")
    add("--x", metavar="COLUMN", help="epoch, step or seconds (default: epoch)")
    add("--rows", default="epochs", help="epochs or steps (mini-batches) (default: epochs)")
    add(
        "--facet",
        nargs="+",
        metavar="KEY",
        help="config keys that make the panels (two: a grid), as in --facet model.batch_norm "
        "(default: the keys in which the problems differ)",
    )
    add(
        "--lines",
        metavar="KEY",
        help="the config key that makes the lines (default: the optimizer and its settings)",
    )
    add("--linear", action="store_true", help="a linear y axis (default: logarithmic for losses)")
    add(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this value; several values of one key are alternatives",
    )
    add(
        "--target",
        metavar="RULE",
        help="of times to target: a number, worst (optimizer), baseline:NAME, quantile:SHARE",
    )
    add("--format", nargs="+", default=["png", "pdf"], help="png, pdf, svg (default: png pdf)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 when something was wrong or a file was left out (named on stderr)."""
    asked = parse(argv)
    options = Options(
        y=asked.y,
        x=asked.x,
        facet=asked.facet,
        lines=asked.lines,
        log=False if asked.linear else None,
        rows=asked.rows,
        where=asked.where,
        formats=asked.format,
        target=asked.target,
    )
    try:
        result = draw_all(asked.folders, asked.out, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in result.paths:
        print(path)
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for problem in result.problems:
        print(f"left out: {problem}", file=sys.stderr)
    return 1 if result.problems else 0


if __name__ == "__main__":
    with streams():
        sys.exit(main())

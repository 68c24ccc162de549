"""`python -m optbench.plot FOLDER...`: every figure and table again, from the CSV files alone."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from optbench import style
from optbench.errors import UserError
from optbench.keys import where
from optbench.panels import TooManyPanels, add_note
from optbench.plots import curves
from optbench.progress import streams
from optbench.run_files import COLUMNS
from optbench.sensitivity import sensitivity
from optbench.summary import summary, to_markdown
from optbench.table import load_runs

FORMATS = ("png", "pdf", "svg")
MANIFEST = "study.json"  # a tuned study's folder holds what was tried and chosen
FIGURE = "figure.json"  # a sweep's folder says how its figure is drawn
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


class DrawResult(NamedTuple):
    paths: list[Path]
    table: pd.DataFrame  # of epochs.csv, filtered
    summary: pd.DataFrame
    problems: list[str]  # one line per file left out
    warnings: list[str]  # what a reviewer would object to in a tuned study


def draw_all(
    folders: Sequence[str | Path], out: str | Path | None = None, options: Options | None = None
) -> DrawResult:
    """Write the figures and tables of all finished runs below `folders` into `out`.

    out: a folder, made if missing; the default is the one folder given.
    Raises UserError when nothing can be drawn as asked; damaged and unfinished runs are left out
    and named in the result.
    """
    options = options or Options()
    folders = [Path(folder) for folder in folders]
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
    options = from_config(options, figure_of([Path(folder) for folder in folders]))
    y, x = options.y or "train_loss", options.x or "epoch"
    facet, lines = options.facet, options.lines

    jobs: dict[str, Callable[[], Figure]] = {}
    stem = f"{y}-{x}" + ("-steps" if options.rows == "steps" else "")
    jobs[stem] = lambda: curves(main, y, x, facet, lines, options.log)
    if np.isfinite(table["test_accuracy"]).any():
        jobs.setdefault(
            "test_accuracy-epoch",
            lambda: curves(table, "test_accuracy", "epoch", facet, lines),
        )
    final = y if y in table and np.isfinite(table[y]).any() else "train_loss"
    if has_rates(trials) and "optimizer.lr" not in (facet or ()):
        # trials never see the test set, and are judged by the validation split
        measure = final if trials is table else "val_loss"
        jobs[f"final_{measure}-lr"] = lambda: sensitivity(trials, measure, facet=facet)

    # all figures before the first file: a mistake leaves nothing half written
    figures = {}
    for name, job in jobs.items():
        try:
            figures[name] = job()
        except TooManyPanels as error:
            problems.append(f"{name}: {error}")
        except UserError:
            # nobody asked for it: where each rate came with other settings there is no line
            if not name.startswith("final_"):
                raise
    objections = warnings_of([Path(folder) for folder in folders])
    if objections:
        for figure in figures.values():
            add_note(figure, f"{len(objections)} warnings, in summary.md; {objections[0]}")
    # the table of final values has the panels of the figure, and each run is in one line of it
    finals = summary(table, final, facet, lines)
    out = writable(Path(folders[0] if out is None else out))
    paths = []
    try:
        for name, figure in figures.items():
            for suffix in options.formats:
                paths.append(out / f"{name}.{suffix}")
                with rc_context(style.RC):
                    figure.savefig(paths[-1], metadata=UNDATED.get(suffix))
        for name, text in (
            ("summary.csv", finals.to_csv(index=False)),
            ("summary.md", to_markdown(finals) + "".join(f"\nWarning: {o}\n" for o in objections)),
        ):
            paths.append(out / name)
            paths[-1].write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {paths[-1]}: {error.strerror}; choose another -o") from None
    return DrawResult(paths, table, finals, problems, objections)


def figure_of(folders: Sequence[Path]) -> dict[str, object]:
    """The `figure` config that a sweep left in its folder; nothing where folders disagree."""
    found: list[dict[str, object]] = []
    for path in (folder / FIGURE for folder in folders):
        if path.exists():
            try:
                found.append(dict(json.loads(path.read_text("utf-8"))))
            except (OSError, ValueError, TypeError) as error:
                raise UserError(
                    f"{path} is damaged ({error}); it holds the figure's options: delete it to "
                    f"draw with the defaults"
                ) from None
    return found[0] if found and all(figure == found[0] for figure in found) else {}


def from_config(options: Options, figure: dict[str, object]) -> Options:
    """Fill what was not asked for from a sweep's `figure` config."""
    filled: dict[str, object] = {}
    for key in ("y", "x", "facet", "lines"):
        if getattr(options, key) is None and figure.get(key):
            value = figure[key]
            filled[key] = [value] if key == "facet" and isinstance(value, str) else value
    if options.log is None and figure.get("log") is False:
        filled["log"] = False
    return options._replace(**filled)  # type: ignore[arg-type]


def warnings_of(folders: Sequence[Path]) -> list[str]:
    """What the manifests of tuned studies say a reviewer would object to."""
    found: list[str] = []
    for path in (folder / MANIFEST for folder in folders):
        if path.exists():
            try:
                found += map(str, json.loads(path.read_text("utf-8"))["warnings"])
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise UserError(f"{path} is damaged ({error}); run the study again") from None
    return found


def split_trials(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials of a tuned study, and the runs that are compared: the same table without one."""
    tried = table["phase"].astype(str) == "trials" if "phase" in table else None
    if tried is None or not tried.any() or tried.all():
        return table, table
    return table[tried], table[~tried]


def has_rates(table: pd.DataFrame) -> bool:
    """Whether some optimizer has two learning rates."""
    if "optimizer.lr" not in table:
        return False
    pairs = table[["optimizer", "optimizer.lr"]].drop_duplicates().dropna()
    return bool(pairs["optimizer"].duplicated().any())


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
    )
    try:
        result = draw_all(asked.folders, asked.out, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in result.paths:
        print(path)
    for problem in result.problems:
        print(f"left out: {problem}", file=sys.stderr)
    return 1 if result.problems else 0


if __name__ == "__main__":
    with streams():
        sys.exit(main())

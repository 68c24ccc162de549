"""`optbench plot FOLDER...`: every figure and table again, from the CSV files alone."""

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis import comparison
from optbench.analysis.caveats import objections
from optbench.analysis.columns import of_runs, where
from optbench.analysis.latex import bold, cells, to_latex
from optbench.analysis.series import layout
from optbench.analysis.summary import summary, to_markdown
from optbench.analysis.table import read_runs
from optbench.common.csv_export import to_csv
from optbench.common.errors import UserError
from optbench.common.files import expanded, replace_text
from optbench.figures import kinds, style
from optbench.figures.kinds import KINDS, Study
from optbench.figures.panels import add_note
from optbench.figures.profile import scores
from optbench.figures.save import FORMATS, UNDATED, save, writable  # noqa: F401
from optbench.formats.study import figure_of, manifests_of, protocol_of

MOST_WARNINGS = 300  # characters of them in a figure; beyond that their number
MOST_LINES = 6  # of warnings that are too many for that

ROWS = ("epochs", "steps")  # of which curves are drawn


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
    kinds: Sequence[str] = ()  # of `kinds.KINDS`, or all; none: those of a sweep, and its tables
    style: str | None = None  # of `style.STYLES`; paper
    columns: int | None = None  # of a printed page: 1 or 2; as wide as the figure needs


class DrawResult(NamedTuple):
    paths: list[Path]
    table: pd.DataFrame  # of epochs.csv, filtered
    summary: pd.DataFrame
    problems: list[str]  # one line per file left out
    older: list[str]  # a sentence for the runs of older code, which are left out as well
    warnings: list[str]  # what a reviewer would object to
    skipped: list[str]  # kinds that were asked for and do not apply, with the reason


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
    kinds.chosen(options.kinds)
    if options.rows not in ROWS:
        raise UserError(f"unknown rows {options.rows!r}; allowed: {', '.join(ROWS)}")
    if out is None and len(folders) != 1:
        raise UserError("several folders were given: say where the figures go with -o DIR")
    loaded = read_runs(*folders)
    table = where(loaded, options.where)
    problems = list(table.attrs["problems"])
    trials, table = split_trials(table)
    main = table
    if options.rows == "steps":
        main = of_runs(read_runs(*folders, rows="steps"), table)
        problems = sorted({*problems, *main.attrs["problems"]})
    options = from_config(options, figure_of(places))
    y, x = options.y or "train_loss", options.x or "epoch"
    facet, lines = options.facet, options.lines
    layout(table, facet, lines)  # refuses problems of several folders that nobody asked for
    for frame in (table, trials, main):
        frame.attrs["mixed"] = False

    # all figures before the first file: a mistake leaves nothing half written; the table of final
    # values has the panels of the figure, and each run is in one line of it
    final = y if y in table and np.isfinite(table[y]).any() else "train_loss"
    protocol = protocol_of(manifests := manifests_of(places, table))
    found = comparison.times_to_target(table, protocol.metric, final, facet, lines, options.target)
    matrix = None if found is None else comparison.times_by_problem(found)
    study = Study(
        table, main, trials, layers_of(folders, table), protocol, y, x, final,
        facet, lines, options.log, found, matrix,
    )  # fmt: skip
    finals = summary(table, final, facet, lines)
    warnings = objections(table, trials, manifests, final, facet, lines)
    # of all runs that are there, so that a part of them looks as the whole
    names = map(str, loaded["optimizer"].unique())
    with style.use(options.style or "paper", options.columns, names):
        drawn, skipped = kinds.draw(study, options.kinds, problems)
        for name, figure in drawn.items() if warnings else ():
            if KINDS[name].compares:
                add_note(figure, *shown(warnings, KINDS[name].stem(study)))
        texts: dict[str, str] = {}
        if not options.kinds:
            texts = tables_of(study, finals, warnings)
        out = writable(Path(folders[0] if out is None else out))
        paths = []
        for name, figure in drawn.items():
            kind = KINDS[name]
            said = warnings if kind.compares else ()
            paths += save(figure, out, kind.stem(study), options.formats, kind.title, said)
    try:
        for name, text in texts.items():
            paths.append(out / name)
            replace_text(paths[-1], text)
    except OSError as error:
        raise UserError(f"cannot write {paths[-1]}: {error.strerror}; choose another -o") from None
    older = loaded.attrs["older"]
    return DrawResult(paths, table, finals, problems, older, warnings, skipped)


def shown(warnings: Sequence[str], stem: str) -> list[str]:
    """The warnings as small print: in full, or the beginning of each and where the rest is."""
    if len("".join(warnings)) <= MOST_WARNINGS:
        return [f"Warning: {text}" for text in warnings]
    short = [textwrap.shorten(text, 90, placeholder=" ...") for text in warnings[:MOST_LINES]]
    more = f"{len(warnings) - MOST_LINES} more, and " if len(warnings) > MOST_LINES else ""
    return [*(f"Warning: {text}" for text in short), f"{more}in full: {stem}.txt"]


def tables_of(study: Study, finals: pd.DataFrame, warnings: Sequence[str]) -> dict[str, str]:
    """The tables of a folder, by the names of their files. finals: the `summary`."""
    columns = [n.removesuffix("_median") for n in map(str, finals) if n.endswith("_median")]
    columns = list(dict.fromkeys([*([study.judged] if study.tuned else []), *columns]))
    found = cells(study.table, columns, study.facet, study.lines)
    texts = {
        "summary.csv": to_csv(finals),
        "summary.md": to_markdown(finals, bold(found))
        + "".join(f"\nWarning: {text}\n" for text in warnings),
        "summary.tex": to_latex(found, warnings),
    }
    if study.found is not None:
        texts["time_to_target.csv"] = to_csv(study.found.frame)
    if study.matrix is not None:
        texts["benchmark_score.csv"] = to_csv(scores(study.matrix))
    return texts


def layers_of(
    folders: Sequence[str | Path], table: pd.DataFrame
) -> Callable[[], pd.DataFrame] | None:
    """Reads the layers.csv of the runs that are compared; None where no run has one."""
    runs = table["run"].unique()
    if not any((Path(str(run)) / "layers.csv").exists() for run in runs):
        return None

    def read() -> pd.DataFrame:
        loaded = of_runs(read_runs(*folders, rows="layers"), table)
        loaded.attrs["mixed"] = False
        return loaded

    return read


def from_config(options: Options, figure: dict[str, object]) -> Options:
    """Fill what was not asked for from a sweep's `figure` config."""
    filled: dict[str, object] = {}
    for key in ("y", "x", "facet", "lines", "style", "columns"):
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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="optbench plot",
        description="Draw the figures and tables of finished runs again, from their CSV files.",
    )
    add = parser.add_argument
    add(
        "folders",
        nargs="+",
        type=expanded,
        metavar="FOLDER",
        help="a run, a sweep, or any folder above them",
    )
    add(
        "-o", "--out", type=expanded, metavar="DIR", help="where to write (default: the one FOLDER)"
    )
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
    add(
        "--kind",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help=f"only these figures, and no tables: {', '.join(KINDS)}, {kinds.ALL} (default: "
        "those that apply, as after a sweep)",
    )
    add("--style", metavar="NAME", help=f"{', '.join(style.STYLES)} (default: paper)")
    add(
        "--columns",
        type=int,
        metavar="N",
        help="1 or 2: as wide as a column of a page or as the page, small print in the caption "
        "alone (default: as wide as the figure needs)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 when something was wrong, a file was left out or a kind that was
    named does not apply (said on stderr)."""
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
        kinds=asked.kind,
        style=asked.style,
        columns=asked.columns,
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
    for text in result.skipped:
        print(f"does not apply: {text}", file=sys.stderr)
    for problem in [*result.problems, *result.older]:
        print(f"left out: {problem}", file=sys.stderr)
    # of "all" some never apply; who names a kind wants it
    return 1 if result.problems or (result.skipped and kinds.ALL not in options.kinds) else 0

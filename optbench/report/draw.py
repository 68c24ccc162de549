"""Draw every figure and table of a folder's runs from their files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from optbench.analysis.caveats import caveats
from optbench.analysis.comparison import Comparison, Options, compare
from optbench.analysis.latex import bold, final_cells, to_latex
from optbench.analysis.over_problems import has_profile, profile_of
from optbench.analysis.summary import summary, to_markdown
from optbench.analysis.table import check_folders
from optbench.analysis.time_to_target import asked_times
from optbench.common.csv_export import to_csv
from optbench.common.errors import UserError
from optbench.common.files import replace_text
from optbench.figures import kinds, style
from optbench.figures.axes import check_column
from optbench.figures.kinds import KINDS
from optbench.figures.panels import add_warning
from optbench.figures.save import FORMATS, save, writable
from optbench.formats.groups import config_folder
from optbench.formats.run import GAP
from optbench.report.repeat_command import engines_note

SCORES_FILE = "benchmark_score.csv"
SELECTED_FOLDER = "where"  # below a folder, for the figures and tables of some of its runs
ROWS = ("epochs", "steps")  # CSV files that curves can be drawn from


class DrawResult(NamedTuple):
    paths: list[Path]
    table: pd.DataFrame  # epochs.csv after the filter
    summary: pd.DataFrame
    problems: list[str]  # a line per file that was left out
    older: list[str]  # sentences on runs of older code or data, which are left out too
    warnings: list[str]  # the caveats of the comparison
    skipped: list[str]  # the kinds that were asked for and do not apply, with the reason


def draw_all(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    options: Options | None = None,
    made: Comparison | None = None,
) -> DrawResult:
    """Write the figures and tables of all finished runs below `folders` into `out`.

    out: created if missing; by default the only folder, or `where` in it for a selection of runs.
    made: the comparison, if already made.
    Raises UserError if nothing can be drawn as asked. Damaged and unfinished runs are left out and
    named in the result.
    """
    options = options or Options()
    if unknown := [name for name in options.formats if name not in FORMATS]:
        raise UserError(f"unknown format {', '.join(unknown)}; allowed: {', '.join(FORMATS)}")
    kinds.chosen(options.kinds)
    if options.rows not in ROWS:
        raise UserError(f"unknown rows {options.rows!r}; allowed: {', '.join(ROWS)}")
    check_folders(folders)
    if out is None and len(folders) != 1:
        raise UserError("several folders were given: say where the figures go with -o DIR")
    made = compare(folders, options) if made is None else made
    options = made.options
    problems = list(made.problems)
    if options.rows == "steps":
        problems = sorted({*problems, *made.rows("steps").attrs["problems"]})

    # All figures are drawn before the first file is written, so that a mistake writes nothing. The
    # table of final values has the figure's panels, and each run once.
    asked_times(made)  # rejects a bad target early
    finals = summary(made, made.judged, options.facet, options.lines)
    finals.attrs["engines"] = engines_note(made, config_folder())
    # a named candidate is judged instead of the leader
    warnings = caveats(made, leader=made.options.candidate is None)
    # Styles come from all runs, so that a filtered figure looks like the full one.
    with style.use(options.style or "paper", options.columns, made.names):
        drawn, skipped = kinds.draw(made, options.kinds, problems)
        for name, figure in drawn.items() if warnings else ():
            if KINDS[name].compares:
                add_warning(figure, warnings, f"{KINDS[name].stem(made)}.txt")
        texts: dict[str, str] = {}
        if not options.kinds:
            texts = tables_of(made, finals, warnings)
        if out is None:  # a part of the runs leaves the files of all as they are
            out = Path(folders[0], SELECTED_FOLDER if made.selection else "")
        out = writable(Path(out))
        only = f" of the runs with {made.selection} alone" if made.selection else ""
        paths = []
        for name, figure in drawn.items():
            kind = KINDS[name]
            said = warnings if kind.compares else ()
            paths += save(figure, out, kind.stem(made), options.formats, kind.title + only, said)
    try:
        for name, text in texts.items():
            paths.append(out / name)
            replace_text(paths[-1], text)
    except OSError as error:
        why = error.strerror
        raise UserError(f"cannot write {paths[-1]}: {why}; choose another folder") from None
    return DrawResult(paths, made.table, finals, problems, made.older, warnings, skipped)


def tables_of(made: Comparison, finals: pd.DataFrame, warnings: Sequence[str]) -> dict[str, str]:
    """Return the tables of a folder by file name. finals: the `summary`."""
    columns = [n.removesuffix("_median") for n in map(str, finals) if n.endswith("_median")]
    columns = list(dict.fromkeys([made.judged, *columns]))
    # the gap is neither good nor bad: one who has learned nothing has none
    shown = [name for name in columns if name != GAP]
    found = final_cells(made, shown, made.options.facet, made.options.lines)
    texts = {
        "summary.csv": to_csv(finals),
        "summary.md": to_markdown(finals, bold(found))
        + "".join(f"\nWarning: {text}\n" for text in warnings),
    }
    if made.judged in found:
        texts["summary.tex"] = to_latex(
            found[made.judged],
            made.judged,
            warnings=warnings,
            paired=made.paired,
            settings=made.few_searches,
            unit=made.unit,
            selection=made.selection,
        )
    if (times := asked_times(made)) is not None:
        texts["time_to_target.csv"] = to_csv(times.frame)
    if has_profile(made):
        texts[SCORES_FILE] = to_csv(profile_of(made).scores)
    return texts


def write_table(
    folders: Sequence[str | Path], out: Path, column: str, cells: str, options: Options
) -> Path:
    """Write the final values of a logged column as a LaTeX table of `to_latex`.

    Raises UserError for an unknown column, or if the file cannot be written."""
    made = compare(folders, options)
    check_column(made.table, column)
    found = final_cells(made, [column], made.options.facet, made.options.lines)
    text = to_latex(
        found[column],
        column,
        cells,
        caveats(made, column),
        made.paired,
        made.few_searches,
        made.unit,
        made.selection,
    )
    try:
        replace_text(out, text)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another -o") from None
    return out

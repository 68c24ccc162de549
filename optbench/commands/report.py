"""`optbench report FOLDER... -o FILE`: one self-contained, interactive page."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from optbench.analysis.comparison import Options
from optbench.analysis.latex import CELLS
from optbench.analysis.table import check_folders
from optbench.commands import Parser, listed
from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.common.text import count
from optbench.report.draw import write_table
from optbench.report.page import write


def main(argv: Sequence[str] | None = None) -> int:
    """Run `optbench report`; return 0, or 1 if a file was left out (named on stderr)."""
    parser = Parser(
        prog="optbench report",
        description="Write one self-contained page: verdict, interactive curves, tables, commands.",
    )
    parser.add_argument(
        "folders", nargs="+", type=expanded, metavar="FOLDER",
        help="a run, a sweep, a study, or a folder above",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=expanded, metavar="FILE",
        help="the page (default: report.html in the one FOLDER, report-where.html with --where)",
    )  # fmt: skip
    parser.add_argument(
        "--where", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="only runs with this value; several values of one key are alternatives",
    )  # fmt: skip
    parser.add_argument(
        "--facet", nargs="+", metavar="KEY",
        help="config keys that make the panels (default: those in which a sweep's problems differ)",
    )  # fmt: skip
    parser.add_argument(
        "--lines", metavar="KEY",
        help="the config key whose values are compared (default: the optimizer and its settings)",
    )  # fmt: skip
    parser.add_argument(
        "--y", metavar="COLUMN", help="a logged column by which optimizers are judged, val_loss say"
    )
    parser.add_argument(
        "--table", metavar="COLUMN",
        help="no page, but the final values of a logged column as a LaTeX table: optimizers by "
        "problems (default of -o: table_COLUMN.tex in the one FOLDER)",
    )  # fmt: skip
    parser.add_argument(
        "--cells", metavar="NAME", help=f"of the table: {', '.join(CELLS)} (default: median_range)"
    )
    parser.add_argument(
        "--candidate", metavar="NAME",
        help="an optimizer, named before its results were seen: the page begins with its verdict",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", nargs="+", action="extend", metavar="NAME",
        help="those it is judged against (default: all others)",
    )  # fmt: skip
    parser.add_argument("--title", help="of the page (default: the names of the folders)")
    asked = parser.parse_args(argv)
    check_folders(asked.folders)
    facet = listed(asked.facet)
    if asked.out is None and len(asked.folders) != 1:
        raise UserError("several folders were given: say where the file goes with -o FILE")
    if asked.cells and not asked.table:
        raise UserError("--cells is of a table: name its column with --table COLUMN")
    # not `summary.tex`, which is the sweep's own: `optbench plot` writes that again
    some = "-where" if asked.where else ""
    name = f"table_{asked.table}{some}.tex" if asked.table else f"report{some}.html"
    out = asked.out or os.path.join(asked.folders[0], name)  # noqa: PTH118
    if asked.table:
        options = Options(where=asked.where, facet=facet, lines=asked.lines)
        print(
            write_table(
                asked.folders, Path(out), asked.table, asked.cells or "median_range", options
            )
        )
        return 0
    if asked.baseline and asked.candidate is None:
        raise UserError("--baseline needs the optimizer that is judged: --candidate NAME")
    baseline = listed(asked.baseline, ",")
    options = Options(
        y=asked.y, where=asked.where, facet=facet, lines=asked.lines, candidate=asked.candidate,
        baseline=baseline,
    )  # fmt: skip
    written = write(asked.folders, out, options=options, title=asked.title)
    size = written.path.stat().st_size / 1e6
    print(f"{written.path}  ({size:.2f} MB, {count(written.runs, 'run')})")
    for problem in [*written.problems, *written.older]:
        print(f"left out: {problem}", file=sys.stderr)
    return 1 if written.problems else 0

"""`optbench plot FOLDER...`: figures and tables again, from the CSV files alone."""

import argparse
import sys
from collections.abc import Sequence

from optbench.analysis.caveats import is_missed_target
from optbench.analysis.comparison import Options
from optbench.commands import Parser, listed
from optbench.common.console import warn
from optbench.common.files import expanded
from optbench.figures import kinds, style
from optbench.figures.kinds import KINDS
from optbench.report.draw import draw_all


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
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
        "-o",
        "--out",
        type=expanded,
        metavar="DIR",
        help="where to write (default: the one FOLDER, or FOLDER/where with --where)",
    )
    add("--y", metavar="COLUMN", help="a logged column (default: train_loss)")
    add(
        "--x",
        metavar="COLUMN",
        help="epoch, step, seconds, gradients or forwards (so far) (default: epoch)",
    )
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
    """Run `optbench plot`; return 0, or 1 after a problem reported on stderr.

    Problems are errors, files left out, and named kinds that do not apply.
    """
    asked = parse(argv)
    options = Options(
        y=asked.y,
        x=asked.x,
        facet=listed(asked.facet),
        lines=asked.lines,
        log=False if asked.linear else None,
        rows=asked.rows,
        where=asked.where,
        formats=listed(asked.format) or (),
        target=asked.target,
        kinds=listed(asked.kind) or (),
        style=asked.style,
        columns=asked.columns,
    )
    result = draw_all(asked.folders, asked.out, options)
    for path in result.paths:
        print(path)
    for warning in result.warnings:
        warn(warning)
    for text in result.skipped:
        print(f"does not apply: {text}", file=sys.stderr)
    for problem in [*result.problems, *result.older]:
        print(f"left out: {problem}", file=sys.stderr)
    missed = asked.target is not None and any(map(is_missed_target, result.warnings))
    # Some kinds of "all" never apply. A kind that is named is wanted.
    unwanted = result.skipped and kinds.ALL not in options.kinds
    return 1 if result.problems or missed or unwanted else 0

"""`optbench verdict FOLDER`: the verdicts of a tuned study, again from its files."""

from collections.abc import Sequence

from optbench.commands import Parser
from optbench.common.files import expanded
from optbench.report.verdict_files import write


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="optbench verdict", description=__doc__)
    parser.add_argument(
        "folder", type=expanded, metavar="FOLDER", help="of a tuned study: it holds study.json"
    )
    text, paths = write(parser.parse_args(argv).folder)
    print(text, *paths, sep="\n")
    return 0

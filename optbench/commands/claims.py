"""`optbench claims FOLDER...`: judge the claims of sweeps again, from their files."""

from collections.abc import Sequence

from optbench.commands import Parser
from optbench.common.files import expanded
from optbench.report.claim_files import write


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="optbench claims", description=__doc__)
    parser.add_argument(
        "folders", nargs="+", type=expanded, metavar="FOLDER", help="of a sweep with a claim"
    )
    for folder in parser.parse_args(argv).folders:
        text, paths = write(folder)
        print(text, *paths, "", sep="\n")
    return 0

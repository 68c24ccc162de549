"""`optbench verdict FOLDER`: the verdicts of a tuned study, again from its files."""

import argparse
import sys
from collections.abc import Sequence

from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.report.verdict_files import write


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="optbench verdict", description=__doc__)
    parser.add_argument(
        "folder", type=expanded, metavar="FOLDER", help="of a tuned study: it holds study.json"
    )
    try:
        text, paths = write(parser.parse_args(argv).folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text, *paths, sep="\n")
    return 0

"""`optbench verdict FOLDER`: a candidate against baselines, or a sweep's own verdict again."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from optbench.analysis.candidate.document import EXIT_CODES
from optbench.analysis.candidate.judge import check_judges
from optbench.analysis.caveats import missing_jobs
from optbench.analysis.comparison import Comparison, Options, compare
from optbench.commands import Parser, listed
from optbench.common.console import say, warn
from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.formats.job_list import MANIFEST_FILE, progress_of
from optbench.formats.study import figure_of
from optbench.report.terminal import judged, settled
from optbench.report.verdict_files import write, write_candidate


def main(argv: Sequence[str] | None = None) -> int:
    """Run `optbench verdict`; return the exit status.

    That is 0, or with --exit-code 3 if the runs cannot tell, and 4 if the candidate is worse.
    """
    parser = Parser(prog="optbench verdict", description=__doc__)
    parser.add_argument("folder", type=expanded, metavar="FOLDER", help="of a sweep or a study")
    parser.add_argument(
        "--candidate", metavar="NAME",
        help="the optimizer to judge, named before its results were seen: one sentence, and "
        "verdict.json (default: that of the sweep's key `candidate`)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", nargs="+", action="extend", metavar="NAME",
        help="those it is judged against (default: all others)",
    )  # fmt: skip
    parser.add_argument("--y", metavar="COLUMN", help="a logged column to judge by")
    parser.add_argument(
        "--where", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="only runs with this value; several values of one key are alternatives. The sentence "
        "says so, and the file is verdict-where.json",
    )  # fmt: skip
    parser.add_argument(
        "--exit-code", action="store_true",
        help="exit with 0 if the candidate is better, 3 if the runs cannot tell, 4 if it is worse",
    )  # fmt: skip
    asked = parser.parse_args(argv)
    baseline = listed(asked.baseline, ",")
    folder = Path(asked.folder)
    planned = figure_of([folder]).get("candidate") if folder.is_dir() else None
    if baseline and asked.candidate is None and planned is None:
        raise UserError("--baseline needs the optimizer that is judged: --candidate NAME")
    options = Options(y=asked.y, where=asked.where, candidate=asked.candidate, baseline=baseline)
    made = judged_runs(folder, options)
    if made is None:
        tuned = (folder / MANIFEST_FILE).exists()
        named = {"--exit-code": asked.exit_code}
        named |= {"--where": asked.where, "--y": asked.y} if tuned else {}
        for option in [option for option, given in named.items() if given]:
            raise UserError(
                f"{option} is of a candidate's verdict: name the optimizer with --candidate NAME"
            )
        if tuned:
            text, paths = write(folder)
            print(text, *paths, sep="\n")
        else:
            runs = compare([folder], options)
            if asked.y is not None:
                check_judges(runs, asked.y)
            tell_missing(runs)
            only = f"Of the runs with {runs.selection} alone." if runs.selection else ""
            more = [] if asked.where else settled(runs)  # the command is of all runs
            print(*filter(None, [only, judged(runs, runs.judged)]), *more, sep="\n")
        return 0
    tell_missing(made)
    told, path = write_candidate(folder, made, asked.y)
    print(told["sentence"], path, sep="\n")
    for text in told["caveats"]:
        if text not in missing_jobs(made):  # told already
            warn(text)
    return EXIT_CODES[told["outcome"]] if asked.exit_code else 0


def tell_missing(runs: Comparison) -> None:
    """Say on standard error which planned runs are missing, and which files are left out."""
    for text in missing_jobs(runs):
        warn(text)
    for first, outcomes in runs.job_lists.values():
        with suppress(ValueError, KeyError, TypeError):  # a list of an older version
            for text in progress_of(first, outcomes)["jobs"]["failed"]:
                say(f"left out: {text} failed", error=True)
    for problem in [*runs.problems, *runs.older]:
        say(f"left out: {problem}", error=True)


def judged_runs(folder: Path, options: Options) -> Comparison | None:
    """Return the folder's comparison, or None if no candidate is named."""
    named = options.candidate or (folder.is_dir() and figure_of([folder]).get("candidate"))
    return compare([folder], options) if named else None

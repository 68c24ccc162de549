"""What is written about a comparison: figures, tables, verdicts, and one page."""

from pathlib import Path


def finish(folder: str | Path, *, quiet: bool = False) -> None:
    """Draw the figures of a finished sweep; print its table and its verdict or claim.

    The folder's files are read once. quiet: print only what went wrong.
    Raises UserError if there is no run.
    """
    # These imports are slow, and useless to importers of one part of this package.
    from optbench.analysis.caveats import FEW_SEEDS
    from optbench.analysis.claims.judge import verdict_line
    from optbench.analysis.comparison import compare
    from optbench.common.console import say, warn
    from optbench.common.errors import UserError
    from optbench.formats.job_list import CLAIM_FILE, MANIFEST_FILE
    from optbench.report import claim_files, terminal, verdict_files
    from optbench.report.draw import draw_all

    folder, claim = Path(folder), ""
    made = compare([folder])
    result = draw_all([folder], folder, made=made)
    if (folder / MANIFEST_FILE).exists():
        verdict_files.write(folder, made)
    judged = ""
    if made.options.candidate:
        try:
            judged = verdict_files.write_candidate(folder, made)[0]["claim"]
        except UserError as error:  # the runs are still valid
            warn(f"the candidate is not judged: {error}")
    if (folder / CLAIM_FILE).exists():
        try:
            claim = verdict_line(claim_files.write(folder, made.files)[0])
        except UserError as error:  # the runs are still valid
            warn(f"the claim is not judged: {error}")
            for name in claim_files.WRITTEN:  # of an earlier claim
                (folder / name).unlink(missing_ok=True)
    for text in result.warnings:
        if claim or quiet or FEW_SEEDS not in text:  # on few seeds the lines below tell
            warn(text)
    for problem in [*result.problems, *result.older]:
        say(f"left out: {problem}", error=True)
    if not quiet:
        say(*terminal.lines(made, result.summary, folder, claim, judged))

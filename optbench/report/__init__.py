"""What is written about a comparison: its figures and tables, verdicts, and one page."""

from pathlib import Path


def finish(folder: str | Path) -> None:
    """Draw the figures of a sweep that is over, and print its table, its verdict and its claim.

    The folder's files are read once for all of them. Raises UserError where there is no run.
    """
    # slow to import, and of no use to those who import a part of this package
    from optbench.analysis.claims.judge import CLAIM
    from optbench.analysis.comparison import compare
    from optbench.analysis.summary import to_markdown
    from optbench.common.console import say
    from optbench.common.errors import UserError
    from optbench.formats.study import MANIFEST_FILE
    from optbench.report import claim_files, verdict_files
    from optbench.report.draw import draw_all

    folder = Path(folder)
    made = compare([folder])
    result = draw_all([folder], folder, made=made)
    say("", to_markdown(result.summary), *result.paths)
    if (folder / MANIFEST_FILE).exists():
        text, paths = verdict_files.write(folder, made)
        say("", text, *paths)
    if (folder / CLAIM).exists():
        try:
            text, paths = claim_files.write(folder, made.files)
        except UserError as error:  # the runs are done all the same
            say(f"warning: the claim is not judged: {error}", error=True)
        else:
            say("", text, *paths)
    for text in result.warnings:
        say(f"warning: {text}", error=True)
    for problem in [*result.problems, *result.older]:
        say(f"left out: {problem}", error=True)

"""The files of a tuned study's verdict, and of the verdict on a candidate."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from optbench.analysis.candidate.document import asked_verdict
from optbench.analysis.comparison import Comparison, compare
from optbench.analysis.verdict import verdict_texts
from optbench.common.errors import UserError
from optbench.common.files import replace_text
from optbench.common.metrics import metric_of
from optbench.common.text import enumerated
from optbench.formats.job_list import MANIFEST_FILE
from optbench.formats.run import write_sealed
from optbench.formats.study import figure_of

SOME_RUNS_FILE = "verdict-where.json"  # of some of the runs: the verdict on all stays
ASKED_FILE = "verdict-asked.json"  # of another question than the sweep's own, whose verdict stays
TWO_TESTS = (
    "The candidate was named before its results were seen: its p spans its own comparisons. Below, "
    "the results chose the leader, and p spans all pairs."
)
VERDICT_FILE = "verdict.json"  # formats/verdict.schema.json says its form


def write(study: str | Path, made: Comparison | None = None) -> tuple[str, list[Path]]:
    """Write verdict.csv, verdict.md and tuning.csv into a tuned study's folder.

    made: the folder's comparison, if it exists. Returns the verdicts in Markdown and the paths.
    Raises UserError if the folder holds no tuned study.
    """
    study = Path(study)
    if not (study / MANIFEST_FILE).is_file():
        what = "is not the folder of a tuned study" if study.exists() else "does not exist"
        raise UserError(
            f"{study} {what}: there is no {MANIFEST_FILE}, which hydra/sweeper=tuned writes"
        )
    made = compare([study]) if made is None else made
    text, files = verdict_texts(made)
    if candidate := candidate_sentence(made):
        text = f"{candidate}\n\n{TWO_TESTS}\n\n{text}"
        files["verdict.md"] = text
    paths = []
    for name, content in files.items():
        if content is None:
            (study / name).unlink(missing_ok=True)  # an earlier tuning method may have left it
        else:
            replace_text(study / name, content)
            paths.append(study / name)
    return text, paths


def candidate_sentence(made: Comparison) -> str:
    """Return the sentence on the named candidate; "" if none is named or can be judged."""
    try:
        told = asked_verdict(made)
    except UserError:
        return ""  # `write_candidate` says why
    return str(told["sentence"]) if told else ""


def write_candidate(
    folder: Path, made: Comparison, y: str | None = None
) -> tuple[dict[str, Any], Path]:
    """Write verdict.json on the named candidate; return its content and path.

    Raises UserError as `judge` does, if the options name no candidate, and if the file cannot be
    written.
    """
    told = asked_verdict(made, y)
    if told is None:
        raise UserError("no candidate is named: --candidate NAME")
    path = folder / (SOME_RUNS_FILE if made.options.where else VERDICT_FILE)
    if planned := planned_question(folder, made, y):
        told["caveats"].append(planned)
        path = path if made.options.where else folder / ASKED_FILE
    try:
        write_sealed(path, told)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    return told, path


def planned_question(folder: Path, made: Comparison, y: str | None) -> str:
    """Return a caveat if the sweep named another candidate, baseline or value before it ran."""
    figure = figure_of([folder])
    if (candidate := figure.get("candidate")) is None:
        return ""
    # without the column that is asked now; the sweep may have left the choice to its runs
    unasked = replace(made, options=made.options._replace(y=None), _made={})
    column = unasked.judged if made.manifests else str(figure.get("y") or unasked.judged)
    given = figure.get("baseline") or []
    named = [str(name) for name in ([given] if isinstance(given, str) else given)]  # type: ignore[attr-defined]
    asked = (made.options.candidate, {*(made.options.baseline or [])}, y or column)
    if asked == (candidate, {*named}, column):
        return ""
    against = enumerated(named) if named else "all others"
    return (
        f"this was asked after the runs: the sweep named {candidate} against {against}, by final "
        f"{metric_of(column).label}, before it ran"
    )

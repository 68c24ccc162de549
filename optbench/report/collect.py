"""Collect all that a report shows as one JSON object: tables, statistics, figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optbench import __version__
from optbench.analysis.candidate.document import asked_verdict
from optbench.analysis.caveats import FEW_SEEDS, SETTLES, caveats
from optbench.analysis.comparison import Comparison, Options, compare
from optbench.analysis.time_to_target import asked_times
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import capital
from optbench.figures import style
from optbench.figures.axes import check_column
from optbench.figures.kinds import KINDS
from optbench.formats.groups import config_folder
from optbench.formats.job_list import CLAIM_FILE
from optbench.report.sections import curves, pairs, runs, targets, verdict
from optbench.report.sections.claim import claim
from optbench.report.sections.facts import facts, readable
from optbench.report.sections.layers import layers
from optbench.report.sections.ranking import ranking
from optbench.report.sections.ranks import ranks
from optbench.report.sections.rates import budget, rates
from optbench.report.sections.searched import chosen, searched, spread
from optbench.report.tables import plain

CHOSE = (
    "{0} chose the settings of this tuned study, and the best of many trials looks better than it "
    "is: the verdict is by {1}"
)


def collect(
    folders: Sequence[Path],
    conditions: Sequence[str] = (),
    y: str | None = None,
    facet: Sequence[str] | None = None,
    options: Options | None = None,
) -> dict[str, Any]:
    """Return all that the page shows. Raise UserError as `load_runs` does.

    options: in place of conditions, y and facet.
    """
    options = options or Options(y=y, facet=facet, where=conditions)
    made, conditions, y = compare(folders, options), options.where, options.y
    with style.use(names=made.names):  # the styles of the figures
        return data_of(made, folders, conditions, y, asked=options.candidate is not None)


def data_of(
    made: Comparison,
    folders: Sequence[Path],
    conditions: Sequence[str],
    y: str | None,
    *,
    asked: bool,
) -> dict[str, Any]:
    """Return the data of a page. Raise UserError if the column `y` is not known.

    asked: whether the call names the candidate. One that the sweep named may be missing among the
    selected runs, and then a warning says so.
    """
    table, plan, options = made.table, made.plan, made.options
    if y is not None:
        check_column(table, y)
    tables, left_out = {"epochs": table}, made.problems
    try:
        tables["steps"] = made.rows("steps")
        left_out = sorted({*left_out, *tables["steps"].attrs["problems"]})
    except UserError:
        pass  # the curves of mini-batches are optional
    names = curves.names_of(plan)
    # a validation result chose the settings of a tuned study, so it cannot judge them
    chose = made.of_study and y is not None and y.startswith("val_")
    column = made.judged if y is None or chose else made.final
    assert made.files is not None
    records = made.files.records
    if conditions:
        wanted = set(table["run_id"].astype(str)) | set(made.of_trials.table["run_id"].astype(str))
        records = [(path, record) for path, record in records if record["run_id"] in wanted]
    lists = list(made.job_lists.values())
    found = if_applicable(lambda: asked_times(made))
    judgeable = len(folders) == 1 and not conditions and (folders[0] / CLAIM_FILE).exists()
    by_rate = KINDS["learning_rate"].by_default
    cards = if_applicable(lambda: verdict.cards(made, column, names)) or []
    nothing = verdict.nothing(made, cards)
    told = list(map(readable, if_applicable(lambda: caveats(made, column)) or []))
    few = [text for text in told if FEW_SEEDS in text]
    if few and cards and not made.tuned and all(card["level"] == "open" for card in cards):
        told.remove(few[0])  # the verdict says so, with the command
        for card in cards:
            card["settle"] = few[0].partition(SETTLES)[2]
    candidate, unjudged = None, []
    try:
        candidate = candidate_of(made, column)
    except UserError as error:
        if asked:
            raise
        unjudged = [f"the candidate is not judged: {error}"]
    data: dict[str, Any] = {
        "version": __version__,
        "title": ", ".join(  # a name may hold bytes that are no text
            folder.resolve().name.encode("utf-8", "backslashreplace").decode() for folder in folders
        ),
        "facts": facts(made),
        "settings": capital(made.few_searches),
        "names": names.series,
        "toggles": names.toggles,
        "claim": if_applicable(lambda: claim(folders[0], made)) if judgeable else None,
        "verdict": {
            "cards": [] if nothing else cards,
            "nothing": nothing,
            "note": verdict.note(cards, made.compared_key, made.unit),
            "column": metric_of(column).label,
            "percent": metric_of(column).percent,
            "candidate": candidate,
        },
        "warnings": [
            *([CHOSE.format(y, metric_of(column).label)] if chose else []),
            *unjudged,
            *told,
        ],
        "view": {
            "y": made.y,
            "x": made.x,
            "log": options.log,
            "panels": curves.split_by(made),
        },
        "curves": curves.curves(tables, plan, names, made.y, made.timing),
        "ranking": ranking(made, column, names),
        "matrices": if_applicable(lambda: pairs.matrices(made, column, names)) or [],
        "pairs_lead": pairs.lead(column, {card["correction"] for card in cards}, made.few_searches),
        "ranks": if_applicable(lambda: ranks(made, column, names)),
        "rates": if_applicable(lambda: rates(made, names)) if by_rate(made) else None,
        "budget": if_applicable(lambda: budget(made, names)) if made.tuned else None,
        "searched": if_applicable(lambda: searched(made, names)) if made.tuned else None,
        "chosen": if_applicable(lambda: chosen(made, names)) if made.tuned else None,
        "spread": if_applicable(lambda: spread(made, column, names)) if made.tuned else None,
        "reached": None if found is None else targets.reached(found, names, made.few_searches),
        "reached_figure": None if found is None else targets.figure_of(made, found, names),
        "performance": if_applicable(lambda: targets.performance(made, names)),
        "layers": if_applicable(lambda: layers(made, names)) if made.has_layers else None,
        "runs": runs.run_list(records, folders, made, config_folder()),
        "missing": runs.missing(plan, lists, made.manifests),
        "failed_jobs": runs.failed_jobs(lists, records),
        "left_out": [*left_out, *made.older],
        "older": made.older,
        "machines": runs.machines(records),
    }
    result: dict[str, Any] = plain(data)
    return result


def candidate_of(made: Comparison, column: str) -> dict[str, Any] | None:
    """Return the verdict on the named candidate, without caveats that the page has."""
    told = asked_verdict(made, column)
    if told is None:
        return None
    shown = caveats(made, column)
    own = [text for text in told["caveats"] if text not in shown]
    shared = ("candidate", "outcome", "claim", "sentence", "problems")
    return {key: told[key] for key in shared} | {
        "caveats": own,
        "over": told["over_problems"]["baselines"],
    }


def if_applicable(job: Callable[[], Any]) -> Any:
    """Return the section's data, or None if the section does not apply to the runs."""
    try:
        return job()
    except UserError:
        return None

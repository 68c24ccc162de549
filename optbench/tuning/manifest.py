"""A tuned study's manifest `study.json`: plan, progress, trials and caveats."""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from optbench.formats import job_list
from optbench.formats.keys import TuningConfig
from optbench.formats.older_code import code_in
from optbench.formats.study import entries_in, read_manifest
from optbench.tuning import caveats
from optbench.tuning.contenders import Contender, Trial

Plan = dict[str, list[list[str]]]  # the overrides of each phase's jobs


def done_of(folder: Path, plan: Plan) -> dict[str, Any]:
    """Return which jobs of the plan are done, failed and missing, by phase."""
    statuses = {job["job"]: job["status"] for job in job_list.read(folder)[1]}
    found, number = {}, 0
    for name, planned in plan.items():
        here = range(number, number + len(planned))
        found[name] = job_list.progress(planned, [statuses.get(index) for index in here])
        number += len(planned)
    return found


def describe(
    searches: Sequence[Contender],
    settings: TuningConfig,
    seeds: int,
    done: dict[str, Any],
    earlier: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the manifest: protocol, progress, trials, choices and caveats.

    earlier: the last manifest's entries; entries without a new choice in this study are kept.
    """
    entries = [_entry(entry, settings) for entry in searches]
    told = caveats.by_contender(searches)
    for entry, record in zip(searches, entries, strict=True):
        record["warnings"] = told[caveats.contender_key(entry)]
    chosen = {(entry.problem, entry.name) for entry in searches if entry.problem}
    code = {target: files for entry in searches for target, files in entry.code.items()}
    kept = [
        entry
        for entry in earlier
        if (entry["problem"], entry["optimizer"]) not in chosen
        # the tables leave runs of older code out
        and not any(files != code.get(target, files) for target, files in code_in(entry).items())
    ]
    everything = [*entries, *kept]  # the tables have the runs of both
    return {
        "tuning": settings,
        "seeds": seeds,
        "phases": done,
        "contenders": entries,
        "earlier": kept,
        "warnings": [
            *caveats.missing_runs(done),
            *dict.fromkeys(caveats.of_study(everything, settings, seeds)),
        ],
    }


def _entry(entry: Contender, settings: TuningConfig) -> dict[str, Any]:
    """Return the manifest's entry of one contender in one search."""
    best, first = entry.best, entry.first_best
    return {
        "optimizer": entry.name,
        "problem": entry.problem,
        "repeat": entry.repeat,
        "code": entry.code,
        "overrides": entry.overrides,
        "space": entry.space,
        "space_before": entry.first_space,
        "not_searched": entry.left,
        "trials": [_trial(trial) for trial in entry.trials],
        entry.length[0]: sum(trial.length or entry.length[1] for trial in entry.trials)
        * settings["seeds_per_trial"],
        "chosen": best and best.point,
        "chosen_before": first and first.point,
        "score": best and best.score,
        "score_before": first and first.score,
        "setting": best and best.setting,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "point": trial.point,
        "kind": trial.kind,
        "score": None if trial.score == inf else trial.score,
        "status": trial.status,
        "run_ids": list(trial.run_ids),
        **({} if trial.length is None else {"length": trial.length}),
    }


def entries_of(path: Path) -> list[dict[str, Any]]:
    """Return the entries of an old manifest, and the entries that it had kept."""
    try:
        manifest = read_manifest(path)
    except (OSError, ValueError):
        return []  # there is no manifest, or only one of another form
    return [entry for entry in entries_in(manifest) if entry.get("problem")]


def is_behind(record: Mapping[str, Any], path: Path) -> bool:
    """Return whether a manifest has fewer trials than the same study's file."""
    try:
        written = read_manifest(path)
    except (OSError, ValueError):
        return False
    same = written["tuning"] == record["tuning"] and written.get("seeds") == record["seeds"]
    return same and _trials_in(record) < _trials_in(written)


def _trials_in(manifest: Mapping[str, Any]) -> int:
    return sum(len(entry["trials"]) for entry in manifest["contenders"])

"""A tuned study's contenders and its manifest, `study.json`: what was planned, what is done of it,
every trial, the choices, and what a reviewer would object to.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optbench import jobs, tuning
from optbench.keys import count
from optbench.paired_tests import enough_seeds
from optbench.study_files import read_manifest

FILE = "study.json"
Plan = dict[str, list[list[str]]]  # phase: the overrides of its jobs


@dataclass
class Contender:
    """One optimizer on one problem: its overrides, its space, and what came of its trials."""

    overrides: list[str]
    name: str
    space: tuning.Space
    points: list[tuning.Point] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    run_ids: list[str | None] = field(default_factory=list)
    settings: list[str | None] = field(default_factory=list)  # `study_files.setting_of` of each
    problem: str | None = None  # its hash, once a trial came to an end

    @property
    def best(self) -> int | None:
        """The index of the chosen trial."""
        return tuning.choose(self.scores)


def done_of(folder: Path, plan: Plan) -> dict[str, Any]:
    """What of the plan is done, failed and missing, by phase."""
    statuses = {job["job"]: job["status"] for job in jobs.read(folder)[1]}
    found, number = {}, 0
    for name, planned in plan.items():
        here = range(number, number + len(planned))
        found[name] = jobs.progress(planned, [statuses.get(index) for index in here])
        number += len(planned)
    return found


def describe(
    contenders: list[Contender],
    settings: dict[str, Any],
    seeds: int,
    done: dict[str, Any],
    earlier: list[dict[str, Any]],
) -> dict[str, Any]:
    """The manifest: the protocol, what is done of it, every trial, the choices, and objections.

    earlier: the entries of the manifest before; those that this study has no choice for are kept.
    """
    entries = []
    for entry in contenders:
        trials = [
            {
                "point": point,
                "score": None if score == float("inf") else score,
                "status": status,
                "run_id": run_id,
            }
            for point, score, status, run_id in zip(
                entry.points, entry.scores, entry.statuses, entry.run_ids, strict=True
            )
        ]
        entries.append(
            {
                "optimizer": entry.name,
                "problem": entry.problem,
                "overrides": entry.overrides,
                "space": entry.space,
                "trials": trials,
                "chosen": None if entry.best is None else entry.points[entry.best],
                "setting": None if entry.best is None else entry.settings[entry.best],
            }
        )
    chosen = {(entry.problem, entry.name) for entry in contenders if entry.problem}
    return {
        "tuning": settings,
        "seeds": seeds,
        "phases": done,
        "contenders": entries,
        "earlier": [e for e in earlier if (e["problem"], e["optimizer"]) not in chosen],
        "warnings": [*gaps(done), *objections(contenders, settings, seeds)],
    }


def entries_of(path: Path) -> list[dict[str, Any]]:
    """The entries of a manifest that is about to be replaced, and those that it had kept."""
    try:
        manifest = read_manifest(path)
    except (OSError, ValueError):
        return []  # there is none, or none of this form
    entries = [*manifest["contenders"], *manifest["earlier"]]
    return [entry for entry in entries if entry.get("problem")]


def rivals(contenders: list[Contender]) -> int:
    """With how many others the leader of a problem is compared, at most; at least 1."""
    sides = ("optimizer", "schedule", "decay_biases_and_norms")
    problems = Counter(
        tuple(text for text in entry.overrides if not text.lstrip("+~").startswith(sides))
        for entry in contenders
    )
    return max(1, max(problems.values()) - 1)


def too_few(contenders: list[Contender], seeds: int) -> Iterator[str]:
    """Whether no verdict can come of so many seeds: known before anything is run."""
    others = rivals(contenders)
    least = enough_seeds(others)
    if seeds < least:
        holm = f" after Holm's correction for {others} comparisons" if others > 1 else ""
        yield (
            f"{count(seeds, 'seed')}: with fewer than {least} pairs no two-sided "
            f"signed-rank test reaches p < 0.05{holm}"
        )


def gaps(done: dict[str, Any]) -> Iterator[str]:
    """Whether the study is whole."""
    for kind in ("missing", "failed"):
        counts = {name: found[kind] for name, found in done.items() if found[kind]}
        if counts:
            parts = ", ".join(f"{count} of {name}" for name, count in counts.items())
            yield f"runs are {kind} ({parts}); the same command runs them"


def named(entry: Contender, contenders: list[Contender]) -> str:
    """The contender in words: its optimizer, and the overrides that others do not share."""
    shared = set.intersection(*(set(other.overrides) for other in contenders))
    apart = [text for text in entry.overrides if text not in shared]
    return " ".join([entry.name, *(t for t in apart if not t.startswith("optimizer="))])


def objections(contenders: list[Contender], settings: dict[str, Any], seeds: int) -> Iterator[str]:
    """What a reviewer would object to, a sentence each."""
    for entry in contenders:
        who = named(entry, contenders)
        if not entry.points:
            continue  # its trials are still to come
        if not entry.space:
            yield f"{who}: nothing was searched, its hyperparameters are given"
            continue
        bad = sum(status == "diverged" for status in entry.statuses)
        failed = sum(status == "failed" for status in entry.statuses)
        if entry.best is None:
            yield f"{who}: no trial came to an end, so it has no tuned setting"
            continue
        for where in tuning.at_edge(entry.space, entry.points[entry.best]):
            yield f"{who}: the best setting lies at the edge of its search space ({where})"
        if bad > len(entry.statuses) / 2:
            yield f"{who}: {bad} of {len(entry.statuses)} trials diverged"
        if failed:
            yield f"{who}: {failed} trials failed, so its budget was smaller"
    counts = {len(entry.points) for entry in contenders if entry.space}
    if len(counts) > 1:
        yield f"the budgets are unequal: {min(counts)} to {max(counts)} trials"
    yield from too_few(contenders, seeds)
    if settings["pick"] == "best":
        yield "trials were judged by their best epoch: that is early stopping for each run"

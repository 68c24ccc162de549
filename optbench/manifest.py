"""A tuned study's contenders and its manifest, `study.json`: what was planned, what is done of it,
every trial, the choices, and what a reviewer would object to.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optbench import jobs, tuning

FILE = "study.json"
ENOUGH_SEEDS = 6  # five pairs cannot go below p = 0.0625 in a two-sided sign-flip test
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
    contenders: list[Contender], settings: dict[str, Any], seeds: int, done: dict[str, Any]
) -> dict[str, Any]:
    """The manifest: the protocol, what is done of it, every trial, the choices, and objections."""
    entries = []
    for entry in contenders:
        trials = [
            {"point": p, "score": None if s == float("inf") else s, "status": status}
            for p, s, status in zip(entry.points, entry.scores, entry.statuses, strict=True)
        ]
        entries.append(
            {
                "optimizer": entry.name,
                "overrides": entry.overrides,
                "space": entry.space,
                "trials": trials,
                "chosen": None if entry.best is None else entry.points[entry.best],
            }
        )
    return {
        "tuning": settings,
        "seeds": seeds,
        "phases": done,
        "contenders": entries,
        "warnings": [*gaps(done), *objections(contenders, settings, seeds)],
    }


def gaps(done: dict[str, Any]) -> Iterator[str]:
    """Whether the study is whole."""
    for kind in ("missing", "failed"):
        counts = {name: found[kind] for name, found in done.items() if found[kind]}
        if counts:
            parts = ", ".join(f"{count} of {name}" for name, count in counts.items())
            yield f"runs are {kind} ({parts}); the same command runs them"


def objections(contenders: list[Contender], settings: dict[str, Any], seeds: int) -> Iterator[str]:
    """What a reviewer would object to, a sentence each."""
    for entry in contenders:
        who = " ".join(entry.overrides)
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
    if seeds < ENOUGH_SEEDS:
        yield (
            f"{seeds} seeds: with fewer than {ENOUGH_SEEDS} pairs no two-sided signed-rank test "
            f"reaches p < 0.05"
        )
    if settings["pick"] == "best":
        yield "trials were judged by their best epoch: that is early stopping for each run"

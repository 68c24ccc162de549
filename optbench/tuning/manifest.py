"""A tuned study's contenders, and its manifest `study.json`.

The manifest holds the plan, its progress, every trial, the choices, and caveats."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from optbench.common.text import count
from optbench.formats import job_list
from optbench.formats.keys import SERIES_KEYS
from optbench.formats.older_code import code_in
from optbench.formats.study import read_manifest
from optbench.stats.corrections import HOLM, series_and_seeds, too_few_seeds
from optbench.tuning import search

Plan = dict[str, list[list[str]]]  # the overrides of each phase's jobs


class Trial(NamedTuple):
    """A point that was tried, and its outcome."""

    point: search.Point
    score: float  # smaller is better; inf for a trial that did not complete
    status: str
    run_id: str | None = None
    setting: str | None = None  # `formats.study.setting_of` the run


@dataclass
class Contender:
    """One optimizer on one problem: its overrides, its search space, and its trials."""

    overrides: list[str]
    name: str
    space: search.Space
    added: frozenset[str] = frozenset()  # keys of the space that the optimizer's YAML lacks
    trials: list[Trial] = field(default_factory=list)
    problem: str | None = None  # its hash, once a trial has ended
    code: dict[str, Any] = field(default_factory=dict)  # `own_code.code_of` the trials
    untrained: float | None = None  # the score before the first step, once a trial has completed

    @property
    def best(self) -> Trial | None:
        """The chosen trial, or None before one has completed."""
        index = search.choose([trial.score for trial in self.trials])
        return None if index is None else self.trials[index]


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
    contenders: list[Contender],
    settings: dict[str, Any],
    seeds: int,
    done: dict[str, Any],
    earlier: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the manifest: protocol, progress, trials, choices and caveats.

    earlier: the last manifest's entries; entries without a new choice in this study are kept.
    """
    entries = []
    for entry in contenders:
        trials = [
            {
                "point": point,
                "score": None if score == inf else score,
                "status": status,
                "run_id": id_,
            }
            for point, score, status, id_, _ in entry.trials
        ]
        best = entry.best
        entries.append(
            {
                "optimizer": entry.name,
                "problem": entry.problem,
                "code": entry.code,
                "overrides": entry.overrides,
                "space": entry.space,
                "trials": trials,
                "chosen": best and best.point,
                "setting": best and best.setting,
                "warnings": list(trial_caveats(entry, label_of(entry, contenders))),
            }
        )
    chosen = {(entry.problem, entry.name) for entry in contenders if entry.problem}
    code = {target: files for entry in contenders for target, files in entry.code.items()}
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
        "warnings": [*missing_runs(done), *caveats(everything, settings, seeds)],
    }


def entries_of(path: Path) -> list[dict[str, Any]]:
    """Return the entries of an old manifest, with those that it had kept."""
    try:
        manifest = read_manifest(path)
    except (OSError, ValueError):
        return []  # there is no manifest, or only one of another form
    entries = [*manifest["contenders"], *manifest["earlier"]]
    return [entry for entry in entries if entry.get("problem")]


def rivals(overrides: Iterable[Sequence[str]]) -> int:
    """Return with how many others the leader of a problem is compared, at least 1."""
    return max(1, series_and_seeds(overrides, SERIES_KEYS)[0] - 1)


def too_few(overrides: Iterable[Sequence[str]], seeds: int) -> Iterator[str]:
    """Yield a caveat if so few seeds allow no verdict, which is known before any run.

    overrides: those of each optimizer on each problem.
    """
    if why := too_few_seeds(seeds, rivals(overrides), HOLM):
        yield f"{count(seeds, 'seed')}: {why}"


def missing_runs(done: dict[str, Any]) -> Iterator[str]:
    """Yield a caveat for missing runs, and one for failed runs."""
    for kind in ("missing", "failed"):
        counts = {name: found[kind] for name, found in done.items() if found[kind]}
        if counts:
            parts = ", ".join(f"{count} of {name}" for name, count in counts.items())
            again = " (unless retry=none)" if kind == "failed" else ""
            yield f"runs are {kind} ({parts}); the same command runs them{again}"


def label_of(entry: Contender, contenders: list[Contender]) -> str:
    """Return a contender's label: its optimizer, and the overrides that others lack."""
    shared = set.intersection(*(set(other.overrides) for other in contenders))
    apart = [text for text in entry.overrides if text not in shared]
    return " ".join([entry.name, *(t for t in apart if not t.startswith("optimizer="))])


def trial_caveats(entry: Contender, who: str) -> Iterator[str]:
    """Yield the caveats of one optimizer's trials, a sentence each."""
    if not entry.trials:
        return  # the trials have not begun
    if not entry.space:
        yield f"{who}: nothing was searched, its hyperparameters are given"
        return
    total = count(len(entry.trials), "trial")
    by_status = Counter(trial.status for trial in entry.trials)
    failed, diverged = by_status["failed"], by_status["diverged"]
    if (best := entry.best) is None:
        yield f"{who}: no trial came to an end, so it has no tuned setting"
        return
    for where in search.at_edge(entry.space, best.point):
        yield f"{who}: the best setting lies at the edge of its search space ({where})"
    # a loss may grow without bound, and still be finite at the end of the run
    start = entry.untrained
    worse = 0 if start is None else sum(start < trial.score < inf for trial in entry.trials)
    if 2 * (diverged + worse) > len(entry.trials):
        also = f" and {worse} ended worse than the untrained model" if worse else ""
        yield f"{who}: {diverged} of {total} diverged{also}"
    if start is not None and best.score >= start:
        yield f"{who}: the best setting ends no better than the untrained model"
    if failed:
        yield f"{who}: {failed} of {total} failed, so its budget was smaller"


def caveats(entries: list[dict[str, Any]], settings: dict[str, Any], seeds: int) -> Iterator[str]:
    """Yield the caveats of a study with these entries, a sentence each."""
    for entry in entries:
        yield from entry.get("warnings", [])
    counts = {len(entry["trials"]) for entry in entries if entry["space"]}
    if len(counts) > 1:
        yield f"the budgets are unequal: {min(counts)} to {max(counts)} trials"
    yield from too_few([entry["overrides"] for entry in entries], seeds)
    if settings["pick"] == "best":
        yield "trials were judged by their best epoch: that is early stopping for each run"

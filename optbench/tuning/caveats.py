"""The caveats of a tuned study, from its searches."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any

from optbench.common.text import count
from optbench.formats.keys import SERIES_KEYS, TuningConfig
from optbench.stats.corrections import MAX_TYPE, least_seeds, series_and_seeds, too_few_seeds
from optbench.tuning import edges
from optbench.tuning.contenders import DEFAULT, FOLLOW_UP, Contender


def contender_key(entry: Contender) -> tuple[str, ...]:
    """Return what all searches of a contender share."""
    return tuple(entry.overrides)


def by_contender(searches: Sequence[Contender]) -> dict[tuple[str, ...], list[str]]:
    """Return the caveats of each contender's searches, a sentence each."""
    groups: dict[tuple[str, ...], list[Contender]] = {}
    for entry in searches:
        groups.setdefault(contender_key(entry), []).append(entry)
    return {
        key: list(search_caveats(group, label_of(group[0], searches)))
        for key, group in groups.items()
    }


def rivals(overrides: Iterable[Sequence[str]]) -> int:
    """Return how many others the leader of a problem is compared with, at least 1."""
    return max(1, series_and_seeds(overrides, SERIES_KEYS)[0] - 1)


def too_few(
    overrides: Iterable[Sequence[str]], settings: TuningConfig, seeds: int
) -> Iterator[str]:
    """Yield the caveats of too few searches, which are known before any run.

    overrides: those of each optimizer on each problem.
    """
    repeats, others = settings.get("repeats", 1), rivals(overrides)
    least = least_seeds(others, MAX_TYPE)
    if repeats >= least:
        return
    yield (
        f"{count(repeats, 'search', 'searches')} of each optimizer: a verdict is on these "
        f"settings, not on the optimizers, as it leaves out the luck of a search; from "
        f"tuning.repeats={least} on it is on the optimizers"
    )
    if why := too_few_seeds(repeats * seeds, others, MAX_TYPE):
        yield f"{count(repeats * seeds, 'seed')}: {why}"


def missing_runs(done: dict[str, Any]) -> Iterator[str]:
    """Yield a caveat for missing runs, and one for failed runs."""
    for kind in ("missing", "failed"):
        counts = {name: found[kind] for name, found in done.items() if found[kind]}
        if counts:
            parts = ", ".join(f"{count} of {name}" for name, count in counts.items())
            again = " (unless retry=none)" if kind == "failed" else ""
            yield f"runs are {kind} ({parts}); the same command runs them{again}"


def label_of(entry: Contender, searches: Sequence[Contender]) -> str:
    """Return a contender's label: its optimizer, and the overrides that others lack."""
    shared = set.intersection(*(set(other.overrides) for other in searches))
    apart = [text for text in entry.overrides if text not in shared]
    return " ".join([entry.name, *(t for t in apart if not t.startswith("optimizer="))])


def search_caveats(group: Sequence[Contender], who: str) -> Iterator[str]:
    """Yield the caveats of one contender's searches, a sentence each."""
    tried = [entry for entry in group if entry.trials]
    if not tried:
        return  # the trials have not begun
    if not group[0].space:
        yield f"{who}: nothing was searched, its hyperparameters are given"
        return
    found = [entry for entry in tried if entry.best is not None]
    if len(found) < len(tried):
        yield f"{who}: no trial came to an end{_in(len(tried) - len(found), tried)}, " + (
            "so it has no tuned setting"
        )
    if not found:
        return
    at_edge = [entry for entry in found if _edges(entry)]
    if at_edge:
        where = ", ".join(edge.text for edge in _edges(at_edge[0]))
        yield (
            f"{who}: the best setting lies at the edge of its search space"
            f"{_in(len(at_edge), tried)} ({where}{', for one' if len(at_edge) > 1 else ''})"
        )
    moved = [entry for entry in found if entry.first_best and entry.best != entry.first_best]
    if moved:
        gain = max(entry.first_best.score - entry.best.score for entry in moved)  # type: ignore[union-attr]
        where = _in(len(moved), tried)
        yield (
            f"{who}: follow-up trials found a better setting{where} (by {gain:.3g} at most): "
            f"tuning.trials was too small to be sure of the best"
        )
    if kept := sum(entry.best.kind == DEFAULT for entry in found):  # type: ignore[union-attr]
        yield f"{who}: no trial was better than its default setting{_in(kept, tried)}"
    yield from _lost(tried, found, who)


def _edges(entry: Contender) -> list[edges.Edge]:
    best = entry.best
    return [] if best is None else edges.edges_of(entry.space, best.point, len(entry.full))


def _in(some: int, tried: Sequence[Contender]) -> str:
    return f" in {some} of {len(tried)} searches" if len(tried) > 1 else ""


def _lost(tried: Sequence[Contender], found: Sequence[Contender], who: str) -> Iterator[str]:
    """Yield the caveats of trials that diverged, failed, or learned nothing."""
    trials = [trial for entry in tried for trial in entry.trials]
    by_status = Counter(trial.status for trial in trials)
    failed, diverged = by_status["failed"], by_status["diverged"]
    # a loss may grow without bound, and still be finite at the end of the run
    worse = sum(
        entry.untrained < trial.score < inf
        for entry in tried
        if entry.untrained is not None
        for trial in entry.full
    )
    if 2 * (diverged + worse) > len(trials):
        also = f" and {worse} ended worse than the untrained model" if worse else ""
        yield f"{who}: {diverged} of {count(len(trials), 'trial')} diverged{also}"
    poor = [e for e in found if e.untrained is not None and e.best.score >= e.untrained]  # type: ignore[union-attr]
    if poor:
        yield f"{who}: the best setting ends no better than the untrained model" + (
            _in(len(poor), tried)
        )
    if failed:
        yield f"{who}: {failed} of {count(len(trials), 'trial')} failed, so its budget was smaller"


def of_study(
    entries: Sequence[dict[str, Any]], settings: TuningConfig, seeds: int
) -> Iterator[str]:
    """Yield the caveats of a study from its manifest's entries, a sentence each."""
    for entry in entries:
        yield from entry.get("warnings", [])
    counts = {len(entry["trials"]) for entry in entries if entry["space"] and entry["trials"]}
    if len(counts) > 1 and not any(_followed(entry) for entry in entries):
        yield f"the budgets are unequal: {min(counts)} to {max(counts)} trials"
    yield from too_few([entry["overrides"] for entry in entries], settings, seeds)
    if settings["pick"] == "best":
        yield "trials were judged by their best epoch: that is early stopping for each run"


def _followed(entry: Mapping[str, Any]) -> bool:
    """Return whether a search had follow-up trials.

    Their number depends on the problem, so that budgets then differ on purpose.
    """
    return any(trial.get("kind") == FOLLOW_UP for trial in entry["trials"])

"""The trials of all searches of a tuned study: which are run, in which batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optbench.formats.keys import TuningConfig
from optbench.formats.run import AVERAGED, read_csv, read_record
from optbench.formats.study import setting_of
from optbench.tuning import edges, halving, search
from optbench.tuning.contenders import DEFAULT, FOLLOW_UP, RUNG, SEARCHED, Contender, Trial
from optbench.tuning.space import Point

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Any]]


class Candidate(NamedTuple):
    """A setting that a contender is about to try."""

    entry: Contender
    point: Point | None  # None: the default setting
    kind: str = SEARCHED
    length: int | None = None  # epochs (or steps) of a rung

    def jobs(self, seeds: int) -> list[list[str]]:
        """Return the overrides of a run for each seed of the trial."""
        words = self.entry.words(self.point)
        if self.length is not None:
            words = [*words, f"{self.entry.length[0]}={self.length}"]
        name = "rungs" if self.kind == RUNG else "trials"
        own = range(self.entry.seed, self.entry.seed + seeds)
        return [[*words, *phase(name, seed, self.entry.repeat)] for seed in own]


def phase(name: str, seed: int, repeat: int) -> list[str]:
    """Return the overrides of a phase's run: its seed, search, subfolder and test set."""
    test = "end" if name in ("tuned", "default") else "never"
    return [
        f"seed={seed}", f"phase={name}", f"repeat={repeat}", f"log.eval_test={test}",
        f"hydra.sweep.subdir={name}",
    ]  # fmt: skip


def batches(contenders: Sequence[Contender], settings: TuningConfig) -> Iterator[list[Candidate]]:
    """Yield the trials to launch together; each batch depends on earlier outcomes.

    First come each contender's default setting and the points of its sequence, then follow-up
    trials. Successive halving tries the points in rungs, tpe one point of each contender at a time.
    """
    if settings["pruning"]:
        yield from _halving(contenders, settings)
    elif settings["method"] == "tpe":
        yield from _tpe(contenders, settings)
    else:
        yield [
            trial for entry in contenders for trial in _first(entry, settings["trials"], settings)
        ]
    for number in range(settings["widenings"] if settings["method"] != "grid" else 0):
        if not (follow_up := _follow_up(contenders, settings, number)):
            return
        yield follow_up


def sizes(entry: Contender, settings: TuningConfig) -> int:
    """Return how many trials a contender has before its follow-up trials."""
    if not entry.space:
        return 1
    if settings["pruning"]:
        return sum(rung.trials for rung in halving.rungs(settings["trials"], entry.length[1]))
    return int(settings["trials"])


def _first(entry: Contender, number: int, settings: TuningConfig) -> list[Candidate]:
    points = _draw(entry, number - 1, settings) if entry.space else []
    return [Candidate(entry, None, DEFAULT), *(Candidate(entry, point) for point in points)]


def _draw(entry: Contender, number: int, settings: TuningConfig) -> list[Point]:
    """Return the next points of a contender's own sequence."""
    method = "sobol" if settings["method"] == "tpe" else settings["method"]
    own = entry.first_space or entry.space
    entry.drawn += number
    return search.points(own, entry.drawn, method, entry.seed)[entry.drawn - number :]


def _halving(contenders: Sequence[Contender], settings: TuningConfig) -> Iterator[list[Candidate]]:
    plans = [
        (entry, halving.rungs(settings["trials"], entry.length[1]) if entry.space else [])
        for entry in contenders
    ]
    alive = {
        id(entry): _first(entry, rungs[0].trials if rungs else 1, settings)
        for entry, rungs in plans
    }
    for level in range(max(1, *(len(rungs) for _, rungs in plans))):
        batch = []
        for entry, rungs in plans:
            if level == max(len(rungs) - 1, 0):
                batch += alive[id(entry)]
            elif level < len(rungs):
                length = rungs[level].length
                batch += [c._replace(kind=RUNG, length=length) for c in alive[id(entry)]]
        yield batch
        for entry, rungs in plans:
            if level + 1 < len(rungs):
                tried = alive[id(entry)]
                scores = [trial.score for trial in entry.trials[-len(tried) :]]
                kept = halving.survivors(scores, rungs[level + 1].trials)
                alive[id(entry)] = [tried[index] for index in kept]


def _tpe(contenders: Sequence[Contender], settings: TuningConfig) -> Iterator[list[Candidate]]:
    yield [Candidate(entry, None, DEFAULT) for entry in contenders]
    searches = [(entry, search.Tpe(entry.space, entry.seed)) for entry in contenders if entry.space]
    for _ in range(settings["trials"] - 1):
        yield [Candidate(entry, tpe.ask()) for entry, tpe in searches]
        for entry, tpe in searches:
            tpe.tell(entry.trials[-1].score)


def _follow_up(
    contenders: Sequence[Contender], settings: TuningConfig, number: int
) -> list[Candidate]:
    """Return equally many further trials for each contender of a problem's search.

    A contender whose best trial lies at an edge tries values beyond the edge, and its space grows.
    The others try the next points of their own sequence. If no best trial lies
    at an edge, no trial follows.
    """
    each = max(1, ceil(settings["trials"] / 4))
    groups: dict[tuple[str | None, int], list[Contender]] = {}
    for entry in contenders:
        if entry.space and entry.best is not None:
            groups.setdefault((entry.problem, entry.repeat), []).append(entry)
    found = []
    for group in groups.values():
        bests = [entry.best for entry in group]
        at_edges = [
            [] if best is None else edges.edges_of(entry.space, best.point, settings["trials"])
            for entry, best in zip(group, bests, strict=True)
        ]
        if not any(at_edges):
            continue
        for entry, own in zip(group, at_edges, strict=True):
            best = entry.best
            assert best is not None
            if entry.first_best is None:
                entry.first_best, entry.first_space = best, entry.space
            if own:
                entry.space = edges.widened(entry.space, own)
                entropy = [entry.seed, number + 1]
                points = edges.points_beyond(best.point, own, each, entropy)
            else:
                points = _draw(entry, each, settings)
            found += [Candidate(entry, point, FOLLOW_UP) for point in points]
    return found


def note(
    batch: Sequence[Candidate], results: Sequence[Any], folder: Path, settings: TuningConfig
) -> None:
    """Add the outcomes of a batch's jobs to the trials of their contenders.

    results: of Hydra's launcher, for the jobs of the candidates in order.
    """
    each = settings["seeds_per_trial"]
    for number, candidate in enumerate(batch):
        own = results[number * each : (number + 1) * each]
        place = folder / ("rungs" if candidate.kind == RUNG else "trials")
        records = [_record(place, result.return_value) for result in own]
        candidate.entry.trials.append(_trial(candidate, records, settings))
        if candidate.kind != RUNG:
            _complete(candidate.entry, own, records, place, settings["metric"])


def _trial(
    candidate: Candidate, records: Sequence[Mapping[str, Any]], settings: TuningConfig
) -> Trial:
    scores = [
        search.score(record.get("summary"), settings["metric"], settings["pick"])
        if record["status"] == "completed"
        else inf
        for record in records
    ]
    statuses = [str(record["status"]) for record in records]
    worst = next((status for status in statuses if status != "completed"), "completed")
    score = float(np.median(scores))
    return Trial(
        candidate.entry.defaults if candidate.point is None else candidate.point,
        inf if np.isnan(score) else score,  # a NaN counts as no result
        "completed" if score < inf else worst,
        tuple(record["run_id"] for record in records if "run_id" in record),
        next((setting_of(record) for record in records if "config" in record), None),
        candidate.kind,
        candidate.length,
    )


def _complete(
    entry: Contender,
    results: Sequence[Any],
    records: Sequence[Mapping[str, Any]],
    place: Path,
    metric: str,
) -> None:
    """Add to a contender what its first completed runs tell."""
    for result, record in zip(results, records, strict=True):
        entry.problem = record.get("problem_hash", entry.problem)
        entry.code = record.get("code", entry.code)
        if entry.untrained is None and record["status"] == "completed":
            start = untrained(place / result.return_value["run"])
            entry.untrained = search.score(start, metric, "final")


def untrained(run: Path) -> dict[str, float]:
    """Return the validation results before the first step, which all trials share.

    Averaged weights are then the raw ones.
    """
    columns = read_csv(run / "epochs.csv")
    raw = {name: name.removeprefix(AVERAGED) for name in search.METRICS}
    return {name: float(columns[column][0]) for name, column in raw.items() if column in columns}


def _record(folder: Path, job: Any) -> Mapping[str, Any]:
    """Return the record of a job's run, or a record of its failure."""
    if isinstance(job, dict) and job.get("run"):
        return read_record(folder / job["run"] / "run.json")
    return {"status": "failed"}

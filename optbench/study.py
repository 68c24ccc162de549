"""A tuned study: the same number of trials for each optimizer, then seeds that took no part.

Phase 1 judges every trial by the validation split; the test set is not measured in it. Phase 2
repeats each optimizer's best setting, and its default one, with new seeds, and measures the test
set once, at the end. Both go through Hydra's launcher; a finished run is never run again.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import DictConfig, OmegaConf

from optbench import sweep, tuning
from optbench.errors import UserError
from optbench.overrides import own_keys
from optbench.progress import say
from optbench.run_files import read_record

MANIFEST = "study.json"
ENOUGH_SEEDS = 6  # five pairs cannot go below p = 0.0625 in a two-sided sign-flip test
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Any]]


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


def run(
    config: DictConfig,
    arguments: list[str],
    compose: Callable[[list[str]], DictConfig],
    launch: Launch,
) -> None:
    """Plan the study, run what is missing of its two phases, and write the manifest.

    compose: overrides of one job to its configuration. launch: Hydra's launcher.
    Raises `UserError` where the study cannot be judged by validation.
    """
    with sweep.exits():
        settings: Any = OmegaConf.to_container(config.tuning, resolve=True)
        check(settings, config.seeds)
        contenders = [contender(jobs, compose, settings) for jobs in expand(arguments)]
        folder = Path(config.hydra.sweep.dir)
        trials = settings["trials"]
        planned = len(contenders) * (trials + 2 * config.seeds)
        sweep.plan(folder, planned)
        if not config.quiet:
            say(
                f"{len(contenders)} optimizers and problems, {trials} trials each by "
                f"{settings['pick']} {settings['metric']}, then {config.seeds} seeds of the best "
                f"and of the defaults: {planned} runs"
            )
    number = 0
    for points in rounds(contenders, settings):
        jobs = [
            [*entry.overrides, *tuning.overrides(point), *phase("trials", settings["seed"])]
            for entry, point in points
        ]
        results = launch(jobs, number)
        number += len(jobs)
        for (entry, point), result in zip(points, results, strict=True):
            record = read(folder / "trials", result.return_value)
            entry.points.append(point)
            entry.statuses.append(record["status"])
            entry.scores.append(
                tuning.score(record.get("summary"), settings["metric"], settings["pick"])
                if record["status"] == "completed"
                else float("inf")
            )
    jobs = []
    for entry in contenders:
        seeds = range(settings["seed"] + 1, settings["seed"] + 1 + config.seeds)
        if entry.best is not None:
            best = tuning.overrides(entry.points[entry.best])
            jobs += [[*entry.overrides, *best, *phase("tuned", seed)] for seed in seeds]
        jobs += [[*entry.overrides, *phase("default", seed)] for seed in seeds]
    launch(jobs, number)
    manifest = describe(contenders, settings, int(config.seeds))
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def check(settings: dict[str, Any], seeds: Any) -> None:
    """Raise `UserError` for a tuning configuration that means nothing."""
    for key, allowed in (
        ("method", tuning.METHODS), ("metric", tuning.METRICS), ("pick", tuning.PICKS),
    ):  # fmt: skip
        if settings[key] not in allowed:
            raise UserError(
                f"tuning.{key} must be one of {', '.join(allowed)}, not {settings[key]!r}"
            )
    for key, value, least in (
        ("tuning.trials", settings["trials"], 1),
        ("tuning.seed", settings["seed"], 0),
        ("seeds", seeds, 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{key} must be a whole number of at least {least}, not {value!r}")


def expand(arguments: list[str]) -> list[list[str]]:
    """The command line to one list of overrides per problem and optimizer."""
    parsed = sweep.parse(arguments)
    for override in parsed:
        if override.get_key_element() == "seed":
            raise UserError(
                "a tuned study chooses its seeds: tuning.seed for the trials, and seeds=N new ones"
            )
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return batch


def contender(
    overrides: list[str], compose: Callable[[list[str]], DictConfig], settings: dict[str, Any]
) -> Contender:
    """The optimizer's search space, less what the command line fixes."""
    config = compose(overrides)
    if not config.data.val_size:
        raise UserError("tuning judges by the validation split: data.val_size must be above 0")
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    optimizer = own_keys(resolved, overrides)["optimizer"]
    space = optimizer.get("search") or tuning.DEFAULT_SPACE
    given = {text.lstrip("+").split("=", 1)[0] for text in overrides}
    space = {key: spec for key, spec in space.items() if f"optimizer.{key}" not in given}
    tuning.check_space(space)
    return Contender(overrides, optimizer["name"], space)


def rounds(
    contenders: list[Contender], settings: dict[str, Any]
) -> Iterator[list[tuple[Contender, tuning.Point]]]:
    """What is launched together: all trials at once, or with tpe one of each optimizer."""
    trials, seed = settings["trials"], settings["seed"]
    if settings["method"] != "tpe":
        yield [
            (entry, point)
            for entry in contenders
            for point in tuning.points(entry.space, trials, settings["method"], seed)
        ]
        return
    searches = [tuning.Tpe(entry.space, seed) for entry in contenders]
    for _ in range(trials):
        yield [(entry, search.ask()) for entry, search in zip(contenders, searches, strict=True)]
        for entry, search in zip(contenders, searches, strict=True):
            search.tell(entry.scores[-1])


def phase(name: str, seed: int) -> list[str]:
    """The overrides of a phase's run: its subfolder, its seed, and when it may see the test set."""
    test = "never" if name == "trials" else "end"
    return [f"seed={seed}", f"phase={name}", f"log.eval_test={test}", f"hydra.sweep.subdir={name}"]


def read(folder: Path, job: Any) -> dict[str, Any]:
    """The record of a job's run, or its failure."""
    if isinstance(job, dict) and job.get("run"):
        return read_record(folder / job["run"] / "run.json")
    return {"status": "failed"}


def describe(contenders: list[Contender], settings: dict[str, Any], seeds: int) -> dict[str, Any]:
    """The manifest: the protocol, every trial, the choices, and what a reviewer would object to."""
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
        "contenders": entries,
        "warnings": list(objections(contenders, settings, seeds)),
    }


def objections(contenders: list[Contender], settings: dict[str, Any], seeds: int) -> Iterator[str]:
    """What a reviewer would object to, a sentence each."""
    for entry in contenders:
        who = " ".join(entry.overrides)
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
    counts = {len(entry.points) for entry in contenders}
    if len(counts) > 1:
        yield f"the budgets are unequal: {min(counts)} to {max(counts)} trials"
    if seeds < ENOUGH_SEEDS:
        yield (
            f"{seeds} seeds: with fewer than {ENOUGH_SEEDS} pairs no two-sided signed-rank test "
            f"reaches p < 0.05"
        )
    if settings["pick"] == "best":
        yield "trials were judged by their best epoch: that is early stopping for each run"

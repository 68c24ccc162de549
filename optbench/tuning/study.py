"""A tuned study: equal searches for each optimizer, then runs with new seeds.

The whole search is repeated `tuning.repeats` times, with other points and other seeds each, since
one search has its luck. Phase 1 judges every trial by the validation split, and does not measure
the test set. Phase 2 runs each search's best setting, and the default setting, with new seeds, and
measures the test set once, at the end. Hydra's launcher runs both phases; a finished run is never
run again.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

from omegaconf import DictConfig, OmegaConf

from optbench.common.console import say, warn
from optbench.common.errors import UNWRITABLE, UserError, check_choice
from optbench.common.text import count
from optbench.config.command_line import dry_run
from optbench.config.validate import MAX_INTEGER, check_group
from optbench.formats import job_list
from optbench.formats.job_list import MANIFEST_FILE
from optbench.formats.keys import RunConfig, TuningConfig
from optbench.formats.run import AVERAGED, write_sealed
from optbench.sweeps import callback, grid
from optbench.sweeps.sharing.session import own_files, sessions
from optbench.tuning import caveats, contenders, halving, manifest, optuna_file, search, space
from optbench.tuning import trials as trying
from optbench.tuning.contenders import Compose, Contender
from optbench.tuning.manifest import Plan
from optbench.tuning.trials import Launch, phase

MAX_TRIALS = 100_000  # and seeds; a larger number is likely a typing error
MAX_REPEATS = 1000
SEEDS_APART = 1000  # the seeds of a search, and those of the next
PRUNING = ("halving",)  # or null
# the keys that the study sets for each run, with the reason
STUDY_KEYS = {
    "seed": "tuning.seed is that of the first search's trials, and seeds=N asks for N new ones",
    "phase": "name=NAME names its folder",
    "repeat": "tuning.repeats=N repeats the search N times",
    "log.eval_test": "the test set is measured once, at the end of the tuned and default runs",
}


def run(config: DictConfig, arguments: list[str], compose: Compose, launch: Launch) -> None:
    """Plan the study, run the missing runs of both phases, and write the manifest.

    compose: from a job's overrides to its configuration. launch: Hydra's launcher.
    Raises `UserError` where validation cannot judge the trials.
    """
    folder, seeds = Path(config.hydra.sweep.dir), config.seeds
    with callback.exits():
        settings = check(config)
        chosen = str(config.hydra.runtime.choices.get("optimizer"))
        first = [
            contenders.contender(each, compose, settings["trials"])
            for each in expand(arguments, chosen)
        ]
        check_searches(first, settings)
        searches = [entry.again(*each) for entry in first for each in repeats(settings)]
        from optbench.sweeps import engine_choice, shared_dataset

        words = phase("trials", settings["seed"], 0)
        found = [contenders.rehearse(entry, compose, words) for entry in first]
        configs = [one for each in found for one in each]
        check_averaged(settings["metric"], configs)
        plan = first_plan(searches, settings, seeds)
        if dry_run.asked:
            tell_cost(first, [each[0] for each in found], settings, seeds)
        with own_files():
            job_list.plan(folder, sum(map(len, plan.values())), config.retry)
        engine_choice.choose(folder, configs, shared_dataset.load)
        for warning in caveats.too_few([entry.overrides for entry in first], settings, seeds):
            warn(warning)
        if not config.quiet:
            announce(first, settings, seeds, sum(map(len, plan.values())))

    earlier = manifest.entries_of(folder / MANIFEST_FILE)

    def keep() -> None:
        with callback.exits(), own_files():
            done = manifest.done_of(folder, plan)
            record = manifest.describe(searches, settings, int(seeds), done, earlier)
            if shared_elsewhere() and manifest.is_behind(record, folder / MANIFEST_FILE):
                return  # another worker of the study has come further
            try:
                write_sealed(folder / MANIFEST_FILE, record | {"retry": config.retry})
            except OSError as error:
                raise UserError(UNWRITABLE.format(folder, error.strerror)) from error

    keep()
    try:
        try_all(searches, settings, plan, launch, folder)
        plan |= last_plan(searches, settings, seeds)
        with own_files():
            job_list.replan(folder, sum(map(len, plan.values())))
        keep()
        with own_files():
            optuna_file.write(folder, searches, settings)
        launch([*plan["tuned"], *plan["default"]], len(plan["trials"]))
    finally:  # an interrupt raises SystemExit here
        keep()


def shared_elsewhere() -> bool:
    """Return whether other workers may have written this study's manifest."""
    return sessions.current is not None


def tell_cost(
    first: list[Contender], configs: list[RunConfig], settings: TuningConfig, seeds: int
) -> NoReturn:
    """Print the cost of the study without its follow-up trials, and exit.

    configs: of each contender's default setting.
    """
    from optbench.runner.cost_estimate import Share, tell
    from optbench.sweeps import shared_dataset

    shares = []
    for entry, config in zip(first, configs, strict=True):
        times, per_trial = settings["repeats"], settings["seeds_per_trial"]
        if settings["pruning"] and entry.space:
            for rung in halving.rungs(settings["trials"], entry.length[1]):
                runs = rung.trials * times * per_trial
                shares.append(Share(config, runs, rung.length / entry.length[1]))
        else:
            shares.append(Share(config, trying.sizes(entry, settings) * times * per_trial))
        shares.append(Share(config, 2 * seeds * times))
    tell(shares, shared_dataset.load)
    if settings["widenings"]:
        say(f"follow-up trials (tuning.widenings={settings['widenings']}) come on top")
    sys.exit(0)


def repeats(settings: TuningConfig) -> Iterator[tuple[int, int]]:
    """Yield the number of each repeat, and the first of its seeds."""
    for number in range(settings["repeats"]):
        yield number, settings["seed"] + number * SEEDS_APART


def try_all(
    searches: list[Contender],
    settings: TuningConfig,
    plan: Plan,
    launch: Launch,
    folder: Path,
) -> None:
    """Run the trials of all searches, and note outcomes there and jobs in `plan`."""
    number = 0
    for batch in trying.batches(searches, settings):
        jobs = [job for one in batch for job in one.jobs(settings["seeds_per_trial"])]
        before = len(plan["trials"])
        plan["trials"][number : number + len(jobs)] = jobs
        if len(plan["trials"]) > before:  # follow-up trials
            with own_files():
                job_list.replan(folder, sum(map(len, plan.values())))
        results = launch(jobs, number)
        number += len(jobs)
        trying.note(batch, results, folder, settings)


def first_plan(searches: list[Contender], settings: TuningConfig, seeds: int) -> Plan:
    """Return all jobs of the study as known before the trials, without their points."""
    each = settings["seeds_per_trial"]
    trials = [
        [*entry.overrides, *phase("trials", entry.seed, entry.repeat)]
        for entry in searches
        for _ in range(trying.sizes(entry, settings) * each)
    ]
    return {"trials": trials, **last_plan(searches, settings, seeds)}


def last_plan(searches: list[Contender], settings: TuningConfig, seeds: int) -> Plan:
    """Return the jobs of the second phase, with chosen settings after the trials."""
    plan: Plan = {"tuned": [], "default": []}
    for entry in searches:
        first = entry.seed + settings["seeds_per_trial"]
        best = entry.best
        for seed in range(first, first + seeds):
            if best is not None or not entry.trials:  # else no trial completed
                words = entry.words(best and best.point)
                plan["tuned"].append([*words, *phase("tuned", seed, entry.repeat)])
            plan["default"].append([*entry.overrides, *phase("default", seed, entry.repeat)])
    return plan


def check(config: DictConfig) -> TuningConfig:
    """Return the `tuning` group as plain values. Raise `UserError` for bad values."""
    check_group(config.tuning, "tuning.trials", "tuning")
    settings: Any = OmegaConf.to_container(config.tuning, resolve=True)
    for key, allowed in (
        ("method", search.METHODS), ("metric", search.METRICS), ("pick", search.PICKS),
    ):  # fmt: skip
        check_choice(f"tuning.{key}", settings[key], allowed)
    if settings["pruning"] is not None:
        check_choice("tuning.pruning", settings["pruning"], PRUNING)
    for key, value, least, most in (
        ("tuning.trials", settings["trials"], 1, MAX_TRIALS),
        ("tuning.repeats", settings["repeats"], 1, MAX_REPEATS),
        ("tuning.seeds_per_trial", settings["seeds_per_trial"], 1, SEEDS_APART),
        ("tuning.widenings", settings["widenings"], 0, MAX_TRIALS),
        ("tuning.seed", settings["seed"], 0, MAX_INTEGER - SEEDS_APART * MAX_REPEATS),
        ("seeds", config.seeds, 1, MAX_TRIALS),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{key} must be a whole number of at least {least}, not {value!r}")
        if value > most:
            raise UserError(f"{key} must be at most {most}, not {value}")
    if settings["repeats"] > 1 and settings["seeds_per_trial"] + config.seeds > SEEDS_APART:
        raise UserError(
            f"a search has {SEEDS_APART} seeds at most: tuning.seeds_per_trial and seeds are "
            f"{settings['seeds_per_trial']} and {config.seeds} together"
        )
    if settings["pruning"] and settings["method"] in ("tpe", "grid"):
        raise UserError(
            f"tuning.pruning={settings['pruning']} is for settings that are drawn beforehand, and "
            f"tuning.method={settings['method']} is not: use sobol, halton or random"
        )
    return cast(TuningConfig, settings)


def check_searches(entries: list[Contender], settings: TuningConfig) -> None:
    """Raise `UserError` if nothing is searched, or the budget does not fit a space."""
    if not any(entry.space for entry in entries):
        raise UserError(
            "nothing to tune: every hyperparameter of the search space is given. Leave one "
            "out, or ask for an ordinary sweep (without hydra/sweeper=tuned)"
        )
    for entry in entries:
        if settings["pruning"] and entry.space:
            halving.rungs(settings["trials"], entry.length[1])
        if settings["method"] == "grid" and settings["trials"] > 1:
            search.check_grid(entry.name, entry.space, settings["trials"] - 1)


def check_averaged(metric: str, configs: list[RunConfig]) -> None:
    """Raise `UserError` for a metric of averaged weights where none are averaged."""
    if metric.startswith(AVERAGED) and not all(one["averaging"]["kind"] for one in configs):
        raise UserError(
            f"tuning.metric is {metric}, and no weights are averaged: averaging.kind=ema"
        )


def expand(arguments: list[str], optimizer: str) -> list[list[str]]:
    """Return the overrides of each contender, one per problem and optimizer.

    optimizer: the one that is tuned where none is named.
    """
    parsed = grid.parse(arguments)
    for override in parsed:
        key = override.key_or_group
        if key in STUDY_KEYS:
            raise UserError(f"a tuned study sets {key} by itself: {STUDY_KEYS[key]}")
    found = grid.expand(parsed, optimizer)
    for overrides in found:
        if found.count(overrides) > 1:
            raise UserError(f"asked for twice: {' '.join(overrides)}")
    return found


def announce(entries: list[Contender], settings: TuningConfig, seeds: int, total: int) -> None:
    """Say what the study is about to do."""
    times, names = settings["repeats"], {entry.name for entry in entries}
    tuned = {entry.name for entry in entries if entry.space}
    problems = max(sum(entry.name == name for entry in entries) for name in names)
    on = f" on {problems} problems" if problems > 1 else ""
    say(
        f"{count(len(tuned), 'optimizer')} to tune{on}, {count(settings['trials'], 'trial')} each "
        f"by {settings['pick']} {settings['metric']}"
        + (f", the whole search {times} times" if times > 1 else "")
        + f", then {count(seeds, 'seed')} of each best setting and of the defaults: {total} runs"
    )
    lines = []
    for entry in entries:
        if entry.space:
            left = f"; at their defaults: {', '.join(entry.left)}" if entry.left else ""
            lines.append(f"{entry.name}: searched are {', '.join(entry.space)}{left}")
        else:
            lines.append(f"{entry.name}: nothing is searched, as its hyperparameters are given")
        if whole := space.whole_numbers(entry.space):
            lines.append(f"{entry.name}: {', '.join(whole)} in whole numbers (int: false if not)")
    for line in dict.fromkeys(lines):  # the same on each problem
        say(line)

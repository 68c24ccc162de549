"""A tuned study: equally many trials for each optimizer, then runs with new seeds.

Phase 1 judges every trial by the validation split, and does not measure the test set. Phase 2
repeats each optimizer's best setting and default setting with new seeds, and measures the test set
once, at the end. Hydra's launcher runs both phases; a finished run is never run again.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from optbench.common.console import say, warn
from optbench.common.errors import UNWRITABLE, UserError, check_choice, reason
from optbench.common.names import did_you_mean
from optbench.common.text import count
from optbench.config.resolve import resolve
from optbench.config.validate import MAX_INTEGER, check_group
from optbench.config.validate import check as check_settings
from optbench.formats import job_list
from optbench.formats.job_list import MANIFEST_FILE
from optbench.formats.keys import LABELS, RunConfig
from optbench.formats.run import AVERAGED, read_csv, read_record, write_sealed
from optbench.formats.study import setting_of
from optbench.sweeps import callback, grid
from optbench.tuning import manifest
from optbench.tuning import search as tuning
from optbench.tuning.manifest import Contender, Plan, Trial

MAX_TRIALS = 100_000  # and seeds; a larger number is likely a typing error
# the keys that the study sets for each run, with the reason
STUDY_KEYS = {
    "seed": "tuning.seed is that of the trials, and seeds=N asks for N new ones",
    "phase": "name=NAME names its folder",
    "log.eval_test": "the test set is measured once, at the end of the tuned and default runs",
}
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Any]]


def run(
    config: DictConfig,
    arguments: list[str],
    compose: Callable[[list[str]], DictConfig],
    launch: Launch,
) -> None:
    """Plan the study, run the missing runs of both phases, and write the manifest.

    compose: from a job's overrides to its configuration. launch: Hydra's launcher.
    Raises `UserError` where validation cannot judge the trials.
    """
    folder = Path(config.hydra.sweep.dir)
    with callback.exits():
        settings = check(config)
        chosen = str(config.hydra.runtime.choices.get("optimizer"))
        contenders = [contender(each, compose) for each in expand(arguments, chosen)]
        if not any(entry.space for entry in contenders):
            raise UserError(
                "nothing to tune: every hyperparameter of the search space is given. Leave one "
                "out, or ask for an ordinary sweep (without hydra/sweeper=tuned)"
            )
        from optbench.sweeps import engine_choice, shared_dataset

        configs = [config for entry in contenders for config in rehearse(entry, compose)]
        check_averaged(settings["metric"], configs)
        plan = first_plan(contenders, settings, config.seeds)
        total = sum(map(len, plan.values()))
        job_list.plan(folder, total, config.retry)
        engine_choice.choose(folder, configs, shared_dataset.load)
        for warning in manifest.too_few([entry.overrides for entry in contenders], config.seeds):
            warn(warning)
        if not config.quiet:
            say(
                f"{count(len(contenders), 'optimizer')} to tune, "
                f"{count(settings['trials'], 'trial')} each "
                f"by {settings['pick']} {settings['metric']}, then "
                f"{count(config.seeds, 'seed')} of the best and of the defaults: {total} runs"
            )
            for entry in contenders:
                if names := tuning.whole_numbers(entry.space):
                    say(f"{entry.name}: {', '.join(names)} in whole numbers (int: false if not)")

    earlier = manifest.entries_of(folder / MANIFEST_FILE)

    def keep() -> None:
        done = manifest.done_of(folder, plan)
        record = manifest.describe(contenders, settings, int(config.seeds), done, earlier)
        with callback.exits():
            try:
                write_sealed(folder / MANIFEST_FILE, record | {"retry": config.retry})
            except OSError as error:
                raise UserError(UNWRITABLE.format(folder, error.strerror)) from error

    keep()
    try:
        search(contenders, settings, plan, launch, folder)
        plan |= last_plan(contenders, settings, config.seeds)
        keep()
        launch([*plan["tuned"], *plan["default"]], len(plan["trials"]))
    finally:  # an interrupt raises SystemExit here
        keep()


def search(
    contenders: list[Contender],
    settings: dict[str, Any],
    plan: Plan,
    launch: Launch,
    folder: Path,
) -> None:
    """Run the trials of all contenders, and note outcomes there and points in `plan`."""
    number = 0
    for points in rounds(contenders, settings):
        batch = [[*trial(entry, point), *phase("trials", settings["seed"])]
                 for entry, point in points]  # fmt: skip
        plan["trials"][number : number + len(batch)] = batch
        results = launch(batch, number)
        number += len(batch)
        for (entry, point), result in zip(points, results, strict=True):
            record = read(folder / "trials", result.return_value)
            status, score = record["status"], inf
            if status == "completed":
                score = tuning.score(record.get("summary"), settings["metric"], settings["pick"])
            setting = setting_of(record) if "config" in record else None
            entry.trials.append(Trial(point, score, status, record.get("run_id"), setting))
            entry.problem = record.get("problem_hash", entry.problem)
            entry.code = record.get("code", entry.code)
            if entry.untrained is None and score < inf:
                start = untrained(folder / "trials" / result.return_value["run"])
                entry.untrained = tuning.score(start, settings["metric"], "final")


def first_plan(contenders: list[Contender], settings: dict[str, Any], seeds: int) -> Plan:
    """Return all jobs of the study as known before the trials, without their points."""
    # one trial is enough where nothing is searched
    sizes = [settings["trials"] if entry.space else 1 for entry in contenders]
    budget = [entry for entry, size in zip(contenders, sizes, strict=True) for _ in range(size)]
    trials = [[*entry.overrides, *phase("trials", settings["seed"])] for entry in budget]
    return {"trials": trials, **last_plan(contenders, settings, seeds)}


def last_plan(contenders: list[Contender], settings: dict[str, Any], seeds: int) -> Plan:
    """Return the jobs of the second phase, with chosen settings after the trials."""
    new = range(settings["seed"] + 1, settings["seed"] + 1 + seeds)
    tuned = []
    for entry in contenders:
        best = entry.best
        if entry.trials and best is None:
            continue  # no trial completed
        point = {} if best is None else best.point
        tuned += [[*trial(entry, point), *phase("tuned", seed)] for seed in new]
    default = [[*entry.overrides, *phase("default", seed)] for entry in contenders for seed in new]
    return {"tuned": tuned, "default": default}


def check(config: DictConfig) -> dict[str, Any]:
    """Return the `tuning` group as plain values. Raise `UserError` for bad values."""
    check_group(config.tuning, "tuning.trials", "tuning")
    settings: Any = OmegaConf.to_container(config.tuning, resolve=True)
    for key, allowed in (
        ("method", tuning.METHODS), ("metric", tuning.METRICS), ("pick", tuning.PICKS),
    ):  # fmt: skip
        check_choice(f"tuning.{key}", settings[key], allowed)
    for key, value, least, most in (
        ("tuning.trials", settings["trials"], 1, MAX_TRIALS),
        ("tuning.seed", settings["seed"], 0, MAX_INTEGER - MAX_TRIALS),
        ("seeds", config.seeds, 1, MAX_TRIALS),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{key} must be a whole number of at least {least}, not {value!r}")
        if value > most:
            raise UserError(f"{key} must be at most {most}, not {value}")
    return settings


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


def contender(overrides: list[str], compose: Callable[[list[str]], DictConfig]) -> Contender:
    """Return a contender, without the keys that the command line fixes in its space.

    Raises `UserError` for a setting that no run of the contender could use.
    """
    composed = compose(overrides)
    config = resolve(composed, overrides)
    check_settings(config)
    if not config["data"]["val_size"]:
        raise UserError("tuning judges by the validation split: data.val_size must be above 0")
    optimizer = config["optimizer"]
    for group, node in config.items():
        if group != "optimizer" and (at := spaces_in(node, group)):
            raise UserError(
                f"{at} is not searched: a tuned study tries the optimizer's settings alone, "
                f"optimizer.search; -m {group}.KEY=VALUE,VALUE repeats the study with each value"
            )
    space = optimizer.get("search")
    space = tuning.DEFAULT_SPACE if space is None else space
    given = {text.lstrip("+").split("=", 1)[0] for text in overrides}
    tuning.check_space(space)
    if any(re.fullmatch(r"\+*optimizer\.search=\{\s*\}", text) for text in overrides):
        tuning.check_space({})  # raises, since Hydra would merge {} into the YAML's without effect
    defaults = {k: v for k, v in optimizer.items() if k[0] != "_" and k not in LABELS}
    own = "optimizer._target_" in given  # the YAML lists no keys of a user's class
    keys, defaults = arguments_of(optimizer, defaults) if own else (list(defaults), defaults)
    for key in space:
        if keys is not None and key not in keys:
            raise UserError(
                f"optimizer.search.{key}: {optimizer['name']} has no {key}"
                f"{did_you_mean(key, keys)}. It has: {', '.join(keys)}"
            )
    space = {key: spec for key, spec in space.items() if f"optimizer.{key}" not in given}
    added = frozenset(key for key in space if key not in composed.optimizer)
    return Contender(overrides, optimizer["name"], tuning.with_types(space, defaults), added)


def spaces_in(node: Any, path: str) -> str | None:
    """Return the path of a search space outside of the optimizer, or None."""
    if not isinstance(node, Mapping):
        return None
    for key, value in node.items():
        here = f"{path}.{key}"
        if key == "search" and isinstance(value, Mapping | list):
            return here
        if found := spaces_in(value, here):
            return found
    return None


def arguments_of(
    optimizer: Mapping[str, Any], given: dict[str, Any]
) -> tuple[list[str] | None, dict[str, Any]]:
    """Return the argument names of an optimizer's class (None: any) and their values.

    given: values from the configuration, which replace the defaults of the class.
    """
    try:
        parameters = inspect.signature(get_object(optimizer["_target_"])).parameters
    except (ImportError, TypeError, ValueError):  # `rehearse` raises a `UserError` for it
        return None, given
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {name: p for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    values = {n: p.default for n, p in named.items() if p.default is not p.empty}
    floats = {n: 0.0 for n, p in named.items() if p.annotation in (float, "float")}
    known = {**values, **{n: v for n, v in floats.items() if n in values}, **given}
    return (None if free else [*list(named)[1:], *given]), known


def rehearse(entry: Contender, compose: Callable[[list[str]], DictConfig]) -> list[RunConfig]:
    """Build a contender's runs, at its defaults and near both ends of its space.

    Returns their configurations. Raises `UserError` before any training."""
    from optbench.runner import rehearsal
    from optbench.sweeps import shared_dataset

    configs = []
    size = sum(len(spec) if isinstance(spec, list) else 1 for spec in entry.space.values())
    for words, share in (("", None), (" low in its search space", 0.02), (" high in it", 0.98)):
        if share is not None and not size:
            continue
        point = {} if share is None else tuning.scale_point(entry.space, [share] * size)
        overrides = [*trial(entry, point), *phase("trials", 0)]
        try:
            configs.append(resolve(compose(overrides), overrides))
            rehearsal.rehearse(configs[-1], shared_dataset.load)
        except (HydraException, OmegaConfBaseException):
            raise  # `sweeps.callback.exits` explains them
        except Exception as error:  # the user's code may raise anything
            raise UserError(f"{entry.name}{words}: {reason(error)}") from error
    return configs


def trial(entry: Contender, point: tuning.Point) -> list[str]:
    """Return the overrides of one setting of a contender."""
    texts = zip(point, tuning.overrides(point), strict=True)
    return [*entry.overrides, *("++" * (key in entry.added) + text for key, text in texts)]


def rounds(
    contenders: list[Contender], settings: dict[str, Any]
) -> Iterator[list[tuple[Contender, tuning.Point]]]:
    """Yield the trials to launch together: all, or with tpe one of each optimizer."""
    trials, seed = settings["trials"], settings["seed"]
    if settings["method"] != "tpe":
        yield [
            (entry, point)
            for entry in contenders
            for point in tuning.points(entry.space, trials, settings["method"], seed)
        ]
        return
    searches = [(entry, tuning.Tpe(entry.space, seed)) for entry in contenders]
    for number in range(trials):
        active = [(entry, tpe) for entry, tpe in searches if entry.space or not number]
        yield [(entry, tpe.ask()) for entry, tpe in active]
        for entry, tpe in active:
            tpe.tell(entry.trials[-1].score)


def phase(name: str, seed: int) -> list[str]:
    """Return the overrides of a phase's run: its seed, subfolder and test set."""
    test = "never" if name == "trials" else "end"
    return [f"seed={seed}", f"phase={name}", f"log.eval_test={test}", f"hydra.sweep.subdir={name}"]


def untrained(run: Path) -> dict[str, float]:
    """Return the validation results before the first step, which all trials share.

    Averaged weights are then the raw ones.
    """
    columns = read_csv(run / "epochs.csv")
    return {name: float(columns[name.removeprefix(AVERAGED)][0]) for name in tuning.METRICS}


def read(folder: Path, job: Any) -> Mapping[str, Any]:
    """Return the record of a job's run, or a record of its failure."""
    if isinstance(job, dict) and job.get("run"):
        return read_record(folder / job["run"] / "run.json")
    return {"status": "failed"}

"""The jobs of a sweep: all combinations of the values in its overrides.

A setting of one optimizer (`adam.lr=0.1,0.01`) is combined only with the jobs of that
optimizer.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from itertools import islice, product
from pathlib import PurePosixPath
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import env_override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from optbench.common.errors import UserError
from optbench.common.imports import uncollected
from optbench.config import own_settings, validate
from optbench.config.compose import texts_of
from optbench.config.explain import missing_choice
from optbench.config.hydra_internals import BasicSweeper
from optbench.config.resolve import resolve
from optbench.formats.groups import choices
from optbench.formats.keys import GROUPS, ONE_VALUE_KEYS, SERIES_KEYS
from optbench.sweeps.sweep_loader import SweepLoader, composer

MAX_JOBS = 100_000  # a larger sweep is more likely a mistake than a study
MOST_COMPOSED = 200  # jobs that tell whether a mistake is of all; each takes some 5 ms


def parse(texts: list[str]) -> list[Override]:
    """Return the parsed overrides. Hydra's loader lets the parser resolve `glob(*)`."""
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(config_loader=loader).parse_overrides(texts)


def expand(overrides: Sequence[Override], optimizer: str) -> list[list[str]]:
    """Return the jobs of a sweep: a list of overrides per combination of values.

    For a key given twice the last value counts. optimizer: the choice of jobs that name none.
    Raises `UserError` for a sweep without jobs, and for values that cannot be swept over.
    """
    for override in overrides:
        key = override.key_or_group
        if override.is_delete():
            raise UserError(
                f"~{key}: a sweep sets values and takes none away: {key}=null, or leave it out"
            )
        text = override.get_value_string()
        if override.is_sweep_override() and key.split(".")[0] in ONE_VALUE_KEYS:
            hint = f": write '{key}=[{text}]'" if key == "baseline" else ""
            raise UserError(f"{key} has one value in a sweep, not several ({text}){hint}")
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(
                f"{key}={text} has no end of values: name some, as in {key}=0.1,1; or have a tuned "
                f"study search a range, with +optimizer.search.NAME={{low:0.1,high:1,scale:log}}"
            )
        if override.is_sweep_override() and key == "device" and not tell_runs_apart(override):
            raise UserError(
                f"{key} has one value of each kind in a sweep, and not auto beside others "
                f"({text}): a run's identity is the kind of its device, cpu or cuda"
            )
    shared, own = separate_own(overrides)
    counts = [math.prod(map(number_of_values, part)) for part in (shared, *own.values())]
    if (count := counts[0] * max([1, *counts[1:]])) > MAX_JOBS:
        raise UserError(f"this asks for {count:,} runs or more; a sweep has at most {MAX_JOBS:,}")
    (batch,) = BasicSweeper.split_arguments(shared, None)
    if not batch:
        raise UserError(
            "nothing to run: a glob(...) or range(...) on the command line matches no choice"
        )
    return vary_own_settings(batch, own, optimizer) if own else batch


def separate_own(overrides: Sequence[Override]) -> tuple[list[Override], dict[str, list[Override]]]:
    """Return the overrides that all jobs share, and each optimizer's own by its name."""
    texts = [
        f"optimizer={','.join(values_of(override))}"
        for override in overrides
        if override.key_or_group == "optimizer"
    ]
    known = own_settings.optimizer_names(texts)
    shared: list[Override] = []
    own: dict[str, list[Override]] = {}
    for override in overrides:
        if found := own_settings.split_key(override.key_or_group, known):
            own.setdefault(found[0], []).append(override)
        else:
            shared.append(override)
    return shared, own


def values_of(override: Override) -> list[str]:
    """Return the values of an override as text."""
    if override.is_sweep_override():
        return list(islice(override.sweep_string_iterator(), MAX_JOBS + 1))
    return [override.get_value_element_as_str()]


def vary_own_settings(
    jobs: Sequence[list[str]], own: Mapping[str, Sequence[Override]], default: str
) -> list[list[str]]:
    """Return the jobs with every combination of their optimizer's own settings.

    Own settings replace those of all optimizers. Raises `UserError` for an optimizer without a job.
    """
    settings: dict[str, dict[str, list[str]]] = {}  # by optimizer and group key
    for name, overrides in own.items():
        for override in overrides:
            _, rest = own_settings.split_key(override.key_or_group, [name]) or ("", "")
            key = own_settings.as_group(override.get_key_element(), rest)
            texts = [f"{key}={value}" for value in values_of(override)]
            settings.setdefault(name, {})[f"optimizer.{rest}"] = texts
    found, used = [], []
    for job in jobs:
        keys = [text.lstrip("+").partition("=")[0] for text in job]
        name = job[keys.index("optimizer")].partition("=")[2] if "optimizer" in keys else default
        used.append(name)
        mine = settings.get(name, {})
        kept = [text for text, key in zip(job, keys, strict=True) if key not in mine]
        found += [(*kept, *one) for one in product(*mine.values())]
    for name in settings:
        if name not in used:
            own_key = next(iter(settings[name])).removeprefix("optimizer.")
            raise own_settings.foreign_setting(name, own_key, dict.fromkeys(used))
    return [list(job) for job in dict.fromkeys(found)]


def tell_runs_apart(devices: Override) -> bool:
    """Return whether the devices are of different kinds, and so make different runs."""
    values = islice(devices.sweep_string_iterator(), MAX_JOBS + 1)
    kinds = ["".join(re.findall(r"\w+", value)[:1]) for value in values]
    return len(set(kinds)) == len(kinds) and (len(kinds) == 1 or "auto" not in kinds)


def number_of_values(override: Override) -> int:
    """Return the number of values, up to `MAX_JOBS` + 1. Raise `UserError` if unclear."""
    if not override.is_sweep_override():
        return 1
    try:
        return sum(1 for _ in islice(override.sweep_string_iterator(), MAX_JOBS + 1))
    except (ValueError, OverflowError) as error:
        text = f"{override.key_or_group}={override.get_value_string()}"
        raise UserError(f"{text} names no values: {error}") from error


def planned_jobs(config: DictConfig) -> list[list[str]] | None:
    """Return the jobs of the sweep, or None if the sweeper decides during the sweep.

    Raises an error for a choice or a key that does not exist, before a folder is made.
    """
    if config.hydra.runtime.choices.get("hydra/sweeper") not in ("grid", "basic"):
        return None
    jobs = all_jobs(config)
    check_choices_exist({word for job in jobs for word in job})
    check_keys_exist(config, jobs)
    return jobs


def check_choices_exist(words: Iterable[str]) -> None:
    """Raise `UserError` for a choice `GROUP=NAME` that no folder has a file for."""
    loader = GlobalHydra.instance().config_loader()
    for word in sorted(words):
        group, _, name = word.lstrip("+").partition("=")
        if group in GROUPS and re.fullmatch(r"[\w./-]+", name) and name != "null":
            path = PurePosixPath(group, name.removesuffix(".yaml"))
            if str(path.relative_to(group)) in choices(group):
                continue  # Hydra, which also finds packages' files, need not be asked
            if path.name not in loader.get_group_options(str(path.parent)):
                raise UserError(missing_choice(group, name))


def check_keys_exist(config: DictConfig, jobs: Sequence[list[str]]) -> None:
    """Raise an error for a key that the choices of its jobs do not have.

    Each key that the default configuration lacks is composed with the choices of the first job that
    sets the key, once for each optimizer. Raises `ConfigCompositionException`, or `UserError` if
    the key was given as one optimizer's own.
    """
    loader = SweepLoader.of(GlobalHydra.instance().config_loader())
    default = str(config.hydra.runtime.choices.get("optimizer"))
    seen: set[tuple[str, str]] = set()  # pairs of optimizer and key
    for job in jobs:
        texts = dict(word.split("=", 1) for word in job)
        name = texts.get("optimizer", default)
        chosen = [word for word in job if word.split("=", 1)[0] in GROUPS]
        for key, value in texts.items():
            known = key[0] in "+~" or key in GROUPS or (name, key) in seen
            # the default optimizer's settings say nothing of another one's
            other = name != default and key.startswith("optimizer.")
            if known or (not other and OmegaConf.select(config, key) is not None):
                continue
            seen.add((name, key))
            try:
                loader.take_config(config, [*chosen, f"{key}={value}"])
            except ConfigCompositionException as error:
                rest = key.removeprefix("optimizer.")
                own = f"{name.replace('/', '.')}.{rest}="
                if any(text.lstrip("+").startswith(own) for text in given(config)):
                    raise own_settings.unknown_setting(name, rest, value) from error
                raise


def given(config: DictConfig) -> list[str]:
    """Return the overrides of the study, then those of the command line, which win."""
    params = config.hydra.sweeper.get("params") or {}
    return [*(f"{k}={v}" for k, v in params.items()), *texts_of(config.hydra.overrides.task)]


def all_jobs(config: DictConfig) -> list[list[str]]:
    """Return all combinations of the values that the study and the command line name."""
    return expand(parse(given(config)), str(config.hydra.runtime.choices.get("optimizer")))


def check_shared_values(config: DictConfig, planned: Sequence[Sequence[str]] | None) -> None:
    """Raise `UserError` for a mistake that all jobs share, before the sweep has a folder.

    Of a large sweep the first `MOST_COMPOSED` jobs decide. planned: None for a tuned study, and for
    sweepers whose jobs are not known.
    """
    tuned = config.hydra.runtime.choices.get("hydra/sweeper") == "tuned"
    if planned is None and not tuned:
        return
    with uncollected():
        import_module("optbench.training.recipes")  # and torch, which `validate.check` needs
    try:
        with env_override(dict(config.hydra.job.env_set)):
            validate.check(resolve(config, texts_of(config.hydra.overrides.task)))
    except UserError as error:
        compose, found = composer(config), str(error)
    else:
        return
    jobs = all_jobs(config) if planned is None else planned
    for words in jobs[:MOST_COMPOSED]:
        try:
            compose([*words])
            return  # a swept value mends it
        except UserError as error:
            if str(error) != found:
                return
        except Exception:
            return
    raise UserError(found)


def too_few_seeds(planned: Sequence[Sequence[str]], claim: Any = None) -> str:
    """Return why the planned seeds are too few and how many suffice, or "".

    claim: the study's claim, which has its own tests.
    """
    from optbench.analysis.claims import judge
    from optbench.common import text
    from optbench.stats import corrections  # slow to import

    series, seeds = corrections.series_and_seeds(planned, SERIES_KEYS)
    if seeds and claim and isinstance(claim.get("checks"), list) and claim["checks"]:
        factors = judge.planned_factors(claim, planned)
        return judge.too_few_for(seeds, factors, len(claim["checks"]))
    if not seeds or series < 2:
        return ""
    why = corrections.too_few_seeds(seeds, series - 1, corrections.MAX_TYPE)
    return why and f"{text.count(seeds, 'seed')}: {why}"

"""The contenders of a tuned study: an optimizer on a problem, in one search."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from optbench.common.errors import UserError, reason
from optbench.common.names import proposing
from optbench.config.resolve import resolve
from optbench.config.validate import check as check_settings
from optbench.formats.keys import GROUPS_KEY, RunConfig, arguments_in
from optbench.formats.run import flatten
from optbench.tuning import search, space
from optbench.tuning.space import SCHEDULE, Point, Space

Compose = Callable[[list[str]], DictConfig]
DEFAULT, SEARCHED, FOLLOW_UP, RUNG = "default", "search", "follow-up", "rung"  # kinds of trials


class Trial(NamedTuple):
    """A point that was tried, and its outcome."""

    point: Point
    score: float  # smaller is better, the median over the seeds; inf for one that did not complete
    status: str
    run_ids: tuple[str, ...] = ()  # a run for each seed
    setting: str | None = None  # `formats.study.setting_of` the run
    kind: str = SEARCHED
    length: int | None = None  # of a rung: the epochs (or steps) that it was trained


@dataclass
class Contender:
    """One optimizer on one problem in one search, with its space and its trials."""

    overrides: list[str]
    name: str
    space: Space  # what is searched, with the ends that follow-up trials have added
    left: Mapping[str, Any] = field(default_factory=dict)  # defaults of what is not searched
    defaults: Point = field(default_factory=dict)  # known defaults of what is searched
    added: frozenset[str] = frozenset()  # keys of the space that the optimizer's YAML lacks
    length: tuple[str, int] = ("epochs", 1)  # of its runs
    repeat: int = 0
    seed: int = 0  # of the repeat's trials and points
    trials: list[Trial] = field(default_factory=list)
    problem: str | None = None  # its hash, once a trial has ended
    code: dict[str, Any] = field(default_factory=dict)  # `own_code.code_of` the trials
    untrained: float | None = None  # the score before the first step, once a trial has completed
    drawn: int = 0  # points that were taken from its own sequence
    first_best: Trial | None = None  # before the first follow-up trials
    first_space: Space | None = None

    @property
    def full(self) -> list[Trial]:
        """The trials that were trained to the end."""
        return [trial for trial in self.trials if trial.kind != RUNG]

    @property
    def best(self) -> Trial | None:
        """The chosen trial, or None before one has completed."""
        trials = self.full
        index = search.choose([trial.score for trial in trials])
        return None if index is None else trials[index]

    def words(self, point: Point | None) -> list[str]:
        """Return the overrides of one setting; None: the default one."""
        texts = zip(point, space.overrides(point), strict=True) if point else ()
        return [*self.overrides, *("++" * (key in self.added) + text for key, text in texts)]

    def again(self, repeat: int, seed: int) -> "Contender":
        """Return the contender in another repeat of the search."""
        other = deepcopy(self)
        other.repeat, other.seed = repeat, seed
        return other


def contender(overrides: list[str], compose: Compose, trials: int) -> Contender:
    """Return a contender, whose space lacks the keys that the command line fixes.

    trials: the budget, by which the ranks of the space choose what is searched. Raises `UserError`
    for a setting that no run of the contender could use.
    """
    composed = compose(overrides)
    config = resolve(composed, overrides)
    check_settings(config)
    if not config["data"]["val_size"]:
        raise UserError("tuning judges by the validation split: data.val_size must be above 0")
    for group, node in config.items():
        if group not in ("optimizer", "schedule") and (at := spaces_in(node, group)):
            raise UserError(
                f"{at} is not searched: a tuned study tries settings of the optimizer and of its "
                f"schedule; -m {group}.KEY=VALUE,VALUE repeats the study with each value"
            )
    optimizer, schedule = config["optimizer"], config["schedule"]
    if any(re.fullmatch(r"\+*optimizer\.search=\{\s*\}", text) for text in overrides):
        space.check_space({})  # raises, since Hydra would merge {} into the YAML's without effect
    check_ends(overrides)
    given = {text.lstrip("+").split("=", 1)[0] for text in overrides}
    asked = optimizer.get("search")
    whole: dict[str, Any] = _checked("optimizer", space.DEFAULT_SPACE if asked is None else asked)
    defaults = _defaults_in("optimizer", optimizer, whole, "optimizer._target_" in given)
    if schedule and (of_schedule := schedule.get("search")) is not None:
        own = _checked("schedule", of_schedule)
        known = _defaults_in("schedule", schedule, own, "schedule._target_" in given)
        defaults |= {SCHEDULE + key: value for key, value in known.items()}
        whole |= {SCHEDULE + key: spec for key, spec in own.items()}
    whole = {key: spec for key, spec in whole.items() if space.path(key) not in given}
    whole = space.with_types(whole, defaults)
    searched, left = space.within_budget(whole, trials, named_ranges(overrides))
    return Contender(
        overrides,
        optimizer["name"],
        searched,
        {key: defaults.get(key) for key in left},
        {key: defaults[key] for key in searched if key in defaults},
        frozenset(key for key in searched if _lacks(composed, space.path(key))),
        ("steps", config["steps"]) if config["steps"] else ("epochs", config["epochs"] or 1),
    )


def check_ends(overrides: Sequence[str]) -> None:
    """Raise UserError for a range on the command line that lacks one of its ends.

    Hydra would fill it in silently from the range that the YAML has.
    """
    for text in overrides:
        key = text.lstrip("+").split("=", 1)[0]
        if not re.fullmatch(r"(optimizer|schedule)\.search(\.\w+)?", key):
            continue
        value = OverridesParser.create().parse_override(text).value()
        specs = {key: value} if key.count(".") == 2 else value
        for name, spec in specs.items() if isinstance(specs, dict) else ():
            for one in spec if isinstance(spec, list) else [spec]:
                ends = {"low", "high"} & {str(end) for end in one} if isinstance(one, dict) else ()
                if len(ends) == 1:
                    where = name if name == key else f"{key}.{name}"
                    raise UserError(
                        f"{where}: a range needs low and high, and this one has {min(ends)} alone. "
                        f"{where}.{min(ends)}=VALUE changes one end of the range that there is"
                    )


def named_ranges(overrides: Sequence[str]) -> set[str]:
    """Return the hyperparameters whose ranges the command line names.

    These are searched whatever their rank.
    """
    found = set()
    for text in overrides:
        group, *rest = text.lstrip("+").split("=", 1)[0].split(".")
        if group not in ("optimizer", "schedule") or rest[:1] != ["search"] or rest[-1] == "from":
            continue
        names: Iterable[Any] = rest[1:2]
        if not names:  # the whole space, as in optimizer.search={lr: {low: 0.1, high: 1}}
            value = OverridesParser.create().parse_override(text).value()
            names = value if isinstance(value, dict) else ()
        found |= {(SCHEDULE if group == "schedule" else "") + str(name) for name in names}
    return found


def _checked(group: str, asked: Any) -> dict[str, Any]:
    if group == "schedule" and isinstance(asked, Mapping):
        space.check_space({SCHEDULE + str(key): spec for key, spec in asked.items()}, group)
    else:
        space.check_space(asked, group)
    return dict(asked)


def _lacks(composed: DictConfig, path: str) -> bool:
    group, _, key = path.partition(".")
    return key not in composed[group]


def _defaults_in(group: str, node: Mapping[str, Any], own: Space, of_user: bool) -> dict[str, Any]:
    """Return a group's known values. Raise `UserError` for a space of unknown keys."""
    values = {k: v for k, v in arguments_in(node).items() if k[0] != "_"}
    if isinstance(rules := node.get(GROUPS_KEY), Mapping):
        values |= flatten({GROUPS_KEY: rules})
    # the YAML lists no keys of a user's class
    keys, values = arguments_of(node, values) if of_user else (list(values), values)
    for key in own:
        if keys is not None and key not in keys:
            raise UserError(
                f"{group}.search.{key}: {node['name']} has no {key}"
                f"{proposing(key, keys)}It has: {', '.join(keys)}"
            )
    return values


def spaces_in(node: Any, path: str) -> str | None:
    """Return the path of a search space in a config group, or None."""
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
    node: Mapping[str, Any], given: dict[str, Any]
) -> tuple[list[str] | None, dict[str, Any]]:
    """Return the argument names of a group's class (None: any) and their values.

    given: values from the configuration, which replace the defaults of the class.
    """
    try:
        parameters = inspect.signature(get_object(node["_target_"])).parameters
    except (ImportError, TypeError, ValueError):  # `rehearse` raises a `UserError` for it
        return None, given
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {name: p for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    values = {n: p.default for n, p in named.items() if p.default is not p.empty}
    floats = {n: 0.0 for n, p in named.items() if p.annotation in (float, "float")}
    known = {**values, **{n: v for n, v in floats.items() if n in values}, **given}
    return (None if free else [*list(named)[1:], *given]), known


def rehearse(entry: Contender, compose: Compose, words: Sequence[str]) -> list[RunConfig]:
    """Build a contender's runs, at its defaults and near both ends of its space.

    words: the overrides of a trial's phase. Returns the configurations. Raises `UserError` before
    any training.
    """
    from optbench.runner import rehearsal
    from optbench.sweeps import shared_dataset

    configs = []
    size = sum(1 for _ in space.ranges(entry.space))
    for where, share in (("", None), (" low in its search space", 0.02), (" high in it", 0.98)):
        if share is not None and not size:
            continue
        point = None if share is None else space.scale_point(entry.space, [share] * size)
        overrides = [*entry.words(point), *words]
        try:
            configs.append(resolve(compose(overrides), overrides))
            rehearsal.rehearse(configs[-1], shared_dataset.load)
        except (HydraException, OmegaConfBaseException):
            raise  # `sweeps.callback.exits` explains them
        except Exception as error:  # the user's code may raise anything
            raise UserError(f"{entry.name}{where}: {reason(error)}") from error
    return configs

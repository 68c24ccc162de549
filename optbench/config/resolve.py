"""Resolve a configuration: the user's own classes, and misspelt names."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from optbench.common.errors import UserError, is_text
from optbench.common.names import did_you_mean
from optbench.config.comments import suggestion
from optbench.config.explain import NO_RECORD_STEPS, explained
from optbench.formats.groups import choices, read_yaml
from optbench.formats.keys import GROUPS, OVERLAYS, TOP_KEYS, TUNING_KEYS, RunConfig, nested_keys

Config = dict[str, Any]
AUTHORS = "optbench.schedules.authors"  # the _target_ of schedule=authors
NOT_ARGUMENTS = ("_partial_", "name", "preprocessing")  # keys that are no arguments of the class


def resolve(config: DictConfig, overrides: Sequence[str]) -> RunConfig:
    """Return the configuration as plain values. Raise `UserError` for unknown keys."""
    for text in overrides:
        if text.lstrip("+").partition("=")[0] == "record_steps":
            raise UserError(NO_RECORD_STEPS)
        group, _, value = text.partition("=")
        if group in GROUPS and value.startswith("["):
            raise UserError(
                f"{text}: one choice makes a run; -m {group}={value.strip('[]')} runs each"
            )
    resolved: Config = {}
    with explained():
        for key in config:
            if key == "hydra":
                continue
            node: Any = config[key]
            if OmegaConf.is_config(node):
                node = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
            resolved[str(key)] = node
    for group, choice in chosen_names().items():
        if isinstance(node := resolved.get(group), dict) and node and "name" not in node:
            resolved[group] = {"name": choice} | node  # a YAML of the user's own without a name
    if resolved.pop("record_steps", None) is False and resolved.get("engine") == "auto":
        resolved["engine"] = "plain"  # in a file from before `engine` existed
    check_keys(resolved)
    resolved["schedule"] = of_authors(resolved["schedule"], resolved["optimizer"])
    return cast(RunConfig, drop_foreign_arguments(resolved, overrides))


def of_authors(schedule: Any, optimizer: Any) -> Any:
    """Return the schedule that the optimizer's YAML names, if `schedule=authors`.

    Any other schedule is returned as it is. The entry `schedule` of the optimizer has the `name` of
    a choice, and the settings in which it differs from this choice.
    """
    if not isinstance(schedule, Mapping) or schedule.get("_target_") != AUTHORS:
        return schedule
    asked = optimizer.get("schedule") if isinstance(optimizer, Mapping) else None
    known = choices("schedule")
    if not isinstance(asked, Mapping) or asked.get("name") not in known:
        named = optimizer.get("name") if isinstance(optimizer, Mapping) else optimizer
        raise UserError(
            f"schedule=authors: the YAML of {named} has no `schedule: {{name: NAME}}` with one of "
            f"{', '.join(name for name in known if name != 'authors')}, since optbench knows of "
            f"none that its authors ask for: name a schedule"
        )
    own = read_yaml(known[str(asked["name"])])
    return {key: value for key, value in own.items() if key != "search"} | dict(asked)


def chosen_names() -> dict[str, str]:
    """Return the name of each group's choice in the composition that Hydra works on."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {group: str(chosen[group]).replace("/", "_") for group in GROUPS if group in chosen}


SEPARATORS = (",", ";", ":", "|", " ", "\t")


def quoted(word: str) -> str:
    """Return an override with quotes where Hydra needs them: `~/x`, `$HOME`, é.

    So are marks that separate columns: the shell takes the quotes of `dataset.separator=';'`.
    Values in brackets, or with quotes already, are left as they are.
    """
    key, equals, value = word.partition("=")
    if key.endswith(".separator") and value in SEPARATORS:
        return f"{key}='{value}'"
    if not equals or re.search(r"[\s'\"()\[\]{}\\]", value.replace("${", "")):
        return word
    parts = [
        f"'{part}'" if re.search(r"^~|[^\x00-\x7f]|\$(?!\{)", part) else part
        for part in value.split(",")
    ]
    return key + equals + ",".join(parts)


def check_syntax(words: Sequence[str]) -> None:
    """Raise `UserError` for words that Hydra refuses without naming them.

    A list of choices of one of Hydra's own groups is refused as well.
    """
    for word in words:
        if not is_text(word):
            raise UserError(f"{word} holds bytes that are no text in UTF-8: write it otherwise")
        if word.startswith("=") or not word.strip():
            raise UserError(f"cannot read {word or repr(word)}: an override is KEY=VALUE")
        if re.fullmatch(r"[^\s'\"]+=[^\s'\"\[{(]*\s+[\w.+/]+=.*", word):
            raise UserError(f"{word!r} holds several overrides: quote each by itself, or none")
        if match := re.match(r"hydra\.(launcher|sweeper)=(\w+)$", word):
            raise UserError(f"{match[1]}s are chosen with a slash: hydra/{match[1]}={match[2]}")
        if word.endswith(","):
            raise UserError(
                f"cannot read {word}: several values are separated by single commas, without spaces"
            )
        if re.match(r"[+~]*hydra/\w+(@\w+)?=\s*\[", word):  # Hydra would seek such files
            raise UserError(f"{word}: one choice is needed, not a list of them")


def drop_foreign_arguments(config: Config, overrides: Sequence[str]) -> Config:
    """Keep only the arguments given beside a `_target_` on the command line.

    The group's YAML was written for another class, and the new class has its own defaults. The
    class's name becomes the group's label, unless the command line gives `GROUP.name`.
    """
    given = dict(text.lstrip("+").split("=", 1) for text in overrides if "=" in text)
    given = {key: value for key, value in given.items() if "." in key}  # not a group's choice

    def clean(node: Config, path: str, own: bool = False) -> Config:
        own = own or f"{path}._target_" in given
        kept = {}
        for key, value in node.items():
            here = f"{path}.{key}"
            whole = any(here == name or here.startswith(f"{name}.") for name in given)
            part = any(name.startswith(f"{here}.") for name in given)
            if own and not (whole or part or key in NOT_ARGUMENTS):
                continue
            kept[key] = clean(value, here, own) if isinstance(value, dict) else value
        return kept

    config = dict(config)
    for group in GROUPS:
        if isinstance(config[group], dict):
            config[group] = clean(config[group], group)
            for path in (f"{group}._target_", f"{group}.weight._target_"):
                if path in given and f"{group}.name" not in given:
                    config[group]["name"] = given[path].strip("'\"").rsplit(".", 1)[-1]
    return config


def check_tuned(overrides: Sequence[str], choices: Mapping[str, Any]) -> None:
    """Raise `UserError` for keys of a tuned study outside one, where they do nothing."""
    for text in overrides:
        key = text.lstrip("+").split("=", 1)[0]
        if choices.get("hydra/sweeper") != "tuned" and key.split(".")[0] in TUNING_KEYS:
            hint = ", or seed=0,1,2 with -m in an ordinary sweep" if key == "seeds" else ""
            raise UserError(f"{key} is for a tuned study: add hydra/sweeper=tuned{hint}")


def check_keys(config: Config) -> None:
    """Raise `UserError` for unknown keys: Hydra takes `+epoch=3` without a word."""
    for key in sorted({*TOP_KEYS} - {"logger", *config}):
        raise UserError(f"{key} was taken away, and a run needs it: leave out ~{key}")
    for key, value in config.items():
        if key in OVERLAYS:
            raise UserError(
                f"the file of {key}=NAME sets keys of the whole configuration: its first line is "
                f"`# @package _global_`, before other comments"
            )
        if key not in TOP_KEYS:
            raise UserError(f"unknown key '{key}'{suggestion(key)}")
        if (known := nested_keys(key)) and isinstance(value, dict):
            for inner in value:
                if inner not in known:
                    near = did_you_mean(str(inner), known)
                    raise UserError(f"unknown key '{key}.{inner}'{near}")
            for inner in known:
                if inner not in value:
                    raise UserError(f"{key}.{inner} was taken away, and a run needs it")

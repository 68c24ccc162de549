"""What a command line means beyond Hydra's composition: own classes, and misspelt names."""

import difflib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from optbench.common.errors import UserError, did_you_mean, is_text, shorten
from optbench.common.files import expanded
from optbench.config.groups import config_folder
from optbench.formats.keys import GROUPS, OVERLAYS, TOP_KEYS, TUNING_KEYS, nested_keys

Config = dict[str, Any]
UNREADABLE = "(mismatched|extraneous) input|LexerNoViable|missing EQUAL|no viable|token recog"
NO_COHORT = (
    "hydra/launcher=cohort is gone: it trained runs of small models at once, which was faster only "
    "where a run takes a fraction of a second (results/benchmark/cohort.md). Leave it out, or use "
    "hydra/launcher=workers, the default"
)
LABELS = ("_partial_", "name", "preprocessing")  # not arguments of the class


def resolve(config: DictConfig, overrides: Sequence[str]) -> Config:
    """The configuration as plain values; `UserError` for keys that mean nothing."""
    for text in overrides:
        group, _, value = text.partition("=")
        if group in GROUPS and value.startswith("["):
            raise UserError(
                f"{text}: one choice makes a run; -m {group}={value.strip('[]')} runs each"
            )
    resolved: Config = {}
    try:
        for key in config:
            if key == "hydra":
                continue
            node: Any = config[key]
            if OmegaConf.is_config(node):
                node = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
            resolved[str(key)] = node
    except OmegaConfBaseException as error:
        raise UserError(explain(error, config_folder())) from error
    check_keys(resolved)
    return own_keys(resolved, overrides)


def quoted(word: str) -> str:
    """Return an override with quotes around what Hydra reads only in quotes: `~/x`, `$HOME`, é.

    Values in brackets or with quotes of their own are left as they are. Of Hydra's own flags,
    `--config-dir=~/x` gets its path.
    """
    key, equals, value = word.partition("=")
    if key == "--config-dir":
        return key + equals + expanded(value)
    if (
        not equals
        or key.startswith("-")
        or re.search(r"[\s'\"()\[\]{}\\]", value.replace("${", ""))
    ):
        return word
    parts = [
        f"'{part}'" if re.search(r"^~|[^\x00-\x7f]|\$(?!\{)", part) else part
        for part in value.split(",")
    ]
    return key + equals + ",".join(parts)


def check_words(words: Sequence[str]) -> None:
    """Raise `UserError` for a word without a key, and for lists of Hydra's own choices, which it
    takes for names of files."""
    for word in words:
        if not is_text(word):
            raise UserError(f"{word} holds bytes that are no text in UTF-8: write it otherwise")
        if word.startswith("="):
            raise UserError(f"cannot read {word}: an override is KEY=VALUE")
        if re.match(r"[+~]*hydra/\w+(@\w+)?=\s*\[", word):
            raise UserError(f"{word}: one choice is needed, not a list of them")


def own_keys(config: Config, overrides: Sequence[str]) -> Config:
    """Where `_target_` was given on the command line, keep only the arguments given beside it.

    The group's YAML was written for another class, and the new one has defaults of its own. The
    class's name becomes the group's label, unless `GROUP.name` was given as well.
    """
    given = dict(text.lstrip("+").split("=", 1) for text in overrides if "=" in text)
    given = {key: value for key, value in given.items() if "." in key}  # not the groups' choices

    def clean(node: Config, path: str, own: bool = False) -> Config:
        own = own or f"{path}._target_" in given
        kept = {}
        for key, value in node.items():
            here = f"{path}.{key}"
            whole = any(here == name or here.startswith(f"{name}.") for name in given)
            part = any(name.startswith(f"{here}.") for name in given)
            if own and not (whole or part or key in LABELS):
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


def explain(error: Exception, conf: Path) -> str:
    """Hydra's message and its causes in one text, with the nearest right name where one is near."""
    return shorten(_explain(error, conf))


def _explain(error: Exception, conf: Path) -> str:
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip()
        if text and not any(text in part for part in parts):
            parts.append(text)
        cause = cause.__cause__
    message = "\n".join(parts) or type(error).__name__
    if isinstance(error, RecursionError):
        return "the configuration is nested too deeply, or contains itself"
    if match := re.search(r"Could not override '([^']+)'", message):
        return f"unknown key '{match[1]}'" + _advice(match[1], conf)
    if match := re.search(r"Could not find '(hydra/\w+|\w+)/([^']*)'", message):
        if match[0].endswith("'hydra/launcher/cohort'"):
            return NO_COHORT
        options = _options(conf / match[1])
        options += ["basic"] if match[1].startswith("hydra/") else []  # Hydra's own
        return (
            f"there is no {match[1]}={match[2]}{did_you_mean(match[2], options)}\n"
            f"{match[1]} is one of: {', '.join(options)}, or a file of yours in "
            f"FOLDER/{match[1]}/ with --config-dir FOLDER"
        )
    if match := re.search(r"Cannot find primary config '([^']*)'", message):
        return (
            f"there is no configuration {match[1]}.yaml: leave out --config-name, or give the "
            f"folder of yours with --config-dir FOLDER"
        )
    if match := re.search(r"Error merging override (.+)", message):
        return (
            f"{match[1]} does not fit: the key holds a group of keys, a list or a value, and this "
            f"is another of the three. --cfg job shows what it holds"
        )
    if match := re.search(r"Interpolation key '([^']+)' not found\s+full_key: (\S+)", message):
        return f"{match[2]}: there is no key {match[1]} from which ${{{match[1]}}} could be taken"
    if match := re.search(r"full_key: (\S+)", message):
        said = re.split(r"\s+full_key: ", message)[0]
        return f"{match[1]} cannot be resolved: {said}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", message):
        if match[1].startswith("logger="):
            return f"several loggers stand in brackets: 'logger=[{match[1][7:]}]'"
        return (
            f"{match[1]} names several values: -m sweeps over them (python -m optbench -m "
            f"{match[1]}); one value that holds a comma stands in quotes"
        )
    if "Config group override must be a string" in message:
        return "a group is chosen by the name of one of its files: GROUP=NAME, not null"
    if re.search(UNREADABLE, message):
        given = re.search(r"Error parsing override '(.*)'|LexerNoViableAltException: (.*)", message)
        word = (given[1] or given[2]) if given else "the command line"
        return (
            f"cannot read {word}: an override is KEY=VALUE; "
            f"several values are separated by single commas, without spaces; a value with spaces, "
            f"commas or other signs stands in quotes (KEY='\"a, b\"')"
        )
    return message


def _advice(key: str, conf: Path) -> str:
    group, _, rest = key.partition(".")
    if group == "logger" and rest:
        name = rest.split(".")[0]
        return (
            f": choose logger={name} (or logger=[{name},...]) to set it; --cfg job shows its keys"
        )
    if rest and group in GROUPS:
        paths = sorted((conf / group).rglob("*.yaml"))
        files = {str(path.relative_to(conf / group).with_suffix("")): _read(path) for path in paths}
        names = sorted({name for file in files.values() for name in file})
        near = did_you_mean(key, [f"{group}.{name}" for name in names])
        if rest in names:
            near = f", which {group}={{{', '.join(k for k in files if rest in files[k])}}} has"
        return (
            near + f"\nThe choice of {group} decides which keys it has: --cfg job shows them. "
            f"+{key}=VALUE gives the class an argument that is not in its YAML."
        )
    top = _top(conf)
    dotted = [f"{k}.{sub}" for k, v in top.items() if isinstance(v, dict) for sub in v]
    near = did_you_mean(key, [*top, *GROUPS, *OVERLAYS, *dotted])
    nearest = difflib.get_close_matches(group, GROUPS, n=1) if rest and not near else []
    if nearest:
        near = f". Did you mean {nearest[0]}.{rest}?"
    return f"{near}\n--help lists them all."


def _options(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def check_tuned(overrides: Sequence[str], choices: Mapping[str, Any]) -> None:
    """Raise `UserError` for keys of a tuned study where none was asked for: they do nothing."""
    for text in overrides:
        key = text.lstrip("+").split("=", 1)[0]
        if choices.get("hydra/sweeper") != "tuned" and key.split(".")[0] in TUNING_KEYS:
            hint = ", or seed=0,1,2 with -m in an ordinary sweep" if key == "seeds" else ""
            raise UserError(f"{key} is for a tuned study: add hydra/sweeper=tuned{hint}")


@cache
def _top(conf: Path) -> Config:
    return _read(conf / "config.yaml")


def _read(path: Path) -> Config:
    config: Config = yaml.safe_load(path.read_text("utf-8"))
    return config


def check_keys(config: Config) -> None:
    """Refuse keys outside the groups that mean nothing: `+epoch=3` would be taken in silence."""
    for key in sorted({*TOP_KEYS} - {"logger", *config}):
        raise UserError(f"{key} was taken away, and a run needs it: leave out ~{key}")
    for key, value in config.items():
        if key not in TOP_KEYS:
            raise UserError(f"unknown key '{key}'" + did_you_mean(key, sorted(TOP_KEYS)))
        if (known := nested_keys(key)) and isinstance(value, dict):
            for inner in value:
                if inner not in known:
                    near = did_you_mean(str(inner), known)
                    raise UserError(f"unknown key '{key}.{inner}'{near}")
            for inner in known:
                if inner not in value:
                    raise UserError(f"{key}.{inner} was taken away, and a run needs it")

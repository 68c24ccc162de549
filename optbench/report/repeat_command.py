"""The command line that repeats a run, from the configuration in its `run.json`."""

import json
import math
import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from optbench.analysis.comparison import Comparison
from optbench.formats.keys import (
    DATA_SOURCES,
    GROUPS,
    LABELS,
    OVERLAYS,
    UNREPEATED_KEYS,
    settled,
)
from optbench.formats.record import keys_of

MAX_COMMANDS = 3  # in one sentence
UNQUOTED = re.compile(r"[\w./:@%-]+")  # text that Hydra reads without quotes
NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?|nan|[+-]?inf|true|false|null", re.I)


def command(config: dict[str, Any], conf: Path) -> str:
    """Return the shell command that trains a configuration: groups, then differences.

    conf: the folder of the configuration files, whose defaults are left out. A choice outside that
    folder (`--config-dir`) is written in full, with class and arguments.
    """
    words = ["python", "-m", "optbench"]
    changes: list[str] = []
    for group in sorted(GROUPS, key="dataset".__ne__):  # the dataset first
        own = config.get(group)
        if not isinstance(own, dict):
            continue
        name, known = str(own.get("name")), choices(conf, group)
        choice, base = known.get(name, (None, {}))
        target = own.get("_target_")
        if choice is None or base.get("_target_") != target:
            # No file has this class under this name: write the class and all its arguments.
            if target is not None:
                changes.append(f"{group}._target_={target}")
                if name != str(target).rsplit(".", 1)[-1]:
                    changes.append(f"{group}.name={text(name)}")
            base = {}
        elif choice != default_choice(conf, group):
            words.append(f"{group}={choice}")
        labels = (*LABELS, "_target_", "_partial_")
        rest = {key: value for key, value in settled(own).items() if key not in labels}
        changes += differences(rest, base, config, f"{group}.")
    if config.get("record_steps") is False:  # written before `engine` existed
        config = config | {"engine": "plain"}
    config = {key: value for key, value in config.items() if key != "record_steps"}
    left_out = {*UNREPEATED_KEYS, *GROUPS, *OVERLAYS}
    root = {k: v for k, v in config.items() if k not in left_out}
    if isinstance(root.get("data"), dict):
        # the path of the user's own data is a part of the command; root and download are not
        left_out = {*DATA_SOURCES} - {"path"}
        root["data"] = {k: v for k, v in root["data"].items() if k not in left_out}
    changes += differences(root, read_yaml(conf / "config.yaml"), config)
    return " ".join([*words, *map(shlex.quote, changes)])


def with_engine(config: dict[str, Any], engine: str, conf: Path) -> str:
    """Return the command that repeats a run with another engine."""
    config = {key: value for key, value in config.items() if key != "record_steps"}
    return command(config | keys_of(engine), conf) + " force=true"


def joint_commands(runs: Sequence[tuple[Path, dict[str, Any], str]], conf: Path) -> list[str]:
    """Return commands that repeat runs, each into a folder ENGINE beside the run.

    runs: folder, configuration and engine of each run. One command repeats runs that differ only in
    optimizer, own settings and seed, and have every combination of them.
    """
    found: dict[tuple[str, ...], dict[tuple[str, tuple[str, ...]], set[int]]] = {}
    for folder, config, engine in runs:
        words = shlex.split(with_engine(config, engine, conf))[3:]
        named = [word for word in words if word.startswith("optimizer=")]
        choice = named[0].partition("=")[2] if named else str(default_choice(conf, "optimizer"))
        # Settings of a class named by `_target_` stay, since they belong to no choice.
        own = [w for w in words if not w.startswith("+") and w.startswith("optimizer.")]
        own = [] if any(word.startswith("optimizer._") for word in words) else own
        rest = [w for w in words if w not in (*named, *own) and not w.startswith("seed=")]
        # The new folder keeps the sweep's own plan and figure options unchanged.
        rest += [f"results_dir={text(str(folder.parent))}", f"name={engine}"]
        cells = found.setdefault(tuple(rest), {})
        cells.setdefault((choice, tuple(own)), set()).add(int(config["seed"]))
    lines = []
    for same, cells in found.items():
        merged = value_lists(cells)
        for choices_and_own, seeds in [merged] if merged else [([c], s) for c, s in cells.items()]:
            names = list(dict.fromkeys(choice for choice, _ in choices_and_own))
            words = [w for choice, own in choices_and_own for w in renamed(own, choice, len(names))]
            count = len(seeds) * (len(names) + sum("," in word for word in words))
            line = ["python", "-m", "optbench", *["-m"] * (count > 1)]
            line += [f"optimizer={','.join(names)}", f"seed={','.join(map(str, sorted(seeds)))}"]
            lines.append(" ".join(map(shlex.quote, [*line, *words, *same])))
    return list(dict.fromkeys(lines))


def value_lists(
    cells: dict[tuple[str, tuple[str, ...]], set[int]],
) -> tuple[list[tuple[str, tuple[str, ...]]], set[int]] | None:
    """Return each optimizer with all values of each setting, and the common seeds.

    cells: the seeds by optimizer and settings. Returns None if a combination is missing.
    """
    seeds = next(iter(cells.values()))
    values: dict[str, dict[str, list[str]]] = {}
    sizes: dict[str, int] = {}
    for choice, own in cells:
        sizes[choice] = sizes.get(choice, 0) + 1
        for word in own:
            key, _, value = word.partition("=")
            taken = values.setdefault(choice, {}).setdefault(key, [])
            taken += [value] * (value not in taken)
    for choice, own in cells:
        lists = values.get(choice, {})
        if len(own) != len(lists) or math.prod(map(len, lists.values())) != sizes[choice]:
            return None
    if any(each != seeds for each in cells.values()):
        return None
    return [
        (name, tuple(f"{key}={','.join(found)}" for key, found in values.get(name, {}).items()))
        for name in sorted(sizes)
    ], seeds


def renamed(own: Sequence[str], choice: str, optimizers: int) -> list[str]:
    """Return an optimizer's settings, under its name if there are several optimizers."""
    if optimizers == 1:
        return list(own)
    return [f"{choice}.{word.removeprefix('optimizer.')}" for word in own]


def engines_note(made: Comparison, conf: Path) -> str:
    """Return `Timing.sentence`, with the commands it mentions if these are few."""
    timing = made.timing
    records = {} if made.files is None else {str(path): r for path, r in made.files.records}
    runs = [
        (Path(run), records[run]["config"], engine)
        for run, engine in timing.again.items()
        if run in records
    ]
    if not runs or any(config.get("phase") for _, config, _ in runs):
        return timing.sentence  # the tuned study's own command repeats its runs
    lines = joint_commands(runs, conf)
    if len(lines) > MAX_COMMANDS:
        return f"{timing.sentence}: the report (python -m optbench report) has each run's command"
    return f"{timing.sentence}: " + " and ".join(f"`{line}`" for line in lines)


def differences(
    own: dict[str, Any], base: dict[str, Any], config: dict[str, Any], prefix: str = ""
) -> list[str]:
    """Return overrides for the keys of `own` whose values differ from `base`."""
    found = []
    for key, value in own.items():
        default = resolved(base.get(key), config)
        if isinstance(value, dict) and isinstance(default, dict):
            found += differences(value, default, config, f"{prefix}{key}.")
        elif key not in base or not same_value(value, default):
            found.append(f"{'' if key in base else '++'}{prefix}{key}={text(value)}")
    return found


def same_value(value: Any, default: Any) -> bool:
    """Return whether two values mean the same: 0 is 0.0, but false is not 0."""
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def resolved(value: Any, config: dict[str, Any]) -> Any:
    """Return a default, with each `${a.b}` looked up in the configuration."""
    match = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if match is None:
        return value
    node: Any = config
    for part in match[1].split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def text(value: Any) -> str:
    """Return a value in Hydra's grammar, without spaces if possible."""
    if isinstance(value, str):
        if UNQUOTED.fullmatch(value) and not NUMBER.fullmatch(value):
            return value
        escaped = re.sub(r"(\\*)(')", lambda m: m[1] * 2 + "\\'", value)
        trail = len(escaped) - len(escaped.rstrip("\\"))
        return f"'{escaped}{chr(92) * trail}'"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text, value)) + "]"
    return json.dumps(value)


@cache
def read_yaml(path: Path) -> dict[str, Any]:
    """Return a configuration file. 1e-3 is text in YAML 1.1, but a number for Hydra."""
    loaded = yaml.safe_load(path.read_text("utf-8")) or {}
    return {key: numbers(value) for key, value in loaded.items()}


def numbers(value: Any) -> Any:
    """Return a YAML value with texts such as 1e-3 read as numbers."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?[\d.]+e[+-]?\d+", value, re.I):
        return float(value)
    return value


@cache
def choices(conf: Path, group: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return a group's files by the names in them: each choice with its content."""
    found = {}
    for path in sorted((conf / group).rglob("*.yaml")):
        content = read_yaml(path)
        choice = path.relative_to(conf / group).with_suffix("").as_posix()
        found[str(content.get("name", choice))] = (choice, content)
    return found


@cache
def default_choice(conf: Path, group: str) -> str | None:
    """Return the group's choice in config.yaml."""
    for entry in read_yaml(conf / "config.yaml").get("defaults", []):
        if isinstance(entry, dict) and group in entry:
            return str(entry[group])
    return None

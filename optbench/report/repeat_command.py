"""The command line that repeats a run, from the resolved configuration in its `run.json`."""

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
from optbench.formats.keys import DATA_SOURCES, GROUPS, LABELS, OVERLAYS, UNREPEATED_KEYS

MAX_COMMANDS = 3  # that a sentence holds
PLAIN = re.compile(r"[\w./:@%-]+")  # text that Hydra reads as it stands
NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?|nan|[+-]?inf|true|false|null", re.I)


def command(config: dict[str, Any], conf: Path) -> str:
    """The shell command that trains this configuration: groups by name, then what differs.

    conf: the folder of the configuration files, whose defaults need not be said. A choice that is
    not among them (`--config-dir`) is spelt out in full, class and arguments.
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
            # the class alone counts, with the arguments given beside it
            if target is not None:
                changes.append(f"{group}._target_={target}")
                if name != str(target).rsplit(".", 1)[-1]:
                    changes.append(f"{group}.name={text(name)}")
            base = {}
        elif choice != default_choice(conf, group):
            words.append(f"{group}={choice}")
        labels = (*LABELS, "_target_", "_partial_")
        rest = {key: value for key, value in own.items() if key not in labels}
        changes += differences(rest, base, config, f"{group}.")
    if config.get("record_steps") is False:  # from before there was `engine`
        config = config | {"engine": "plain"}
    config = {key: value for key, value in config.items() if key != "record_steps"}
    left_out = {*UNREPEATED_KEYS, *GROUPS, *OVERLAYS}
    root = {k: v for k, v in config.items() if k not in left_out}
    if isinstance(root.get("data"), dict):
        root["data"] = {k: v for k, v in root["data"].items() if k not in DATA_SOURCES}
    changes += differences(root, tree(conf / "config.yaml"), config)
    return " ".join([*words, *map(shlex.quote, changes)])


def again(config: dict[str, Any], engine: str, conf: Path) -> str:
    """The command that makes a run again, with an engine."""
    config = {key: value for key, value in config.items() if key != "record_steps"}
    return command(config | {"engine": engine}, conf) + " force=true"


def joined(runs: Sequence[tuple[Path, dict[str, Any], str]], conf: Path) -> list[str]:
    """The commands that make runs again, each into a folder ENGINE beside the run that it repeats.

    runs: of each its folder, its configuration and the engine. Runs that differ in the optimizer,
    its own settings and the seed alone, and have every combination of them, take one command.
    """
    found: dict[tuple[str, ...], dict[tuple[str, tuple[str, ...]], set[int]]] = {}
    for folder, config, engine in runs:
        words = shlex.split(again(config, engine, conf))[3:]
        named = [word for word in words if word.startswith("optimizer=")]
        choice = named[0].partition("=")[2] if named else str(default_choice(conf, "optimizer"))
        # of a class by its `_target_` the settings stay: they are of no choice
        own = [w for w in words if not w.startswith("+") and w.startswith("optimizer.")]
        own = [] if any(word.startswith("optimizer._") for word in words) else own
        rest = [w for w in words if w not in (*named, *own) and not w.startswith("seed=")]
        # not among the sweep's own files: its plan and its figure's options stay
        rest += [f"results_dir={text(str(folder.parent))}", f"name={engine}"]
        cells = found.setdefault(tuple(rest), {})
        cells.setdefault((choice, tuple(own)), set()).add(int(config["seed"]))
    lines = []
    for same, cells in found.items():
        merged = lists_of(cells)
        for choices_and_own, seeds in [merged] if merged else [([c], s) for c, s in cells.items()]:
            names = list(dict.fromkeys(choice for choice, _ in choices_and_own))
            words = [w for choice, own in choices_and_own for w in renamed(own, choice, len(names))]
            count = len(seeds) * (len(names) + sum("," in word for word in words))
            line = ["python", "-m", "optbench", *["-m"] * (count > 1)]
            line += [f"optimizer={','.join(names)}", f"seed={','.join(map(str, sorted(seeds)))}"]
            lines.append(" ".join(map(shlex.quote, [*line, *words, *same])))
    return list(dict.fromkeys(lines))


def lists_of(
    cells: dict[tuple[str, tuple[str, ...]], set[int]],
) -> tuple[list[tuple[str, tuple[str, ...]]], set[int]] | None:
    """Return each optimizer with the values that its settings take, and the seeds of all.

    cells: the seeds of an optimizer and its settings. None where a combination is missing.
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
    """Return an optimizer's settings under its own name, where there are several optimizers."""
    if optimizers == 1:
        return list(own)
    return [f"{choice}.{word.removeprefix('optimizer.')}" for word in own]


def engines_note(made: Comparison, conf: Path) -> str:
    """`Timing.sentence`, with the commands that it speaks of where they are few."""
    timing = made.timing
    records = {} if made.files is None else {str(path): r for path, r in made.files.records}
    runs = [
        (Path(run), records[run]["config"], engine)
        for run, engine in timing.again.items()
        if run in records
    ]
    if not runs or any(config.get("phase") for _, config, _ in runs):
        return timing.sentence  # of a study: its own command makes them
    lines = joined(runs, conf)
    if len(lines) > MAX_COMMANDS:
        return f"{timing.sentence}: the report (python -m optbench report) has each run's command"
    return f"{timing.sentence}: " + " and ".join(f"`{line}`" for line in lines)


def differences(
    own: dict[str, Any], base: dict[str, Any], config: dict[str, Any], prefix: str = ""
) -> list[str]:
    """Overrides for the keys of `own` whose value is not the one of `base`."""
    found = []
    for key, value in own.items():
        default = resolved(base.get(key), config)
        if isinstance(value, dict) and isinstance(default, dict):
            found += differences(value, default, config, f"{prefix}{key}.")
        elif key not in base or not same(value, default):
            found.append(f"{'' if key in base else '++'}{prefix}{key}={text(value)}")
    return found


def same(value: Any, default: Any) -> bool:
    """Whether two values of a configuration mean the same: 0 is 0.0, and false is not 0."""
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def resolved(value: Any, config: dict[str, Any]) -> Any:
    """A default, with `${a.b}` looked up in the configuration."""
    match = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if match is None:
        return value
    node: Any = config
    for part in match[1].split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def text(value: Any) -> str:
    """A value in Hydra's grammar, without spaces where it can."""
    if isinstance(value, str):
        if PLAIN.fullmatch(value) and not NUMBER.fullmatch(value):
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
def tree(path: Path) -> dict[str, Any]:
    """A configuration file. YAML 1.1 reads 1e-3 as text; here it is a number, as in Hydra."""
    loaded = yaml.safe_load(path.read_text("utf-8")) or {}
    return {key: numbers(value) for key, value in loaded.items()}


def numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?[\d.]+e[+-]?\d+", value, re.I):
        return float(value)
    return value


@cache
def choices(conf: Path, group: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The group's files by their `name`: what stands behind `group=`, and their content."""
    found = {}
    for path in sorted((conf / group).rglob("*.yaml")):
        content = tree(path)
        choice = path.relative_to(conf / group).with_suffix("").as_posix()
        found[str(content.get("name", choice))] = (choice, content)
    return found


@cache
def default_choice(conf: Path, group: str) -> str | None:
    """The group's choice in config.yaml."""
    for entry in tree(conf / "config.yaml").get("defaults", []):
        if isinstance(entry, dict) and group in entry:
            return str(entry[group])
    return None

"""The comments in the configuration files, which explain each key and each choice."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from optbench.common.names import nearest
from optbench.common.text import enumerated
from optbench.formats.groups import choices, config_folder
from optbench.formats.keys import OVERLAYS

GROUPS = (
    "problem", "model", "dataset", "loss", "initializer", "optimizer", "schedule", "logger",
    "study", "hydra/launcher", "hydra/sweeper",
)  # fmt: skip
HIDDEN_SETTINGS = (
    "name",
    "search",
    "params",
    "schedule",
    "test",
)  # no user sets these as GROUP.KEY
YAML_LINE = re.compile(r"^( *)(?:- )?([\w/]+): ?(.*?)(?: *(?:^|(?<= ))# (.*))?$")
SET_BY_STUDIES = ("phase", "repeat")  # keys that no user sets
SYNONYMS = {  # the last word of a key in other programs: the name in optbench
    "learning_rate": "lr", "learningrate": "lr", "step_size": "lr", "wd": "weight_decay",
    "bs": "batch_size", "batch": "batch_size", "epochs_count": "epochs", "num_epochs": "epochs",
    "max_epochs": "epochs", "iterations": "steps", "max_steps": "steps", "opt": "optimizer",
    "optim": "optimizer", "scheduler": "schedule", "threads": "num_threads", "layers": "hidden",
}  # fmt: skip


Chosen = Mapping[str, Sequence[str]]  # the choices of each group


class Command:
    """The words of the program's command line; None where Python code calls."""

    words: Sequence[str] | None = None


command = Command()


class Setting(NamedTuple):
    """One key of a YAML file: dotted name, value and comment, as written in the file."""

    key: str
    value: str
    comment: str


def read(path: Path) -> tuple[str, list[tuple[str, list[Setting]]]]:
    """Return the opening comment of a file, and the settings below each heading."""
    head: list[str] = []
    sections: list[tuple[str, list[Setting]]] = [("", [])]
    parents: list[tuple[int, str]] = []
    for line in path.read_text("utf-8").splitlines():
        text = line.strip()
        settings = sections[-1][1]
        if text.startswith("#"):
            text = text.removeprefix("#").strip()
            if line.startswith(" ") and settings:  # the comment on the line before continues here
                key, value, comment = settings[-1]
                settings[-1] = Setting(key, value, f"{comment} {text}".strip())
            elif len(sections) == 1 and not settings:
                head += [] if text.startswith("@package") else [text]
            else:
                sections.append((text, []))
        elif found := YAML_LINE.match(line):
            indent, name, value, comment = found.groups()
            parents = [one for one in parents if one[0] < len(indent)]
            key = ".".join([*(parent for _, parent in parents), name])
            parents.append((len(indent), name))
            settings.append(Setting(key, value.strip(), comment or ""))
    return " ".join(head), sections


def shown(settings: list[Setting]) -> Iterator[Setting]:
    """Yield the settings that have a value, without Hydra's own settings."""
    parents = {one.key.rpartition(".")[0] for one in settings}
    for one in settings:
        words = one.key.split(".")
        if one.key in parents or "_target_" in words or "_partial_" in words:
            continue
        if words[0] not in ("hydra", "defaults"):
            yield one


def default_choice(group: str) -> str:
    """Return the default choice of a group, or "" if none."""
    files = [config_folder() / name for name in ("config.yaml", "sweeps.yaml")]
    text = "".join(path.read_text("utf-8") for path in files)
    found = re.search(rf"^  - (?:override /)?{group}: (\w+)", text, re.M)
    return found[1] if found and found[1] != "null" else ""


def settings_of(path: Path) -> list[Setting]:
    """Return the settings of a choice, without those that another key determines."""
    _, sections = read(path)
    return [
        one
        for one in shown([one for _, settings in sections for one in settings])
        if one.key.split(".")[0] not in HIDDEN_SETTINGS and not one.value.startswith("${")
    ]


@cache
def known_keys() -> dict[str, list[tuple[str, Setting]]]:
    """Return the settings of every dotted key, each with the choice it belongs to."""
    _, sections = read(config_folder() / "config.yaml")
    known = {one.key: [("", one)] for _, settings in sections for one in shown(settings)}
    for group in GROUPS:
        for choice, path in choices(group, own=False).items() if group not in OVERLAYS else ():
            for one in settings_of(path):
                key = f"{group.replace('/', '.')}.{one.key}"
                known.setdefault(key, []).append((choice, one))
    return known


def likely_keys(key: str) -> list[str]:
    """Return the keys that an unknown key may stand for, the likeliest first."""
    known = [*(name for name in known_keys() if name not in SET_BY_STUDIES), *GROUPS]
    first, _, last = key.lower().rpartition(".")
    last = SYNONYMS.get(last, last)
    if own := likely_own_keys(first, last):
        return own
    group = first.split(".")[0]
    ends = [name for name in known if re.split(r"[./]", name)[-1] == last]
    if found := [name for name in ends if not group or name.startswith(f"{group}.")] or ends:
        return sorted(found, key=lambda name: (name.count("."), not name.startswith("optimizer")))
    inside = [name for name in known if name.startswith(f"{group}.")] or known
    short = {name.rpartition(".")[2]: name for name in reversed(inside)}
    return nearest(key, [] if first else known) or [short[one] for one in nearest(last, short)]


def likely_own_keys(first: str, last: str) -> list[str]:
    """Return the setting of one optimizer that FIRST.LAST may stand for.

    For example, adma.lr stands for adam.lr.
    """
    optimizers = {name.replace("/", "."): name for name in choices("optimizer")}
    others = [*GROUPS, *(key.partition(".")[0] for key in known_keys())]
    for name in nearest(first, [*others, *optimizers]) if first else []:
        if name in optimizers:
            has = [key for key, found in known_keys().items() if optimizers[name] in dict(found)]
            own = [key.removeprefix("optimizer.") for key in has if key.startswith("optimizer.")]
            return [f"{name}.{one}" for one in nearest(last, own)]
    return []


def suggestion(key: str, value: str = "", chosen: Chosen | None = None) -> str:
    """Return a sentence that suggests the right key with the value, or "".

    chosen: the choices of the command, which may lack the key. Other choices then have the key.
    """
    found = likely_keys(key)
    if not found:
        return ""
    fitting = [name for name in found if not lacking(name, value, chosen)]
    if not fitting:
        return f": {lacking(found[0], value, chosen)}"
    likeliest, *others = [with_value(name, value) for name in fitting[:3]]
    has = [choice for choice, _ in known_keys().get(fitting[0], []) if choice]
    group = group_of(fitting[0])
    whose = f" (of {group}={','.join(has)})" if 0 < len(has) < 7 else ""
    return f". Did you mean {likeliest}{whose}{''.join(f' or {one}' for one in others)}?"


def with_value(key: str, value: str) -> str:
    """Return KEY=VALUE, with a key's usual value in place of a number where it holds a list."""
    usual = next((str(one.value) for _, one in known_keys().get(key, [])), "")
    if usual.startswith("[") and value and not value.startswith("["):
        return f"'{key}={usual.replace(' ', '')}'"
    return f"{key}={value}" if value else key


def lacking(key: str, value: str, chosen: Chosen | None) -> str:
    """Return which chosen choices lack a known key, and which choice has it; "" if none lacks.

    key: of a group, as in optimizer.momentum.
    """
    has = [choice for choice, _ in known_keys().get(key, []) if choice]
    group = group_of(key)
    there = choices(group, own=False) if group else {}
    # what a user's own choice has is not known here
    lack = [one for one in (chosen or {}).get(group, ()) if one in there and one not in has]
    if not has or not lack:
        return ""
    own = key.removeprefix(f"{group.replace('/', '.')}.")
    best, *others = sorted(has, key=lambda one: one != own)  # momentum's own is momentum
    sets = f"{best.replace('/', '.')}.{own}" if group == "optimizer" else key
    others_too = f"; so {'has' if len(others) == 1 else 'have'} {enumerated(others)}"
    return (
        f"{enumerated(lack)} {'has' if len(lack) == 1 else 'have'} no {own}; {group}={best} has "
        f"({sets}={value or 'VALUE'} sets it){others_too * bool(others)}"
    )


def group_of(key: str) -> str:
    """Return the group of a dotted key, or ""."""
    return next((g for g in GROUPS if key.startswith(f"{g.replace('/', '.')}.")), "")


def chosen_by(words: Iterable[str]) -> Chosen:
    """Return the choices of each group by the words of a command, as far as these are known."""
    given = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    # the file of a study or a problem has choices of its own
    overlaid = any(name in given for name in OVERLAYS)
    found: dict[str, Sequence[str]] = {}
    for group in GROUPS:
        if f"{group.replace('/', '.')}._target_" in given:
            continue  # a class of the user's, whose keys are not known here
        if group in given:
            found[group] = re.findall(r"[\w/.-]+", given[group])
        elif not overlaid and (default := default_choice(group)):
            found[group] = [default]
    return found

"""`optbench --help [KEY]`: an overview, or the meaning of a key, group or choice."""

import ast
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from importlib import import_module, metadata
from pathlib import Path

from optbench import __version__
from optbench.common.errors import UserError
from optbench.common.names import did_you_mean
from optbench.config.comments import (
    GROUPS,
    OVERLAYS,
    default_choice,
    known_keys,
    read,
    settings_of,
    suggestion,
)
from optbench.formats.groups import choices, config_folder, read_yaml
from optbench.formats.keys import STUDY, having

MAX_WIDTH = 100  # columns
MOST_IN_FOLDER = 8  # choices; a folder with more is shown as ...
NAME_WIDTH = 47  # most columns for the names of a table
GROUP_WIDTH = 9  # most columns for the names of groups, which leaves more to their choices
INTRODUCTION = """\
optbench compares optimizers: on one problem, from the same weights, in the same order of batches.
"""
USES = (
    ("optbench optimizer=adam epochs=5", "one run"),
    ("optbench -m optimizer=sgd,adam seed=0,1,2", "a sweep over all combinations"),
    ("optbench -m optimizer=sgd,adam adam.lr=0.1,0.01", "with two rates of one optimizer"),
    ("optbench hydra/sweeper=tuned optimizer=sgd,adam", "a tuned comparison"),
)
FOOTER = """\
optbench --help KEY explains a key, group or choice: --help optimizer, optimizer=adam, optimizer.lr
--cfg job shows the configuration, --dry-run the cost: both run nothing; --hydra-help, --version
All keys and choices: docs/configuration.md. Files, figures, statistics: the other pages of docs/
"""


def main(words: Sequence[str], flags: Collection[str] = ()) -> int:
    """Explain each word, or give an overview; with the flag --version print versions."""
    if "--version" in flags:
        print(versions())
        return 0
    texts = [about(word) for word in words] or [overview()]
    print("\n\n".join(text.strip("\n") for text in texts))
    return 0


def versions() -> str:
    """Return the versions of optbench and of the packages that affect its numbers."""
    others = [f"{name} {metadata.version(name)}" for name in ("torch", "hydra-core", "numpy")]
    return f"optbench {__version__} ({', '.join(others)}, Python {sys.version.split()[0]})"


def overview() -> str:
    """Return the overview: purpose, sub-commands, groups and keys."""
    keys = [name for name, (first, *_) in known_keys().items() if not first[0]]
    keys = [name for name in keys if name not in having(STUDY)]  # no user sets these
    parts: dict[str, int] = {}
    for name in keys:
        first, dot, _ = name.partition(".")
        parts[first + ".*" * bool(dot)] = 1
    rows = [(group, choices_line(group)) for group in GROUPS]
    return "\n".join(
        [
            INTRODUCTION,
            table(USES),
            "\nSub-commands: --help NAME explains one",
            wrapped("  ", " ".join(name for name, _ in sub_commands())),
            "\nGroups: GROUP=NAME chooses, -m GROUP=NAME,NAME sweeps; * is the default, "
            "... in --help GROUP",
            table(rows, widest=GROUP_WIDTH),
            "\nKeys: KEY=VALUE sets, -m KEY=VALUE,VALUE sweeps",
            wrapped("  ", " ".join(parts)),
            "",
            FOOTER,
        ]
    )


def sub_commands() -> list[tuple[str, str]]:
    """Return each sub-command with its module's description, without importing it."""
    rows = []
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        if path.stem != "help":
            rows.append((path.stem, text.partition("\n")[0].partition(": ")[2]))
    return rows


def choices_line(group: str) -> str:
    """Return a group's choices: a star marks the default, braces hold a folder's."""
    default = default_choice(group)
    folders = {"": ["basic"] * (group == "hydra/launcher")}  # part of Hydra
    for name in choices(group):
        folder, _, last = name.rpartition("/")
        folders.setdefault(folder, []).append("*" * (name == default) + last)
    texts = {folder: f"{{{' '.join(names)}}}" for folder, names in folders.items()}
    for folder, names in folders.items():
        if len(names) > MOST_IN_FOLDER:
            texts[folder] = "..."
    return " ".join(
        f"{folder}/{texts[folder]}" if folder else " ".join(names)
        for folder, names in folders.items()
    )


def about(word: str) -> str:
    """Return the meaning of a word of the command line. Raise `UserError` if unknown."""
    key, equals, value = word.lstrip("+").partition("=")
    commands = [name for name, _ in sub_commands()]
    if key in commands and not equals:
        module = import_module(f"optbench.commands.{key}")
        (module.words_of if key == "work" else module.main)(["--help"])
        return ""
    if key in GROUPS:
        return about_choice(key, value) if value else about_group(key)
    known = known_keys()
    found = {name: known[name] for name in known if name == key or name.startswith(f"{key}.")}
    if not found and (groups := [group for group in GROUPS if key in choices(group)]):
        last = [name for name in known if name.endswith(f".{key}")]
        also = f"\n\n--help {last[0]} explains the key" if last else ""
        return "\n\n".join(about_choice(group, key) for group in groups) + also
    if not found and (own := about_own_setting(key)):
        return own
    if not found:  # the last part of keys, such as lr
        found = {name: known[name] for name in known if name.endswith(f".{key}")}
    if not found:
        named = [name for group in GROUPS for name in choices(group)]
        near = did_you_mean(key, commands) or suggestion(key, value) or did_you_mean(key, named)
        raise UserError(f"unknown key '{key}'{near}\n--help lists them all.")
    plain = [one for has in found.values() for choice, one in has if not choice]
    parts = [table([(f"{one.key}={one.value}", one.comment) for one in plain], indent="")]
    for name, has in found.items():
        rows = [(f"{choice}: {one.value}", one.comment) for choice, one in has if choice]
        parts += [name, table(rows)] if rows else []
    return "\n".join(part for part in parts if part)


def about_own_setting(key: str) -> str:
    """Return the meaning of one optimizer's setting, such as `adam.lr`, or ""."""
    for name, path in choices("optimizer").items():
        settings = [(f"{name.replace('/', '.')}.{one.key}", one) for one in settings_of(path)]
        rows = [(f"{own}={one.value}", one.comment) for own, one in settings if own == key]
        if rows:
            return table(rows, indent="")
    return ""


def about_group(group: str) -> str:
    """Return the choices of a group, with the meaning of each."""
    comment = config_comment(group)
    rows = [(name, read(path)[0]) for name, path in choices(group).items()]
    if group == "hydra/launcher":
        rows.append(("basic", "Hydra's own: one run after another, in one process"))
    first = f"{group}={default_choice(group) or 'null'}  "
    return f"{wrapped(first, comment)}\n{table(rows)}"


def config_comment(group: str) -> str:
    """Return config.yaml's comment on a group."""
    for _, settings in read(config_folder() / "config.yaml")[1]:
        for one in settings:
            if one.key == f"defaults.{group}":
                return one.comment
    return ""


def about_choice(group: str, name: str) -> str:
    """Return the meaning of a choice, and its settings."""
    files = choices(group)
    if name not in files:
        raise UserError(
            f"there is no {group}={name}{did_you_mean(name, files)}\n"
            f"{group} is one of: {', '.join(files)}"
        )
    prefix = "" if group in OVERLAYS else f"{group.replace('/', '.')}."
    settings = [one for one in settings_of(files[name]) if not one.key.startswith("claim.")]
    rows = [(f"{prefix}{one.key}={one.value}", one.comment) for one in settings]
    if group == "study":
        content = read_yaml(files[name])
        swept = content.get("hydra", {}).get("sweeper", {}).get("params", {})
        rows += [("sweeps", f"{key}={values}") for key, values in swept.items()]
        rows += [("claims", content["claim"]["text"])] if content.get("claim") else []
    return f"{wrapped(f'{group}={name}  ', read(files[name])[0])}\n{table(rows)}"


def table(rows: Iterable[tuple[str, str]], indent: str = "  ", widest: int = NAME_WIDTH) -> str:
    """Return rows of a name and a text, wrapped beside the longest name.

    widest: most columns for the names; a longer name moves its own text.
    """
    rows = list(rows)
    width = min(max((len(name) for name, _ in rows), default=0), widest)
    return "\n".join(wrapped(f"{indent}{name:<{width}}  ", text) for name, text in rows)


def wrapped(first: str, text: str) -> str:
    """Return a text wrapped to the terminal, indented after its opening words."""
    width = min(shutil.get_terminal_size((MAX_WIDTH, 0)).columns, MAX_WIDTH)
    later = " " * min(len(first), width // 2)
    return textwrap.fill(
        text or " ", width, initial_indent=first, subsequent_indent=later,
        break_long_words=False, break_on_hyphens=False, drop_whitespace=True,
    ).rstrip() or first.rstrip()  # fmt: skip

"""The words of a command line: flags, which may stand anywhere, and overrides."""

import os
from collections.abc import Sequence
from pathlib import Path

from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.common.names import did_you_mean, nearest
from optbench.config.comments import GROUPS, known_keys, suggestion
from optbench.formats.groups import choices

# Hydra's flags, by the letters of their short forms.
SHORT = {
    "h": "--help", "c": "--cfg", "p": "--package", "r": "--run", "m": "--multirun", "i": "--info",
    "sc": "--shell-completion", "cp": "--config-path", "cn": "--config-name", "cd": "--config-dir",
}  # fmt: skip
FOLDERS = ("--config-dir", "--config-path")
WITH_VALUE = (*FOLDERS, "--cfg", "--package", "--config-name", "--experimental-rerun")
DRY_RUN = "--dry-run"  # a flag of optbench's own
KNOWN = (
    *SHORT.values(), DRY_RUN, "--experimental-rerun", "--hydra-help", "--resolve", "--version",
)  # fmt: skip
DASHES = "-\u2013\u2014"  # editors turn two hyphens into one dash
BLANKS = "cannot read {0}: a setting is KEY=VALUE, without blanks around =. Did you mean {0}={1}?"
ALL_FLAGS = "--help names the usual flags, and --hydra-help all of Hydra's"


class DryRun:
    """Whether the command only tells its cost."""

    asked = False


dry_run = DryRun()


def split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the flags by their long names, and the other words.

    A flag without a value has the value "". Raises `UserError` for an unknown flag, with the
    override that was meant, and for a flag that lacks its value.
    """
    flags: dict[str, str] = {}
    others: list[str] = []
    left = list(map(as_text, words))
    while left:
        word = left.pop(0)
        if word[:1] not in DASHES or not word:
            others.append(word)
            continue
        name, equals, value = word.partition("=")
        following = left[0] if left and left[0][:1] not in DASHES and "=" not in left[0] else ""
        if not (flag := long_name(name)):
            raise unknown_flag(name, value if equals else following)
        if not equals and (flag in WITH_VALUE or (flag == "--info" and following)):
            if not left:
                raise UserError(f"{name} needs a value: {ALL_FLAGS}")
            value = left.pop(0)
        flags[flag] = expanded(value) if flag in FOLDERS else value
    return flags, others


def long_name(text: str) -> str:
    """Return the flag that a word names, in full or by a clear beginning; or ""."""
    name = text.lstrip(DASHES)
    if name in SHORT:
        return SHORT[name]
    found = [flag for flag in KNOWN if flag.startswith(f"--{name}")]
    return found[0] if f"--{name}" in found or (len(found) == 1 and len(name) > 2) else ""


def unknown_flag(word: str, value: str) -> UserError:
    """Return the error for an unknown flag. value: what stands behind the flag."""
    key = word.lstrip(DASHES).replace("-", "_")
    if near := nearest(word.lstrip(DASHES), [flag[2:] for flag in KNOWN]):
        return UserError(f"there is no flag {word}. Did you mean --{near[0]}?")
    # one letter is near to too many keys
    if len(key) > 1 and (hint := suggestion(key, value)):
        return UserError(f"there is no flag {word}: settings have no dashes{hint}")
    return UserError(f"there is no flag {word}: {ALL_FLAGS}")


def as_text(word: str) -> str:
    """Return a word of the command line as UTF-8, which an ASCII locale cannot decode."""
    try:
        return word if word.isascii() else os.fsencode(word).decode("utf-8")
    except UnicodeError:  # another encoding, or bytes that are no text
        return word


def check_words(words: Sequence[str], commands: Sequence[str]) -> None:
    """Raise `UserError` for a word that is no override, with what was probably meant.

    commands: the sub-commands.
    """
    for index, word in enumerate(words):
        if "=" not in word and Path(word).is_dir() and "/" in word:
            raise UserError(f"{word} is a folder: python -m optbench report {word} shows its runs")
        before = words[index - 1] if index else ""
        if before.endswith(",") and "=" in before:
            raise UserError(
                f"cannot read {before}: several values are separated by single commas, without "
                f"spaces. Did you mean {before}{word}?"
            )
        if len(before) > 1 and before.endswith("=") and "=" not in word:
            raise UserError(BLANKS.format(before.removesuffix("="), word))
        if not word.isidentifier() and word not in known_keys():
            continue  # Hydra reads overrides, and words such as ~KEY
        if word in commands:
            raise UserError(
                f"{word} is a sub-command, which comes first and takes no overrides: "
                f"python -m optbench {word} --help"
            )
        if word in GROUPS or word in known_keys():
            later = [text.lstrip("=") for text in words[index + 1 : index + 3] if text != "="]
            value = later[0] if later and "=" not in later[0] else "VALUE"
            raise UserError(BLANKS.format(word, value))
        near = did_you_mean(word, commands)
        if f"--{word}" in KNOWN:
            near = f". Did you mean --{word}?"
        elif found := [group for group in GROUPS if word in choices(group)]:
            near = f". Did you mean {found[0]}={word}?"
        raise UserError(
            f"there is no sub-command {word!r}{near}\nSub-commands: {', '.join(commands)}. "
            f"To train, write GROUP=NAME or KEY=VALUE; see --help"
        )
    last = {word.partition("=")[0]: word for word in words}  # of a key the last word counts
    given = [last[key] for key in ("epochs", "steps") if key in last]
    values = [word.partition("=")[2].split(",") for word in given]
    if len(given) == 2 and not any("null" in each for each in values):
        raise UserError(
            f"{' and '.join(given)} are two budgets, and a run has one, in epochs or in steps: "
            f"leave one of the two out"
        )


def as_words(flags: dict[str, str]) -> list[str]:
    """Return flags as words of a command line, for Hydra."""
    return [f"{flag}={value}" if value else flag for flag, value in flags.items()]

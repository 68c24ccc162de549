"""Explain Hydra's errors to the user, with the nearest right name."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from optbench.common.errors import UserError, shorten
from optbench.common.names import did_you_mean
from optbench.config.comments import chosen_by, command, known_keys, lacking, suggestion
from optbench.formats.groups import choices, own_folders
from optbench.formats.keys import GROUPS

NO_COHORT = (
    "hydra/launcher=cohort is gone: it trained runs of small models together, which was faster "
    "only where a run takes a fraction of a second (results/benchmark/cohort.md). Leave it out, or "
    "use hydra/launcher=workers, the default"
)
LAUNCHER_PACKAGES = {  # of others
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}
NO_RECORD_STEPS = (
    "record_steps is gone: engine takes its place. record_steps=null is engine=auto, the default, "
    "and record_steps=false is engine=plain, where every step is torch's"
)
HYDRAS_ERRORS: tuple[type[Exception], ...] = (HydraException, OmegaConfBaseException)
PARSER_ERRORS = "(mismatched|extraneous) input|LexerNoViable|missing EQUAL|no viable|token recog"


# Raised for mistakes of the user beside Hydra's errors. RecursionError: a key contains itself.
USER_MISTAKES: tuple[type[Exception], ...] = (YAMLError, ValueError, RecursionError)


@contextmanager
def explained(*others: type[Exception], words: Sequence[str] | None = None) -> Iterator[None]:
    """Turn errors from Hydra, and `others`, into a `UserError` with an explanation.

    words: the overrides, by default those of the program's command line.
    """
    try:
        yield
    except UserError:
        raise
    except HYDRAS_ERRORS + others as error:
        raise UserError(explain(error, words)) from error


def explain(error: Exception, words: Sequence[str] | None = None) -> str:
    """Return Hydra's message with its causes, and the nearest right name if any.

    words: as in `explained`.
    """
    return shorten(_explain(error, words))


def _explain(error: Exception, words: Sequence[str] | None) -> str:
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip()
        if text and not any(text in part for part in parts):
            parts.append(text)
        cause = cause.__cause__
    message = "\n".join(parts) or type(error).__name__
    if isinstance(error, YAMLError):
        return f"a YAML file cannot be read: {message}"
    if isinstance(error, RecursionError):
        return "the configuration is nested too deeply, or contains itself"
    if match := re.search(r"Could not override '([^']+)'", message):
        if match[1] == "record_steps":
            return NO_RECORD_STEPS
        value = re.search(r"config use \++[^=\s]+=(.*)", message)
        return f"unknown key '{match[1]}'" + suggest(match[1], value[1] if value else "", words)
    if match := re.search(r"Could not find '(hydra/\w+|\w+)/([^']*)'", message):
        return missing_choice(match[1], match[2])
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
        return (
            f"{match[2]}: there is no key {match[1]} from which ${{{match[1]}}} could be taken. "
            f"Add {match[1].rpartition('.')[2]} to the YAML of {match[1].partition('.')[0]}, or "
            f"give {match[2]}=VALUE"
        )
    if match := re.search(r"full_key: (\S+)", message):
        said = re.split(r"\s+full_key: ", message)[0]
        return f"{match[1]} cannot be resolved: {said}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", message):
        word = match[1].removeprefix("++")  # `own_settings` added the mark
        if word.startswith("logger="):
            return f"several loggers stand in brackets: 'logger=[{word[7:]}]'"
        key, _, values = word.partition("=")
        known = [one.value for _, one in known_keys().get(key, [])]
        if any(value.startswith("[") for value in known):
            return f"{word} names several values: a list stands in brackets: '{key}=[{values}]'"
        whole = bool(known) and all(value.isdecimal() for value in known)
        if re.fullmatch(r"0,\d+", values) and not whole:
            return f"{word} names two values. A decimal takes a point: {values.replace(',', '.')}"
        return (
            f"{word} names several values: -m sweeps over them (python -m optbench -m "
            f"{word}); one value that holds a comma stands in quotes"
        )
    if "Config group override must be a string" in message:
        return (
            "a group is chosen by the name of one of its files: GROUP=NAME. The words null, nan, "
            "inf, true and false, and numbers, are no names"
        )
    if re.search(PARSER_ERRORS, message):
        given = re.search(r"Error parsing override '(.*)'|LexerNoViableAltException: (.*)", message)
        word = (given[1] or given[2]) if given else "the command line"
        return (
            f"cannot read {word}: an override is KEY=VALUE; "
            f"several values are separated by single commas, without spaces; a value with spaces, "
            f"commas or other signs stands in quotes (KEY='\"a, b\"')"
        )
    return message


def missing_choice(group: str, name: str) -> str:
    """Return what to say of a choice that a group does not have."""
    if (group, name) == ("hydra/launcher", "cohort"):
        return NO_COHORT
    if "." in name and re.fullmatch(r"[\w.]+", name):
        module = name.removesuffix(".py")
        target = f"{module}.CLASS" if module != name else name
        return (
            f"there is no {group}={name}: a class of your own is named by "
            f"{group}._target_={target}, or by a YAML of yours (docs/extending.md)"
        )
    allowed = list(choices(group))
    allowed += ["basic"] if group.startswith("hydra/") else []  # part of Hydra
    return (
        f"there is no {group}={name}"
        f"{packaged(group, name) or misplaced(group, name) or did_you_mean(name, allowed)}\n"
        f"{group} is one of: {', '.join(allowed)}, or a file of yours in FOLDER/{group}/ with "
        f"--config-dir FOLDER"
    )


def packaged(group: str, name: str) -> str:
    """Return which package has a launcher of others that is not installed, or ""."""
    package = LAUNCHER_PACKAGES.get(name) if group == "hydra/launcher" else None
    return (
        f": it comes with a package, pip install {package} (docs/launchers.md)." if package else ""
    )


def misplaced(group: str, name: str) -> str:
    """Return where a user's file of this name lies outside of the group, or ""."""
    stem = Path(name).name.removesuffix(".yaml")
    for folder in own_folders:
        for path in sorted(folder.rglob(f"{escape(stem)}.y*ml")) if stem else ():
            return f": there is {path}, and a choice of {group} is FOLDER/{group}/{stem}.yaml"
    return ""


def suggest(key: str, value: str = "", words: Sequence[str] | None = None) -> str:
    """Return a hint: the likely right key with the value, and where keys are listed.

    words: as in `explained`.
    """
    group, _, rest = key.partition(".")
    if group == "logger" and rest:
        name = rest.split(".")[0]
        return (
            f": choose logger={name} (or logger=[{name},...]) to set it; --cfg job shows its keys"
        )
    words = command.words if words is None else words
    chosen = None if words is None else chosen_by(words)
    if lack := lacking(key, value, chosen):
        near = f": {lack}"
    elif has := [choice for choice, _ in known_keys().get(key, []) if choice]:
        near = f", which {group}={{{', '.join(has)}}} has"
    else:
        near = suggestion(key, value, chosen)
    if rest and group in GROUPS:
        return (
            near + f"\nThe choice of {group} decides which keys it has: --cfg job shows them. "
            f"+{key}=VALUE gives the class an argument that is not in its YAML."
        )
    return f"{near}\n--help lists them all, and --help KEY explains one."

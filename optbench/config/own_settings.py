"""Settings of one optimizer alone: `adam.lr=0.01` beside `optimizer=sgd,adam`.

Hydra accepts an unknown key only with `+`. So `adam.lr` is rewritten to `++adam.lr`, and `+adam.lr`
stays. In a job of that optimizer both become settings of the group `optimizer`.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from optbench.common.errors import UserError
from optbench.config.comments import lacking
from optbench.config.explain import suggest
from optbench.formats.groups import choices


def optimizer_names(words: Iterable[str]) -> list[str]:
    """Return the names of all optimizers: optbench's and the command line's."""
    chosen = [re.sub(r"^\++optimizer=", "", f"++{word.lstrip('+')}") for word in words]
    given = [one for text in chosen if text[:2] != "++" for one in re.findall(r"[\w/.-]+", text)]
    return [*choices("optimizer"), *given]


def split_key(key: str, known: Sequence[str]) -> tuple[str, str] | None:
    """Return the optimizer and its own key for a key such as `adam.lr`, else None."""
    plain = key.lstrip("+").replace("/", ".")
    for name in known:
        if plain.startswith(f"{name.replace('/', '.')}."):
            return name, plain[len(name) + 1 :]
    return None


def for_hydra(words: Sequence[str]) -> list[str]:
    """Return the command line's words, with own settings as Hydra accepts them."""
    known = optimizer_names(words)

    def written(word: str) -> str:
        key, equals, value = word.partition("=")
        own = split_key(key, known) if equals else None
        if own is None:
            return word
        mark = "+" if key.startswith("+") else "++"
        return f"{mark}{own[0].replace('/', '.')}.{own[1]}={value}"

    return list(map(written, words))


def as_typed(words: Sequence[str]) -> list[str]:
    """Return words that Hydra received, with own settings as the command line has them."""
    known = optimizer_names(words)
    return [word.removeprefix("++") if split_key(word, known) else word for word in words]


def as_group(key: str, own: str) -> str:
    """Return an optimizer's own key as a key of the group. key: as Hydra received it."""
    added = key.startswith("+") and not key.startswith("++")
    return f"{'++' * added}optimizer.{own}"


def foreign_setting(name: str, own: str, others: Iterable[str]) -> UserError:
    """Return the error for a setting of an optimizer that is not run."""
    if lack := lacking(f"optimizer.{own}", "", {"optimizer": [name]}):
        return UserError(f"unknown key '{name}.{own}': {lack}")
    return UserError(
        f"{name}.{own} is a setting of the optimizer {name}, and the optimizers that are run are "
        f"{', '.join(others)}: name {name} in optimizer=, or leave its settings out"
    )


def unknown_setting(name: str, own: str, value: str) -> UserError:
    """Return the error for a setting that an optimizer does not have."""
    key = f"{name.replace('/', '.')}.{own}"
    if lack := lacking(f"optimizer.{own}", value, {"optimizer": [name]}):
        return UserError(f"unknown key '{key}': {lack}")
    return UserError(f"unknown key '{key}'{suggest(key, value)}")


def move_to_group(config: DictConfig, overrides: Sequence[str], choice: str) -> list[str]:
    """Move the settings of a run's own optimizer to the group; return the overrides.

    choice: the optimizer of the run. Raises `UserError` for settings of another optimizer.
    """
    known, texts = optimizer_names([f"optimizer={choice}"]), []
    for text in overrides:
        key, _, value = text.partition("=")
        if (own := split_key(key, known)) is None:
            texts.append(text)
            continue
        name, rest = own
        if name != choice:
            raise foreign_setting(name, rest, [choice])
        there, whole = key.lstrip("+"), as_group(key, rest)
        given: Any = OmegaConf.select(config, there)
        try:
            OmegaConf.update(config, whole.lstrip("+"), given, force_add=whole[0] == "+")
        except OmegaConfBaseException as error:
            raise unknown_setting(name, rest, value) from error
        texts.append(f"{whole}={value}")
        with open_dict(config), suppress(KeyError):
            config.pop(there.partition(".")[0])
    return texts

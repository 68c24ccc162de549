"""Compose configurations for code that does not know Hydra."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from optbench.common.errors import UserError
from optbench.config import own_settings
from optbench.config.explain import USER_MISTAKES, explained
from optbench.config.hydra_internals import VERSION_BASE, mend_parser
from optbench.config.resolve import check_syntax, quoted, resolve
from optbench.formats.groups import config_folder, own_folders
from optbench.formats.keys import RunConfig, settled


def compose_group(group: str, choice: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the configuration of one choice of a group, with overrides applied.

    The user's `own_folders` have choices too. Raises `UserError` for an unknown name.
    """
    words = [f"{group}={choice}", *overrides, own_places()]
    mistakes = explained(*USER_MISTAKES, words=words)
    with mistakes, initialize_config_dir(str(config_folder()), **VERSION_BASE):
        node = compose("config", overrides=words)[group]
        config: Any = OmegaConf.to_container(node, resolve=True)
    config = {"name": choice.replace("/", "_")} | config  # a YAML of the user's may lack a name
    return settled(config)


def compose_run(words: Sequence[str]) -> RunConfig:
    """Return the resolved configuration of one run from the command line's words.

    The user's `own_folders` have choices too. Raises `UserError` for words that make no run.
    """
    mend_parser()
    written = list(map(quoted, words))
    check_syntax(written)
    overrides = [*own_settings.for_hydra(written), own_places()]
    mistakes = explained(*USER_MISTAKES, words=words)
    with mistakes, initialize_config_dir(str(config_folder()), **VERSION_BASE):
        config = compose("config", overrides=overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(config)  # `resolve` asks it for the names of choices
        texts = texts_of(config.hydra.overrides.task)
        optimizer = str(config.hydra.runtime.choices.get("optimizer"))
        texts = own_settings.move_to_group(config, texts, optimizer)
        return resolve(config, texts)


def own_places() -> str:
    """Return the override that adds the user's folders. Raises `UserError` for one not there."""
    for folder in own_folders:
        if not folder.is_dir():
            raise UserError(f"--config-dir: there is no folder {folder}")
    places = ",".join(f"'file://{folder.resolve()}'" for folder in own_folders)
    return f"hydra.searchpath=[{places}]"


def combinations(settings: Mapping[str, str], whose: str) -> list[list[str]]:
    """Return one list of overrides per combination of values: `lr=0.1,0.3` makes two.

    settings: key to text, as on a command line. whose: begins the message for unreadable text.
    """
    mend_parser()
    try:
        parsed = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in settings.items()])
    except HydraException as error:
        raise UserError(f"{whose}: {error}") from error
    choices = []
    for override in parsed:
        key = override.get_key_element()
        if override.is_sweep_override():
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([f"{key}={override.get_value_element_as_str()}"])
    return [list(choice) for choice in product(*choices)]


def texts_of(overrides: Any) -> list[str]:
    """Return overrides as written. Reading the node's items would resolve them."""
    texts: list[str] = OmegaConf.to_container(overrides)  # type: ignore[assignment]
    return texts

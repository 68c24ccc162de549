"""Which classes and functions a configuration may name: Hydra calls what a `_target_` names.

Since version 1.4 Hydra wants to be told which. A configuration is composed of optbench's own files
and of what the user gives on the command line: words, and folders (`--config-dir`,
`hydra.searchpath`). To name something there is the choice to have it called. What lies among
results (`run.json`, `study.json`) is never composed, so nothing that it names is ever called.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from hydra import utils
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from optbench.common.files import expanded
from optbench.config.hydra_internals import WANTS_NAMES
from optbench.formats.older_code import GETTERS, targets

# what Hydra makes for itself, before there is a run: callbacks, launchers, loggers
OWN = ("optbench.*", "hydra_plugins.*", "logging.*", "colorlog.*")
NAMED = re.compile(r"""_target_['"]?\s*[=:]\s*['"]?([A-Za-z_][\w.]*)""")
FLAG = re.compile(r"(?:--config-dir|-cd|--config-path|-cp)(?:=(.*))?")


def named_by(words: Sequence[str]) -> list[str]:
    """Return what the words of a command line name: there, and in the folders that they give."""
    texts = [*words]
    for folder in folders(words):
        with suppress(OSError):  # Hydra says what is wrong with a folder
            texts += [path.read_text("utf-8", "replace") for path in folder.rglob("*.yaml")]
    return sorted({name for text in texts for name in NAMED.findall(text)})


def folders(words: Sequence[str]) -> Iterator[Path]:
    """The folders of configurations that a command line gives."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if match := FLAG.fullmatch(word):
            if folder := following if match[1] is None else match[1]:
                yield Path(expanded(folder))
        elif word.lstrip("+").startswith("hydra.searchpath="):
            yield from map(Path, re.findall(r"file://([^,\]'\"]+)", word))


def of_command(words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `hydra.main` for a command line: what Hydra may make for itself."""
    return {"execution_whitelist": [*OWN, *named_by(words)]} if WANTS_NAMES else {}


def make(node: Mapping[str, Any]) -> Any:
    """Return what the `_target_` of a composed configuration gives with its arguments.

    Hydra checks each name, and refuses what no configuration may call, such as `os.system`. What
    is named calls and returns what it likes. Raises `InstantiationException` for what cannot be
    made, also where the code that is named raises.
    """
    if not WANTS_NAMES:
        return instantiate(node, _convert_="all")
    for call in _calls(node):
        instantiate(call, _execution_whitelist_=[*targets(call)])
    free = vars(utils)["UNSAFE_DISABLE_EXECUTION_CHECKS"]
    try:
        return _plain(instantiate(node, _convert_="all", _execution_whitelist_=free))
    except InstantiationException:
        raise
    except Exception as error:  # as Hydra puts it before 1.4
        text = f"Error in call to target '{node['_target_']}':\n{error!r}"
        raise InstantiationException(text) from error


def _calls(node: Any) -> Iterator[dict[str, Any]]:
    """The targets in a configuration, each as a call that is not made."""
    if isinstance(node, Mapping):
        if isinstance(target := node.get("_target_"), str):
            getter = target.rpartition(".")[2] in GETTERS
            given = {key: node[key] for key in ("path", "_args_") if getter and key in node}
            yield {"_target_": target, "_partial_": True} | given
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _calls(item)


def _plain(made: Any) -> Any:
    """An ordinary partial call in the place of Hydra's own kind, which checks what it returns."""
    if not isinstance(made, partial):
        return made
    return partial(made.func, *made.args, **{k: _plain(v) for k, v in made.keywords.items()})

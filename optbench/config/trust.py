"""Which classes and functions a configuration may name in `_target_`.

Hydra calls whatever a `_target_` names, and since version 1.4 requires a list of what is allowed. A
configuration is composed only of optbench's files and of what the user gives on the command line,
as words or as folders (`--config-dir`, `hydra.searchpath`). Naming a class there allows the call.
Files among results (`run.json`, `study.json`) are never composed, so nothing they name is called.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any

from hydra import utils
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from optbench.config.hydra_internals import WANTS_NAMES
from optbench.formats.groups import config_folders
from optbench.formats.older_code import GETTERS, targets

# Hydra itself builds callbacks, launchers and loggers before any run begins.
HYDRA_TARGETS = ("optbench.*", "hydra_plugins.*", "logging.*", "colorlog.*")
PACKAGED = ("optbench.", "torch.")  # code that does not change while a process runs
MOST_KEPT = 1000  # partial calls
TARGET_NAME = re.compile(r"""_target_['"]?\s*[=:]\s*['"]?([A-Za-z_][\w.]*)""")


def named_by(words: Sequence[str]) -> list[str]:
    """Return every `_target_` in a command line's words and in the folders they give."""
    texts = [*words]
    for folder in config_folders(words):
        with suppress(OSError):  # Hydra reports what is wrong with a folder
            texts += [path.read_text("utf-8", "replace") for path in folder.rglob("*.yaml")]
    return sorted({name for text in texts for name in TARGET_NAME.findall(text)})


def allowlist(words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `hydra.main` that allow what a command line names."""
    return {"execution_whitelist": [*HYDRA_TARGETS, *named_by(words)]} if WANTS_NAMES else {}


_made: dict[str, partial[Any]] = {}  # partial calls of this process, by their nodes as JSON


def make(node: Mapping[str, Any]) -> Any:
    """Return `call`'s result. A partial call of packaged code is made once in a process.

    Hydra takes milliseconds for each, and a sweep has thousands of the same.
    """
    names, text = [*targets(node)], ""
    if node.get("_partial_") is True and len(names) == 1 and names[0].startswith(PACKAGED):
        with suppress(TypeError):  # a value that JSON does not know
            text = json.dumps(node)
    if text not in _made:
        made = call(node)
        if not text or not isinstance(made, partial):
            return made
        if len(_made) >= MOST_KEPT:
            _made.clear()
        _made[text] = made
    kept = _made[text]
    return partial(kept.func, *kept.args, **deepcopy(kept.keywords))


def call(node: Mapping[str, Any]) -> Any:
    """Call the `_target_` of a composed configuration with its arguments.

    Hydra checks each name, and refuses names that no configuration may call, such as `os.system`.
    The called code itself is not restricted. Raises `InstantiationException` if the call fails.
    """
    if not WANTS_NAMES:
        return instantiate(node, _convert_="all")
    for one in _partial_calls(node):
        instantiate(one, _execution_whitelist_=[*targets(one)])
    free = vars(utils)["UNSAFE_DISABLE_EXECUTION_CHECKS"]
    try:
        return _as_partial(instantiate(node, _convert_="all", _execution_whitelist_=free))
    except InstantiationException:
        raise
    except Exception as error:  # the form of the message before Hydra 1.4
        text = f"Error in call to target '{node['_target_']}':\n{error!r}"
        raise InstantiationException(text) from error


def _partial_calls(node: Any) -> Iterator[dict[str, Any]]:
    """Yield each target in a configuration as a partial call, so that nothing runs."""
    if isinstance(node, Mapping):
        if isinstance(target := node.get("_target_"), str):
            getter = target.rpartition(".")[2] in GETTERS
            given = {key: node[key] for key in ("path", "_args_") if getter and key in node}
            yield {"_target_": target, "_partial_": True} | given
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _partial_calls(item)


def _as_partial(made: Any) -> Any:
    """Return an ordinary partial in place of Hydra's, which checks the result's type."""
    if not isinstance(made, partial):
        return made
    return partial(made.func, *made.args, **{k: _as_partial(v) for k, v in made.keywords.items()})

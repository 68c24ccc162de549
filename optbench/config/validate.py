"""Checks of a resolved configuration before anything is loaded or trained."""

import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optbench.common.errors import UserError, is_text
from optbench.common.names import did_you_mean
from optbench.formats.keys import ENDING_KEYS, GROUPS, KEYS, Choice, Count, RunConfig, Switch
from optbench.formats.run import COLUMNS, COUNTED

MAX_THREADS = 4096  # more than any machine has; a million threads would end the process
MAX_FLOAT = 1e30  # float32 holds a hundred million times as much
MAX_INTEGER = 2**53  # larger whole numbers are not exact in CSV and JSON readers


def check(config: RunConfig) -> None:
    """Raise `UserError` for the first wrong value, with its key and what is allowed."""
    from optbench.training.recipes import recipe_of  # imports torch, which takes seconds

    for key, value in config.items():
        if key not in ENDING_KEYS:
            check_values(value, key)
    check_kinds(config, Count)
    if (config["num_threads"] or 0) > MAX_THREADS:
        raise UserError(f"num_threads must be at most {MAX_THREADS}, not {config['num_threads']}")
    if config["steps"] is None and config["epochs"] is None:
        raise UserError("epochs or steps must be given: one of the two is the budget")
    batch_size = config["batch_size"]
    if batch_size != "full" and not _is_count(batch_size, 1):
        raise UserError(
            f"batch_size must be a whole number of at least 1, or 'full' for batch gradient "
            f"descent, not {batch_size!r}"
        )
    check_kinds(config, Choice)
    check_kinds(config, Switch)
    recipe_of(config)
    if config["compile"] and config["engine"] not in ("auto", "plain"):
        raise UserError(
            f"compile=true compiles plain steps, and engine={config['engine']} takes others: leave "
            f"one of the two out"
        )
    every = config["checkpoint_seconds"]
    if every is not None and (not _is_number(every) or not 0 <= every < math.inf):
        raise UserError(
            f"checkpoint_seconds must be a number of seconds of at least 0, or null, not {every!r}"
        )
    check_name(config["name"])
    check_folder(_get(config, "data.root"), "data.root")
    check_source(config)
    check_group(config["initializer"], "initializer.bias", "initializer")
    weight = config["initializer"].get("weight")
    if weight is not None and (not isinstance(weight, Mapping) or not weight.get("_target_")):
        raise UserError(f"initializer.weight needs a _target_, or is null, not {weight!r}")
    bias = config["initializer"].get("bias")
    if bias is not None and (not _is_number(bias) or abs(bias) >= MAX_FLOAT):
        raise UserError(f"initializer.bias must be a number (below 1e30), or null, not {bias!r}")
    for group in GROUPS:
        if group == "initializer":
            continue  # an initializer needs no class
        node = _get(config, group)
        if not isinstance(node, Mapping) or not node.get("_target_"):
            raise UserError(
                f"{group} needs a _target_: {group}=NAME chooses one of conf/{group}/, and a YAML "
                f"of yours names a class or function, as in `_target_: mymodule.MyClass`, at its "
                f"left edge"
            )
        label = node.get("name")
        if not isinstance(label, str) or not label.strip():
            raise UserError(f"{group}.name must be a name, not {label!r}")
    model: Mapping[str, Any] = config["model"]
    if model.get("batch_norm") is False and model.get("batch_norm_place") == "after":
        raise UserError(
            "model.batch_norm_place=after has no effect without batch norm: add "
            "model.batch_norm=true, or leave it out"
        )
    check_internals(_get(config, "log.optimizer"))
    penalty = config["weight_penalty"]
    if not _is_number(penalty) or not 0 <= penalty < MAX_FLOAT:
        raise UserError(
            f"weight_penalty must be at least 0 and below {MAX_FLOAT:g}, not {penalty!r}"
        )
    lr = config["optimizer"].get("lr", 1)  # a user's class may have no lr, or a default
    # The class decides about null: some optimizers find their own rate.
    if lr is not None and (not _is_number(lr) or not 0 < lr < MAX_FLOAT):
        raise UserError(f"optimizer.lr must be above 0 and below {MAX_FLOAT:g}, not {lr!r}")


def check_source(config: RunConfig) -> None:
    """Raise `UserError` for a file of the user's that the dataset would not read."""
    path = _get(config, "data.path")
    if path is None:
        return
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise UserError(f"data.path must be a file or folder of yours, or null, not {path!r}")
    check_encodable(path, "data.path")
    own = str(config["dataset"].get("_target_")).partition(".")[0] != "optbench"
    if not own and "path" not in config["dataset"]:
        raise UserError(
            f"data.path={path} is a file or folder of yours, and dataset="
            f"{config['dataset'].get('name')} reads none: add dataset=csv, text or "
            f"image_folder, or leave it out"
        )


def check_kinds(config: RunConfig, kind: type) -> None:
    """Raise `UserError` for the first key whose check is of type `kind` and fails."""
    for key, known in KEYS.items():
        if isinstance(known.check, kind):
            value = _get(config, key)
            if must := _mistake(value, known.check):
                raise UserError(f"{key} must be {must}{as_range(key, value)}")


def as_range(key: str, value: Any) -> str:
    """Return a sentence with Hydra's form for whole numbers such as 0-5, else ""."""
    ends = re.fullmatch(r"(\d+) ?(?:-|:|\.\.+) ?(\d+)", str(value))
    return f". Did you mean -m '{key}=range({ends[1]},{int(ends[2]) + 1})'?" if ends else ""


def _mistake(value: Any, check: object) -> str:
    """Return what is wrong with a value, or "" for an allowed value."""
    match check:
        case Count(least, meaning, null):
            if (value is None and null) or _is_count(value, least):
                return ""
            return f"a whole number of at least {least} ({meaning}), not {value!r}"
        case Choice(allowed):
            if any(value is one or (isinstance(one, str) and value == one) for one in allowed):
                return ""
            words = ["null" if one is None else str(one).lower() for one in allowed]
            near = did_you_mean(str(value), words)
            return f"one of {', '.join(words)}, not {value!r}{near}"
    return "" if isinstance(value, bool) else f"true or false, not {value!r}"


def check_internals(names: Any) -> None:
    """Raise `UserError` unless `log.optimizer` is null or a list of new columns."""
    if names is None:
        return
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not texts or not all(re.fullmatch(r"[A-Za-z]\w*", name) for name in names):
        raise UserError(
            f"log.optimizer is a list of names, as in 'log.optimizer=[d,update_rms]', not {names!r}"
        )
    if taken := [name for name in names if name in (*COLUMNS["steps"], *COUNTED)]:
        raise UserError(f"log.optimizer: steps.csv has a column {taken[0]} already: leave it out")
    if len(set(names)) < len(names):
        raise UserError(f"log.optimizer names a column twice: {', '.join(names)}")


def check_name(name: Any) -> None:
    """Raise `UserError` unless `name` is null or a possible folder name."""
    if name is None:
        return
    text = str(name)
    if not text or text.startswith(".") or any(c in text for c in "/\\\0") or len(text) > 120:
        raise UserError(
            f"name must be the plain name of one folder (no slash, not starting with a dot, at "
            f"most 120 characters), not {text!r}"
        )
    check_text(text, "name")
    check_encodable(text, "name")


def check_results_dir(value: Any) -> None:
    """Raise `UserError` unless `results_dir` is a possible folder."""
    check_folder(value, "results_dir")


def check_folder(value: Any, key: str) -> None:
    """Raise `UserError` unless the value is a possible path of a folder."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise UserError(f"{key} must be a folder ('.' is the current one), not {value!r}")
    check_encodable(value, key)
    try:
        Path(os.path.expandvars(value)).expanduser()
    except RuntimeError as error:
        raise UserError(f"{key}={value}: there is no such home folder ({error})") from None


def check_values(value: Any, key: str) -> None:
    """Raise `UserError` for numbers that are not finite and keys that are not text."""
    if isinstance(value, Mapping):
        for inner, item in value.items():
            if not isinstance(inner, str):
                raise UserError(f"{key} has the key {inner!r}; keys are texts: quote it")
            check_text(inner, f"a key of {key}")
            check_values(item, f"{key}.{inner}")
    elif isinstance(value, list):
        for item in value:
            check_values(item, key)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key} must be finite, not {value!r}")
    elif isinstance(value, str):
        check_text(value, key)


def check_text(value: str, key: str) -> None:
    """Raise `UserError` for a lone surrogate, which UTF-8 cannot hold."""
    if not is_text(value):
        raise UserError(f"{key} must be text that can be written as UTF-8, not {value!r}")


def check_encodable(value: str, key: str) -> None:
    """Raise `UserError` for a file name that the locale cannot encode."""
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise UserError(
            f"{key}: the locale's encoding ({sys.getfilesystemencoding()}) has no file of the name "
            f"{value!r}: set PYTHONUTF8=1, or choose another name"
        ) from None


def check_group(value: Any, key: str, group: str) -> None:
    """Raise `UserError` unless `value` is a group of keys. key: an example of one."""
    if not isinstance(value, Mapping):
        raise UserError(f"{group} is a group of keys such as {key}, not {value!r}")


def _get(config: RunConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        check_group(value, key, key.split(".")[0])
        value = value[part]
    return value


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_INTEGER


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

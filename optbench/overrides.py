"""What a command line means beyond Hydra's composition: own classes, and misspelt names."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from optbench.errors import UserError
from optbench.settings import did_you_mean

Config = dict[str, Any]
GROUPS = ("model", "dataset", "loss", "initializer", "optimizer", "schedule")
LABELS = ("_partial_", "name", "preprocessing")  # not arguments of the class


def own_keys(config: Config, overrides: Sequence[str]) -> Config:
    """Where `_target_` was given on the command line, keep only the arguments given beside it.

    The group's YAML was written for another class, and the new one has defaults of its own. The
    class's name becomes the group's label, unless `GROUP.name` was given as well.
    """
    given = dict(text.lstrip("+").split("=", 1) for text in overrides if "=" in text)

    def clean(node: Config, path: str) -> Config:
        kept = {}
        for key, value in node.items():
            here = f"{path}.{key}"
            named = any(name == here or name.startswith(f"{here}.") for name in given)
            if f"{path}._target_" in given and not named and key not in LABELS:
                continue
            kept[key] = clean(value, here) if isinstance(value, dict) else value
        return kept

    config = dict(config)
    for group in GROUPS:
        if isinstance(config[group], dict):
            config[group] = clean(config[group], group)
            for path in (f"{group}._target_", f"{group}.weight._target_"):
                if path in given and f"{group}.name" not in given:
                    config[group]["name"] = given[path].strip("'\"").rsplit(".", 1)[-1]
    return config


def explain(error: Exception, conf: Path) -> str:
    """Hydra's message and its causes in one text, with the nearest right name where one is near."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip()
        if text and not any(text in part for part in parts):
            parts.append(text)
        cause = cause.__cause__
    message = "\n".join(parts)
    if match := re.search(r"Could not override '([^']+)'", message):
        message += did_you_mean(match[1], known_keys(conf))
    elif match := re.search(r"Could not find '(\w+)/([^']+)'", message):
        options = [path.stem for path in (conf / match[1]).rglob("*.yaml")]
        message += did_you_mean(match[2], options)
    return message


def known_keys(conf: Path) -> list[str]:
    """Every dotted key that some choice of groups offers."""
    keys: list[str] = []

    def collect(node: Any, path: str) -> None:
        if path:
            keys.append(path)
        if isinstance(node, dict):
            for key, value in node.items():
                collect(value, f"{path}.{key}" if path else str(key))

    top = yaml.safe_load((conf / "config.yaml").read_text("utf-8"))
    collect({k: v for k, v in top.items() if k not in ("defaults", "hydra")}, "")
    for group in GROUPS:
        for path in sorted((conf / group).rglob("*.yaml")):
            collect(yaml.safe_load(path.read_text("utf-8")), group)
    return [*dict.fromkeys(keys), "study"]


def check_keys(config: Config, conf: Path) -> None:
    """Refuse top-level keys that mean nothing: `+epoch=3` would be taken in silence."""
    top = yaml.safe_load((conf / "config.yaml").read_text("utf-8"))
    known = {*top, *GROUPS} - {"defaults", "hydra"}
    for key in config:
        if key not in known:
            raise UserError(f"unknown key '{key}'" + did_you_mean(key, sorted(known)))

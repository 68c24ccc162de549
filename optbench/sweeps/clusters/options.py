"""The options of the launchers for clusters, checked before anything is submitted."""

import re
from collections.abc import Mapping
from typing import Any

from optbench.common.errors import UserError

UNITS = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1, "": 1}


def seconds_of(key: str, text: object) -> float:
    """Return a time such as 3h, 1h30m, 90m or 45s in seconds. key: names it in errors."""
    given = str(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([a-z]*)", given)
    if "".join(number + unit for number, unit in parts) != given or not parts:
        raise UserError(f"{key} must be a time such as 3h, 90m, 45s or 1h30m, not {given!r}")
    if wrong := [unit for _, unit in parts if unit not in UNITS]:
        raise UserError(f"{key} {given}: {wrong[0]!r} is no unit; d, h, m, min and s are")
    if len(parts) > 1 and not all(unit for _, unit in parts):
        raise UserError(f"{key} {given}: each number needs its unit, as in 1h30m")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise UserError(f"{key} must be longer than no time, not {given}")
    return seconds


def slurm(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked options of `hydra/launcher=slurm`.

    Raises `UserError` for bad options.
    """
    for key, least in (("jobs", 1), ("cpus", 1), ("requeues", 0)):
        check_whole(key, given[key], least)
    if given["gpus"] is not None:
        check_whole("gpus", given["gpus"], 0)
    for key in ("partition", "account", "constraint", "mem"):
        if not isinstance(given[key], str | int | None):
            raise UserError(f"hydra.launcher.{key} must be a text or null, not {given[key]!r}")
    setup = given["setup"]
    lines = [setup] if isinstance(setup, str) else setup
    return {**given, "time": seconds_of("hydra.launcher.time", given["time"]), "setup": lines}


def ray(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked options of `hydra/launcher=ray`.

    Raises `UserError` for bad options.
    """
    if given["jobs"] is not None:
        check_whole("jobs", given["jobs"], 1)
    check_whole("cpus", given["cpus"], 1)
    check_whole("retries", given["retries"], -1)
    gpus = given["gpus"]
    number = isinstance(gpus, int | float) and not isinstance(gpus, bool)
    if gpus is not None and not (number and gpus >= 0):
        raise UserError(f"hydra.launcher.gpus must be a number of GPUs, or a part: not {gpus!r}")
    return dict(given)


def check_whole(key: str, value: object, least: int) -> None:
    """Raise `UserError` for a value that is no whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(
            f"hydra.launcher.{key} must be a whole number of at least {least}, not {value!r}"
        )

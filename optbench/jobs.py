"""The jobs of a sweep, from Hydra's configuration to a line in the sweep's list of jobs."""

import sys
import traceback
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from optbench import sweep
from optbench.errors import UserError
from optbench.overrides import check_keys, explain, own_keys
from optbench.progress import say

GO_ON = "interrupted; the same command goes on with what is missing"


def config_folder() -> Path:
    """`conf/`: beside the package in a checkout, inside it where it is installed."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def resolve(cfg: DictConfig, overrides: list[str]) -> dict[str, Any]:
    """The configuration as plain values, without Hydra's own.

    Raises `UserError` for keys that mean nothing.
    """
    resolved: dict[str, Any] = {}
    try:
        for key in cfg:
            if key == "hydra":
                continue
            value = cfg[key]
            if OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
            resolved[str(key)] = value
    except OmegaConfBaseException as error:
        raise UserError(explain(error, config_folder())) from error
    check_keys(resolved, config_folder())
    return own_keys(resolved, overrides)


def run(
    cfg: DictConfig, overrides: list[str], folder: Path, subfolder: str, number: int
) -> dict[str, Any]:
    """One run of a sweep in this process: its failure is recorded, and the sweep goes on."""
    label = sweep.label(folder, number, overrides)
    outcome = error = None
    try:
        config = resolve(cfg, overrides)
        from optbench import experiment

        outcome = experiment.run(config, folder / subfolder, label=label)
    except Exception as raised:
        error = reason(raised)
    record = settle(folder, label, overrides, outcome, error, quiet=cfg.quiet)
    if outcome and outcome.status == "diverged" and not outcome.known:
        say(f"{label}  diverged")
    if outcome and outcome.signal:
        print(GO_ON, file=sys.stderr)
        sys.exit(128 + outcome.signal)
    return record


def reason(error: Exception) -> str:
    """An exception in words for the user; with its traceback where it is no mistake of theirs."""
    if isinstance(error, UserError):
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def settle(
    folder: Path,
    label: str,
    overrides: list[str],
    outcome: Any,
    error: str | None,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Record how a job ended, by its `experiment.Outcome` or an error, and say what is unusual."""
    record: dict[str, Any] = {"overrides": overrides, "status": "failed", "run": None}
    if outcome is not None:
        record |= {"status": outcome.status, "run": outcome.folder.name}
        if outcome.known and not quiet:
            say(f"{label}  already done ({outcome.status})")
    record["error"] = error
    sweep.record_job(folder, record)
    if error:
        print(f"{label}  failed: {error}", file=sys.stderr, flush=True)
    return record

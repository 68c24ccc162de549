"""One job of a sweep, from its configuration to a line in the list of jobs."""

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from optbench.common.console import say
from optbench.common.errors import UserError, reason
from optbench.config.resolve import resolve
from optbench.formats import job_list
from optbench.formats.keys import RunConfig
from optbench.formats.run import read_record
from optbench.sweeps.progress import Tally

RESUME_HINT = "interrupted; the same command resumes the unfinished runs"
STOPPED_HINT = (
    "stopped at the first failure, as stop_at_failure=true asks; the same command tries the failed "
    "run again and resumes the unfinished runs; with retry=none it leaves the failed run out"
)
UNLOGGED_HINT = ", and not logged again: force=true runs it and logs it"
RETRY_HINT = " (it failed before; retry=failed tries it again)"
_tallies: dict[Path, Tally] = {}  # by the folders of this process's sweeps


def run(
    cfg: DictConfig, overrides: list[str], folder: Path, subfolder: str, number: int
) -> dict[str, Any]:
    """Run one job of a sweep in this process, and record its outcome or failure."""
    label = job_list.label(folder, number, overrides)
    if number == 0 or folder not in _tallies:
        _tallies[folder] = Tally(folder)
    tally = _tallies[folder]
    outcome = error = None
    try:
        config = resolve(cfg, overrides)
        check_retry(config, overrides, folder)
        from optbench.runner import run as experiment
        from optbench.sweeps.engine_choice import chosen

        tally.begin(label)
        outcome = experiment.run(
            config, folder / subfolder, label=label, chosen=chosen(folder, config)
        )
    except Exception as raised:
        error = reason(raised)
    record = record_outcome(folder, label, number, overrides, outcome, error, quiet=cfg.quiet)
    if outcome and outcome.known:
        tally.running.clear()  # a reused run took no time
    tally.end(label, record["status"])
    if not cfg.quiet:
        if outcome and outcome.status == "diverged" and not outcome.known:
            say(f"{label}  {ending(outcome)}")
        tally.tell()
    if outcome and outcome.signal:
        say(RESUME_HINT, error=True)
        sys.exit(128 + outcome.signal)
    if stops(cfg, record):
        say(STOPPED_HINT, error=True)
        sys.exit(1)
    return record


def ending(outcome: Any) -> str:
    """Return how a run ended (an `Outcome`), as in "diverged at step 2"."""
    step = None
    if outcome.status == "diverged":
        with suppress(OSError, ValueError):
            step = read_record(outcome.folder / "run.json")["diverged_at_step"]
    return str(outcome.status) + ("" if step is None else f" at step {step}")


def stops(config: DictConfig, record: Mapping[str, Any]) -> bool:
    """Return whether a job stops the sweep, since it failed in this call.

    record: the result of `record_outcome`.
    """
    known = str(record["error"]).endswith(RETRY_HINT)
    return bool(config.stop_at_failure) and record["status"] == "failed" and not known


def check_retry(config: RunConfig, overrides: list[str], folder: Path) -> None:
    """Raise `UserError` for a job that failed before, if retry=none."""
    if config["retry"] != "none" or config["force"]:
        return
    for before in job_list.failed(folder):
        if job_list.job_identity(before["overrides"]) == job_list.job_identity(overrides):
            raise UserError(f"{before['error']}".removesuffix(RETRY_HINT) + RETRY_HINT)


def record_outcome(
    folder: Path,
    label: str,
    number: int,
    overrides: list[str],
    outcome: Any,
    error: str | None,
    *,
    quiet: bool,
    run_id: str | None = None,
    write: bool = True,
) -> dict[str, Any]:
    """Record how a job ended (an `Outcome` or an error), and say what is unusual.

    run_id: the run's identity, if the job was planned. write: False if another worker has recorded
    the outcome.
    """
    record: dict[str, Any] = {"job": number, "overrides": overrides}
    if run_id is not None and job_list.shared.call:
        record["run_id"] = run_id
    record |= {"status": "failed", "run": None}
    if outcome is not None:
        record |= {"status": outcome.status, "run": outcome.folder.name}
        if outcome.engines:
            record["engines"] = outcome.engines  # reported at the sweep's end
        if outcome.known and not quiet:
            asked = any(text.lstrip("+").startswith("logger") for text in overrides)
            say(f"{label}  already done ({ending(outcome)}){UNLOGGED_HINT if asked else ''}")
    record["error"] = error
    try:
        job_list.record(folder, record, write=write)
    except OSError as raised:  # other jobs continue; the sweep's end counts unwritten jobs
        job_list.unwritten.append(record)
        where = folder / job_list.JOBS_FILE
        say(f"{label}  cannot be added to {where}: {raised.strerror or raised}", error=True)
    if error:
        before = [job["error"] for job in job_list.ended[:-1] if job["error"]]
        if before[-1:] != [error]:
            say(f"{label}  failed: {error}", error=True)
        elif before[-2:-1] != [error]:
            say(
                f"{label}  failed as above; so may others, which the sweep's end counts", error=True
            )
    return record

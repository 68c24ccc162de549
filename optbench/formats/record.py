"""The content of `run.json` as a type: what was asked, what it is called, and how it ended."""

from collections.abc import Mapping
from typing import Any, Required, TypedDict

STEPS_BY = {"dense.cpp": "compiled_mlp", "torch": "plain"}  # how older records named engines


class RunRecord(TypedDict, total=False):
    """A run's record. Keys that `formats.run.read_record` does not check may hold anything."""

    format: int
    run_id: Required[str]
    problem_hash: Required[str]
    name: Required[str]  # of the optimizer
    seed: Required[int]
    # the configuration, of a version of optbench that may have had other keys; and its problem
    config: Required[dict[str, Any]]
    problem: Required[dict[str, Any]]
    settings_hash: str  # of all but the data's bytes and the code
    code: Any  # of the user's own: `formats.older_code.code_in` reads it
    code_folder: Any  # that it was found in, where that was not the current one
    status: Required[str]
    error: Any
    diverged_at_step: Any
    device: str | None
    engine: str | None  # A+B: of a run that A began and B went on with
    num_threads: Any
    products: Any
    cohort: int | None  # how many runs an older version trained at once
    cost: Any  # of an optimizer's step: `training.step_cost`
    versions: dict[str, Any] | None
    machine: Any
    git_commit: Any
    started: str | None
    finished: str | None
    resumed: Any  # times
    reused: Any  # when it was last asked for and found done
    process_died: Any
    summary: dict[str, Any] | None
    csv_sha256: Any  # file: digest


def engine_of(record: Mapping[str, Any]) -> str | None:
    """Return the name of what took a run's steps, "plain" for torch; None: its record says none."""
    engine = record.get("engine") or STEPS_BY.get(str(record.get("steps_by")))
    return engine if isinstance(engine, str) else None

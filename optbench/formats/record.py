"""The type of `run.json`: a run's configuration, identity and outcome."""

from typing import Any, Required, TypedDict

FINISHED = ("completed", "diverged")  # statuses of a run that took all its steps
# failed: the process died or could not write; a run whose code failed leaves no checkpoint
UNFINISHED = ("running", "interrupted", "failed")
TORCH_COMPILE = "torch_compile"  # the engine of compile=true
OLDER_ENGINE_NAMES = {"dense.cpp": "compiled_mlp", "torch": "plain"}  # in the key `steps_by`


class PlannedRecord(TypedDict, total=False):
    """The beginning of a run's record, which is known before the first step."""

    run_id: Required[str]
    problem_hash: Required[str]
    name: Required[str]  # the optimizer's
    seed: Required[int]
    # earlier versions of optbench had other keys
    config: Required[dict[str, Any]]
    problem: Required[dict[str, Any]]
    settings_hash: str  # of all settings, without the data's bytes and the code
    code: Any  # the user's own; `formats.older_code.code_in` reads it
    code_folder: Any  # the folder of that code, where it is not the current one
    metrics: list[str]  # the task's, beside loss and accuracy
    counted: list[str]  # the columns of passes that the run's CSV files have
    device: str | None
    num_threads: Any
    products: Any
    engine: str | None  # A+B: A began the run, and B resumed it
    reference: Any  # the train_loss of the solution in closed form, of linear models


class Stop(TypedDict):
    """Why a run ended before its budget of steps, and after which step."""

    by: str
    step: int


class RunRecord(PlannedRecord, total=False):
    """A run's record. Keys that `read_record` does not check may hold anything."""

    format: int
    status: Required[str]
    error: Any
    diverged_at_step: Any
    stopped: Stop | None
    target_reached: Any  # whether a run with stop_at reached it
    cohort: int | None  # how many runs an older version trained together
    cost: Any  # of an optimizer's step; see `training.step_cost`
    peak_bytes: Any  # of memory while the run trained; see `runner.peak_memory`
    versions: dict[str, Any] | None
    machine: Any
    git_commit: Any
    started: str | None
    finished: str | None
    resumed: Any  # the times when the run was resumed
    reused: Any  # the last time when a command reused the finished run
    process_died: Any
    summary: dict[str, Any] | None
    csv_sha256: Any  # digests by file
    imported: Any  # from which table, its seed, and whether paired: optbench did not train the run


def engine_of(record: PlannedRecord) -> str | None:
    """Return the name of a run's engine, "plain" for torch; None if not recorded."""
    engine = record.get("engine") or OLDER_ENGINE_NAMES.get(str(record.get("steps_by")))
    return engine if isinstance(engine, str) else None


def keys_of(engine: str) -> dict[str, Any]:
    """Return the config keys that ask for an engine."""
    compiled = engine == TORCH_COMPILE
    return {"engine": "plain" if compiled else engine, "compile": compiled}


def setting_of(engine: str) -> str:
    """Return the words of the command line that ask for an engine."""
    return "compile=true" if engine == TORCH_COMPILE else f"engine={engine}"

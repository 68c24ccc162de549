"""The question of a sweep: whether a candidate beats its baselines.

The question is checked before anything is trained.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from optbench.common.errors import UserError
from optbench.common.names import nearest, proposing
from optbench.formats.groups import choices, read_yaml
from optbench.formats.run import (
    AVERAGED_COLUMNS,
    COLUMNS,
    COUNTED,
    METRIC_COLUMNS,
    SHARPNESS_COLUMNS,
)
from optbench.formats.study import figure_of
from optbench.sweeps import grid

KNOWN_SWEEPERS = ("grid", "basic", "tuned")  # others decide during the sweep
LIST_HINT = "several baselines are a list, as in 'baseline=[adamw,sgd]'"


def asked(config: DictConfig) -> dict[str, Any]:
    """Return the candidate and its baselines for `figure.json`; {} if none is named.

    Raises `UserError` for names that are no texts, and for baselines without a candidate.
    """
    candidate = config.get("candidate")
    given = config.get("baseline")
    plain: Any = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    names = [plain] if isinstance(plain, str) else plain
    if names is not None and not (
        isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    ):
        raise UserError(f"baseline must be the name of an optimizer, or a list: {LIST_HINT}")
    if not isinstance(candidate, str | None):
        raise UserError(f"candidate must be the name of one optimizer, not {candidate!r}")
    if candidate is None and names:
        raise UserError("baseline needs the optimizer that is judged: candidate=NAME")
    return {} if candidate is None else {"candidate": candidate, "baseline": names}


def of_folder(sweep: Path) -> dict[str, Any]:
    """Return the candidate and baselines that an earlier command named for this folder, or {}."""
    with suppress(UserError):
        found = figure_of([sweep])
        return {key: found[key] for key in ("candidate", "baseline") if key in found}
    return {}


def check(config: DictConfig, planned: Sequence[Sequence[str]] | None) -> None:
    """Raise `UserError` for a candidate or baseline that the sweep does not run.

    planned: the overrides of each job, or None where the sweeper plans by itself.
    """
    found = asked(config)
    if not found:
        return
    sweeper = config.hydra.runtime.choices.get("hydra/sweeper")
    default = str(config.hydra.runtime.choices.get("optimizer"))
    if planned is None and sweeper in KNOWN_SWEEPERS:
        planned = grid.all_jobs(config)
    if planned is None:
        return
    known = list(dict.fromkeys(names_in(planned, default)))
    candidate, baselines = found["candidate"], found["baseline"] or []
    for key, name in [("candidate", candidate), *(("baseline", name) for name in baselines)]:
        if name not in known:
            raise UserError(
                f"{key}={name} is no optimizer of this sweep{proposing(name, known)}It has: "
                f"{', '.join(known)}"
            )
    if candidate in baselines:
        raise UserError(f"{candidate} is the candidate and a baseline: name two optimizers")
    if len(known) < 2:
        raise UserError(f"the sweep has {candidate} alone: add a baseline to optimizer={candidate}")


def check_claim(claim: Any, config: DictConfig, planned: Sequence[Sequence[str]] | None) -> None:
    """Raise `UserError` for an optimizer or a column that a claim of the study misspells."""
    checks = claim.get("checks") if isinstance(claim, dict) else None
    if not isinstance(checks, list) or planned is None:
        return
    default = str(config.hydra.runtime.choices.get("optimizer"))
    optimizers = list(dict.fromkeys(names_in(planned, default)))
    columns = [name for names in COLUMNS.values() for name in names]
    columns += [*METRIC_COLUMNS, *AVERAGED_COLUMNS, *SHARPNESS_COLUMNS, *COUNTED]
    for check in filter(lambda check: isinstance(check, dict), checks):
        for side in ("lower", "higher", "than", "equal", "to"):
            own = check.get(side)
            name = own.get("optimizer") if isinstance(own, dict) else None
            if isinstance(name, str) and name not in optimizers:
                raise UserError(
                    f"the claim speaks of optimizer={name}, which the sweep does not run"
                    f"{proposing(name, optimizers)}It has: {', '.join(optimizers)}"
                )
        for part in str(check.get("value", "")).split("/"):
            name = part.strip()
            if name not in columns and (near := nearest(name, columns)):
                raise UserError(f"the claim's value {name!r} is no column. Did you mean {near[0]}?")


def names_in(planned: Sequence[Sequence[str]], default: str) -> Iterator[str]:
    """Yield the label of each job's optimizer."""
    files = choices("optimizer")
    for words in planned:
        given = dict(word.lstrip("+").partition("=")[::2] for word in words)
        choice = given.get("optimizer", default)
        if "optimizer.name" in given:
            yield given["optimizer.name"].strip("'\"")
        elif "optimizer._target_" in given:
            yield given["optimizer._target_"].strip("'\"").rpartition(".")[2]
        elif choice in files:
            yield str(read_yaml(files[choice]).get("name", choice.replace("/", "_")))
        else:
            yield choice

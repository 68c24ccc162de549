"""Write a study's trials as an Optuna study, which optuna-dashboard opens."""

import warnings
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

from optbench.common.console import warn
from optbench.common.metrics import metric_of
from optbench.formats.keys import TuningConfig
from optbench.tuning.caveats import label_of
from optbench.tuning.contenders import RUNG, Contender, Trial
from optbench.tuning.space import path, ranges, value_at

OPTUNA_FILE = "optuna.db"  # SQLite


def write(folder: Path, searches: Sequence[Contender], settings: TuningConfig) -> None:
    """Write `optuna.db` into the study's folder: an Optuna study for each search.

    Nothing is written without Optuna (the extra `tuning`). A file that cannot be written costs a
    warning, since the study does not need it.
    """
    try:
        import optuna
    except ImportError:
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    target = folder / OPTUNA_FILE
    try:
        target.unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = optuna.storages.RDBStorage(f"sqlite:///{target}")
            for entry in searches:
                study = optuna.create_study(
                    storage=storage,
                    study_name=_name(entry, searches),
                    direction="minimize" if metric_of(settings["metric"]).smaller else "maximize",
                )
                study.add_trials([_trial(entry, trial, settings) for trial in entry.trials])
            storage.engine.dispose()
    except Exception as error:  # of the database or of Optuna, any of many classes
        warn(f"{target} could not be written ({type(error).__name__}: {error})")


def _name(entry: Contender, searches: Sequence[Contender]) -> str:
    return f"{label_of(entry, searches)} search {entry.repeat + 1}"


def _trial(entry: Contender, trial: Trial, settings: TuningConfig) -> Any:
    """Return a frozen trial of Optuna, with the parameters that lie in their ranges."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    params, kinds = {}, {}
    for name, part, spec in ranges(entry.space):
        value = value_at(trial.point, name, part)
        label = path(name) + ("" if part is None else f"[{part}]")
        log = spec.get("scale") == "log"
        if "values" in spec:
            kind: Any = CategoricalDistribution(list(spec["values"]))
            inside = value in spec["values"]
        elif value is None or not spec["low"] <= value <= spec["high"]:
            continue  # such as a default weight decay of 0, which no logarithmic range holds
        elif spec.get("int"):
            inside = True
            kind = IntDistribution(int(spec["low"]), int(spec["high"]), log=log)
        else:
            inside = True
            kind = FloatDistribution(float(spec["low"]), float(spec["high"]), log=log)
        if inside:
            params[label], kinds[label] = value, kind
    sign = 1 if metric_of(settings["metric"]).smaller else -1
    done = trial.score < inf
    pruned = trial.kind == RUNG
    return create_trial(
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE if done else TrialState.FAIL,
        value=sign * trial.score if done and not pruned else None,
        params=params,
        distributions=kinds,
        user_attrs={"kind": trial.kind, "point": trial.point, "runs": list(trial.run_ids)},
    )

"""Hydra's launchers for joblib and submitit give the results of `workers`."""

from importlib.util import find_spec

import pytest
from cluster_commands import TINY, finish, tables

LAUNCHERS = {
    "joblib": ("hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
    "submitit_local": ("hydra_submitit_launcher", ["hydra.launcher.timeout_min=10"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_of_others_gives_the_same_results(command, place, name):
    package, options = LAUNCHERS[name]
    if find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{package}") is None:
        pytest.skip(f"pip install {package.replace('_', '-')}")
    words = ["-m", *TINY, "optimizer=sgd,adam", "results_dir=."]
    finish(command(*words, "name=ours", "hydra.launcher.workers=1"))
    finish(command(*words, "name=theirs", f"hydra/launcher={name}", *options))
    ours, theirs = tables(place / "ours"), tables(place / "theirs")
    assert len(ours) == 2
    assert [rows for _, rows in sorted(ours.items())] == [
        rows for _, rows in sorted(theirs.items())
    ]


@pytest.mark.slow
def test_a_launcher_of_others_does_a_tuned_study(command, place):
    if find_spec("hydra_plugins.hydra_joblib_launcher") is None:
        pytest.skip("pip install hydra-joblib-launcher")
    words = [
        "-m", *TINY, "hydra/sweeper=tuned", "optimizer=sgd,adam", "tuning.trials=2",
        "tuning.repeats=2", "seeds=1", "results_dir=.",
    ]  # fmt: skip
    finish(command(*words, "name=ours", "hydra.launcher.workers=1"))
    finish(command(*words, "name=theirs", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"))
    assert tables(place / "ours") == tables(place / "theirs")

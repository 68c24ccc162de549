"""Runs keep their identity: `identities.json` was written before the config keys had one table.

Only models with dropout, whose masks are drawn otherwise now, have a newer one.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from optbench.config.hydra_internals import VERSION_BASE
from optbench.config.resolve import resolve
from optbench.formats.groups import config_folder
from optbench.runner import run
from optbench.sweeps.folder import folder_of
from optbench.tasks import Classes

FILE = Path(__file__).with_name("identities.json")
GROUPS = ("model", "dataset", "loss", "initializer", "optimizer", "schedule", "problem")
OVERRIDES = [
    "seed=3", "steps=7", "epochs=3", "batch_size=full", "shuffle=fixed_order", "drop_last=true",
    "precision=float64", "weight_penalty=0.1", "preprocessing=scale", "data.root=/somewhere",
    "data.download=false", "data.val_size=100", "data.split_seed=1", "data.subset=50",
    "data.targets=inputs", "decay_biases_and_norms=false", "num_threads=1",
    "diagnostics=layers", "log.steps=1", "log.eval_epochs=2", "log.eval_train_examples=9",
    "log.layer_steps=5", "log.eval_test=end", "tuning.trials=3", "tuning.metric=val_accuracy",
    "seeds=2", "phase=tuned", "results_dir=elsewhere", "name=mine", "checkpoint_seconds=null",
    "force=true", "retry=none", "quiet=true", "figure.y=val_loss", "figure.log=false",
    "+claim.text=words", "optimizer.lr=0.5", "optimizer.search.lr.low=0.01",
    "optimizer._target_=torch.optim.NAdam", "optimizer=sgd optimizer.name=other",
    "initializer=normal initializer.weight._target_=torch.nn.init.trunc_normal_",
    "dataset=mnist dataset.root=/mine", "model=cnn model.batch_norm=true seed=1",
    "optimizer=muon schedule=authors",
    "drop_last=true data.targets=inputs weight_penalty=1e-3 log.layer_steps=2",
]  # fmt: skip


def cases() -> list[list[str]]:
    """No override, each choice of each group, each key once, and some together."""
    conf = config_folder()
    choices = [
        [f"{group}={path.relative_to(conf / group).with_suffix('').as_posix()}"]
        for group in GROUPS
        for path in sorted((conf / group).rglob("*.yaml"))
        if path.stem != "authors"  # which adam does not have: with muon, below
    ]
    return [[], *choices, *(text.split() for text in OVERRIDES)]


def identity(overrides: list[str]) -> dict[str, Any]:
    """The hashes of a run with these overrides, and the folder of a sweep with them."""
    with initialize_config_dir(str(config_folder()), **VERSION_BASE):
        composed = compose("config", [*overrides, "device=cpu"], return_hydra_config=True)
    config = resolve(composed, overrides)
    data: Any = SimpleNamespace(digest="data", task=Classes(10))
    planned = run.plan(config, Path("group"), load=lambda config: data, find=lambda *_: None)
    hashes = {key: planned.record[key] for key in ("run_id", "problem_hash", "settings_hash")}
    return hashes | {"sweep": str(folder_of(composed))}


def identities() -> dict[str, dict[str, Any]]:
    """`identity` of every case."""
    return {" ".join(overrides): identity(overrides) for overrides in cases()}


@pytest.mark.parametrize("overrides", cases(), ids=" ".join)
def test_runs_keep_their_identity(overrides, monkeypatch):
    monkeypatch.delenv("OPTBENCH_RESULTS", raising=False)
    monkeypatch.delenv("OPTBENCH_DATA", raising=False)
    known = json.loads(FILE.read_text("utf-8"))
    assert identity(overrides) == known[" ".join(overrides)]


def test_deterministic_runs_keep_their_identity(monkeypatch):
    monkeypatch.delenv("OPTBENCH_RESULTS", raising=False)
    known = json.loads(FILE.read_text("utf-8"))
    try:
        assert identity(["deterministic=true"]) == known["deterministic=true"]
    finally:
        torch.use_deterministic_algorithms(False)

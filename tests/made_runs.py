"""Run folders with made-up curves: `make_run` makes one, `sweep` one for each name and seed."""

import copy
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

CONFIG: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [256, 128], "activation": "relu", "batch_norm": False},
    "dataset": {"name": "mnist_5k"},
    "preprocessing": "standardize",
    "data": {"val_size": 0.1, "split_seed": 0, "subset": None},
    "loss": {"name": "cross_entropy"},
    "initializer": {"name": "default"},
    "schedule": {"name": "constant"},
    "batch_size": 128,
    "epochs": 10,
    "steps": None,
    "precision": "float32",
    "decay_biases_and_norms": True,
}
PROBLEM = ("model", "dataset", "preprocessing", "data", "loss", "initializer", "batch_size")
PROBLEM += ("epochs", "steps", "precision")
SPEED = {"sgd": 0.25, "momentum": 0.6, "nesterov": 0.65, "adagrad": 0.5, "rmsprop": 0.75}
SPEED |= {"adadelta": 0.55, "adam": 0.9}
SEVEN = tuple(SPEED)


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def set_key(tree: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    for name in path:
        tree = tree.setdefault(name, {})
    tree[last] = value


def make_run(
    folder: Path,
    name: str = "adam",
    seed: int = 0,
    lr: float = 0.001,
    diverged_at: int | None = None,
    every: int = 1,
    data_digest: str = "d0",
    finished: str = "2026-01-01T00:00:00+00:00",
    record: dict[str, Any] | None = None,
    **keys: object,
) -> Path:
    """One run folder with made-up curves. `keys`: config keys with "__" for the dot. `every`:
    a row of steps.csv per that many steps."""
    config = copy.deepcopy(CONFIG) | {"seed": seed}
    config["optimizer"] = {"name": name, "_target_": f"torch.optim.{name}", "lr": lr}
    for key, value in keys.items():
        set_key(config, key.replace("__", "."), value)
    problem = {key: config[key] for key in PROBLEM} | {"data_digest": data_digest}
    epochs, per_epoch = config["epochs"], 36
    random = np.random.default_rng(int(digest([config, problem]), 16))
    speed = SPEED.get(name, 0.4) * math.exp(-0.15 * math.log10(lr / 0.003) ** 2)
    speed *= 1.5 if config["model"]["batch_norm"] else 1.0
    step = np.arange(epochs * per_epoch + 1)
    loss = 2.3 * (1 + step / 6) ** (-speed * 0.9) * np.exp(random.normal(0, 0.04) * step**0.2)
    if diverged_at is not None:
        step = step[: diverged_at + 1]
        loss = loss[: diverged_at + 1] * np.exp(np.maximum(0, step - diverged_at + 40) * 0.4)
        loss[-1] = math.nan
    seconds = step * 0.01 * (1 + random.random() * 0.05)
    rows = [index for index in step if index % per_epoch == 0 or index == step[-1]]
    table = pd.DataFrame(
        {
            "epoch": step[rows] / per_epoch,
            "step": step[rows],
            "train_loss": loss[rows],
            "train_accuracy": 1 - np.clip(loss[rows], 0, 2.3) / 2.6,
            "running_loss": loss[rows] * 1.1,
            "val_loss": loss[rows] + 0.05,
            "val_accuracy": 0.98 - np.clip(loss[rows], 0, 2.3) / 2.6,
            "test_loss": loss[rows] + 0.06,
            "test_accuracy": 0.97 - np.clip(loss[rows], 0, 2.3) / 2.6,
            "seconds": seconds[rows],
            "total_seconds": seconds[rows] * 1.3,
        }
    )
    folder.mkdir(parents=True)
    text = table.to_csv(index=False, na_rep="nan").splitlines()
    cells = text[1].split(",")
    cells[4] = ""  # no running mean before the first step
    text[1] = ",".join(cells)
    (folder / "epochs.csv").write_text("\n".join(text) + "\n")
    noisy = loss * np.exp(random.normal(0, 0.15, len(loss)))
    steps = pd.DataFrame({"step": step, "epoch": step / per_epoch, "train_loss": noisy})
    steps["lr"], steps["seconds"] = lr, seconds
    steps[steps["step"] % every == 0].to_csv(folder / "steps.csv", index=False, na_rep="nan")
    run = {
        "format": 1,
        "run_id": digest([config, problem]),
        "problem_hash": digest(problem),
        "name": name,
        "seed": seed,
        "status": "completed" if diverged_at is None else "diverged",
        "error": None,
        "diverged_at_step": diverged_at,
        "config": config,
        "problem": problem,
        "versions": {},
        "device": "cpu",
        "git_commit": None,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": finished,
        "summary": {},
    }
    (folder / "run.json").write_text(json.dumps(run | (record or {})))
    return folder


def sweep(folder: Path, names: tuple[str, ...] = SEVEN, seeds: int = 3, **keys: Any) -> Path:
    start = sum(1 for _ in folder.glob("*"))
    for index, (name, seed) in enumerate((n, s) for n in names for s in range(seeds)):
        make_run(folder / f"{start + index:03d}", name, seed, **keys)
    return folder

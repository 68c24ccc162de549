"""Train one optimizer class of a package by the command line, beside a plain loop."""

import contextlib
import csv
import importlib
import importlib.metadata
import io
import json
import os
import re
import signal
import tempfile
import time
from math import isfinite
from pathlib import Path

import torch
from composed import configuration
from plain_loop import SEED, plain_losses
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench import optimizers
from optbench.common.errors import UserError
from optbench.config import build
from optbench.formats.keys import RunConfig
from optbench.runner import run
from optbench.training.setup import budget_of

STEPS, STOP_AT = 40, 23
EVALUATED = (20, 40)  # steps, of 20 batches in two epochs
PACKAGES = {  # PyPI name: Python name
    "pytorch-optimizer": "pytorch_optimizer",
    "torch_optimizer": "torch_optimizer",
    "schedulefree": "schedulefree",
    "prodigyopt": "prodigyopt",
    "lion-pytorch": "lion_pytorch",
    "heavyball": "heavyball",
}
MANNERS = {
    "gradients": "gradients, then step()",
    "closure": "step(closure)",
    "both": "gradients, then step(closure)",
    "graph": "gradients with their graph, then step()",
}
Row = dict[str, str]


class Net(nn.Module):
    """A network with parameters of 1, 2 and 4 dimensions, and the global RNG's masks."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 3, 5, stride=3)
        size = self.conv(torch.zeros(1, *shape)).numel()
        self.hidden, self.norm = nn.Linear(size, 12), nn.LayerNorm(12)
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.hidden(torch.relu(self.conv(x)).flatten(1)))
        out: Tensor = self.head(self.dropout(torch.tanh(x)))
        return out


def classes(module: str) -> list[type[Optimizer]]:
    """Return the optimizers of an installed package, sorted by name."""
    package = importlib.import_module(module)
    if module == "pytorch_optimizer":
        names = package.get_supported_optimizers()
        return [package.load_optimizer(name) for name in sorted(names)]
    if module == "heavyball":
        package.utils.compile_mode = None  # torch.compile takes minutes for each class
    found = {
        id(value): value
        for value in vars(package).values()
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
    }
    return sorted(found.values(), key=lambda cls: cls.__name__)


def in_child(cls: type[Optimizer], seconds: float) -> Row:
    """Return `examine` in a process that is killed after `seconds`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if (child := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                with (folder / "log").open("w") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                (folder / "row.json").write_text(json.dumps(examine(cls, folder)))
            os._exit(0)
        end = time.monotonic() + seconds
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return _row("failed", f"it took longer than {seconds:g} s")
            time.sleep(0.02)
        if not (folder / "row.json").exists():
            return _row("failed", "its process ended without a result")
        row: Row = json.loads((folder / "row.json").read_text())
        return row


def examine(cls: type[Optimizer], folder: Path) -> Row:
    """Train with a class twice, once stopped and resumed, and by plain loops."""
    try:
        words = [f"optimizer._target_={cls.__module__}.{cls.__qualname__}"]
        config = command_line(words)
        whole, _ = train(config, folder / "whole")
        if train(config, folder / "again")[0] != whole:
            return _row("differs", "two runs of one seed differ")
        resumed, said = train(config, folder / "resumed", stop=True)
        lines = [line for line in said.splitlines() if "restarts from" in line or "anew" in line]
        if resumed != whole:
            return _row("differs", "resumed, it goes on to other losses")
        manners = equal_manners(config, folder, whole)
        if not manners:
            return _row("differs", f"from each plain loop (first losses: {whole[:4]})")
        restarts = re.sub(r"\S*/resumed/\S+: ", "", lines[0]) if lines else ""
        outcome = "equal, restarts" if lines else "equal, resumed"
        return _row(outcome, restarts, manners) | costs(folder / "whole")
    except UserError as error:
        return _row("refused", str(error))
    except BaseException as error:
        return _row("failed", f"{type(error).__name__}: {error}")


def costs(folder: Path) -> Row:
    """Return what a run's steps cost: state bytes a parameter, and gradients a step."""
    (record,) = folder.rglob("run.json")
    cost = json.loads(record.read_text("utf-8"))["cost"]
    with (record.parent / "steps.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    gradients = int(last["gradients"]) / int(last["step"])
    state = f"{cost['state_bytes'] / cost['parameters']:.1f}" if cost else ""
    return {"state_bytes": state, "gradients": f"{gradients:g}"}


def _row(outcome: str, sentence: str = "", manners: str = "") -> Row:
    sentence = re.sub(r"/\S*/(site|dist)-packages/", "", " ".join(sentence.split()))
    return {"outcome": outcome, "manner": manners, "sentence": sentence}


def command_line(words: list[str]) -> RunConfig:
    """Return the configuration of a command line with these words, on a small problem."""
    return configuration(
        f"model._target_={__name__}.Net", "data.subset=360", "data.val_size=40", "batch_size=16",
        f"steps={STEPS}", "log.steps=1", "log.eval_epochs=1", "quiet=true", "device=cpu",
        f"seed={SEED}", "num_threads=1", *words,
    )  # fmt: skip


def train(config: RunConfig, folder: Path, *, stop: bool = False) -> tuple[list[str], str]:
    """Return each step's loss as text, and the output. stop: stop once, then resume."""
    config = config | {"results_dir": str(folder)}
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard):
        if stop:
            calls = iter(range(1, 10**6))
            planned = run.plan(config, folder)
            run.complete(planned, lambda update: None, lambda: next(calls) >= STOP_AT)
        outcome = run.run(config, folder)
    with (outcome.folder / "steps.csv").open() as file:
        losses = [row["train_loss"] for row in csv.DictReader(file)]
    assert len(losses) == STEPS or not isfinite(float(losses[-1])), f"{len(losses)} steps"
    return losses, heard.getvalue()


def equal_manners(config: RunConfig, folder: Path, whole: list[str]) -> str:
    """Return the manners of a plain loop that give the run's losses to the last bit."""
    planned = run.plan(config | {"force": True, "results_dir": str(folder)}, folder)
    problem = run.arguments(planned)["problem"]
    found = []
    for manner, words in MANNERS.items():
        make = build.build("optimizer", config["optimizer"])
        make = optimizers.with_budget(make, budget_of(problem))
        with contextlib.suppress(Exception):  # a class may not support the manner
            losses = plain_losses(problem, make, manner, steps=STEPS, evaluated=EVALUATED)
            if [float(text) for text in whole] == [float(f"{loss:.9g}") for loss in losses] or (
                whole[-1] == "nan" and whole[:-1] == [f"{loss:.9g}" for loss in losses[:-1]]
            ):
                found.append(words)
    return "; ".join(found)

"""The checks of an optimizer: a Lion of 20 lines passes; each deliberate bug turns its row red."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from in_process import sub_command
from torch.optim import Optimizer

from optbench.checking import checked
from optbench.checking.rows import CHECKS
from optbench.checking.subjects import Subject

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "my-optimizer.md").read_text("utf-8")
FILES = dict(re.findall(r"```\w+\n# (\S+\.(?:yaml|py))\n(.*?)```", PAGE, re.S))
check = sub_command("check")


class Lion(Optimizer):
    """The page's class, cut into parts that a bug replaces."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def groups(self):
        return self.param_groups

    def momentum(self, p):
        return self.state[p].setdefault("momentum", torch.zeros_like(p))

    def update(self, m, gradient, beta1):
        return m.lerp(gradient, 1 - beta1).sign()

    def lr(self, group):
        return group["lr"]

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.groups():
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is not None:
                    m = self.momentum(p)
                    p.mul_(1 - self.lr(group) * group["weight_decay"])
                    p.sub_(self.lr(group) * self.update(m, p.grad, beta1))
                    m.lerp_(p.grad, 1 - beta2)


class Upwards(Lion):
    """A wrong sign."""

    def update(self, m, gradient, beta1):
        return -super().update(m, gradient, beta1)


class TooFar(Lion):
    """A factor of a thousand too much."""

    def lr(self, group):
        return 1000 * group["lr"]


class Noisy(Lion):
    """Random numbers of a generator that no seed sets."""

    def __init__(self, params, **given):
        super().__init__(params, **given)
        self.generator = torch.Generator()
        self.generator.seed()

    def update(self, m, gradient, beta1):
        noise = torch.randn(gradient.shape, generator=self.generator, dtype=gradient.dtype)
        return super().update(m, gradient + 0.1 * noise, beta1)


class Forgetful(Lion):
    """Memory in a variable of a function, where no checkpoint finds it."""

    def __init__(self, params, **given):
        super().__init__(params, **given)
        held = {}
        self.momentum = lambda p: held.setdefault(p, torch.zeros_like(p))


class Neighbours(Lion):
    """One momentum for all parameters of a shape, in the order in which they come."""

    def momentum(self, p):
        if not hasattr(self, "shared"):
            self.shared = torch.zeros((), dtype=p.dtype)
        own = super().momentum(p)
        own.add_(0.2 * self.shared)
        self.shared = own.mean().clone()
        return own


class DeafToSchedules(Lion):
    """The lr of the first step, for ever."""

    def lr(self, group):
        return group.setdefault("first_lr", group["lr"])


class OneGroupForAll(Lion):
    """The first group's lr for every group."""

    def lr(self, group):
        return self.param_groups[0]["lr"]


class LeavesTheLast(Lion):
    """A slice that ends too early."""

    def groups(self):
        return [g | {"params": g["params"][:-1]} for g in self.param_groups]


class Hoarder(Lion):
    """Every gradient, kept."""

    def update(self, m, gradient, beta1):
        self.__dict__.setdefault("history", []).append(gradient.clone())
        return super().update(m, gradient, beta1)


class SwappedBetas(Lion):
    """The two betas in each other's place."""

    def __init__(self, params, betas=(0.9, 0.99), **given):
        super().__init__(params, betas=betas[::-1], **given)


class InFloat32(Lion):
    """The momentum in less precision than the weights."""

    def update(self, m, gradient, beta1):
        return (
            super()
            .update(m.float().to(m.dtype), gradient.float().to(m.dtype), beta1)
            .lerp(gradient.float().to(gradient.dtype), 1e-4)
        )


class NeedsEveryGradient(Lion):
    """No look at whether there is a gradient."""

    def groups(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = p.grad.clone()
        return self.param_groups


BUGS = {
    Upwards: "gradient", TooFar: "quadratic", Noisy: "deterministic", Forgetful: "checkpoint",
    Neighbours: "order", DeafToSchedules: "schedule", OneGroupForAll: "groups",
    LeavesTheLast: "parameters", Hoarder: "cost", SwappedBetas: "reference",
    InFloat32: "reference", NeedsEveryGradient: "parameters",
}  # fmt: skip


def subject(cls):
    def at(lr):
        return partial(cls, lr=lr)

    return Subject(cls.__name__, at(0.003), at, 0.01, 0.003, reference=partial(Lion, lr=0.003))


def test_the_right_class_passes_every_check():
    rows = list(checked(subject(Lion)))
    assert [row.check for row in rows] == list(CHECKS)
    assert all(row.passed for row in rows), [row for row in rows if not row.passed]


@pytest.mark.parametrize("cls", BUGS, ids=lambda cls: cls.__name__)
def test_each_bug_turns_its_row_red(cls, monkeypatch):
    name = BUGS[cls]
    monkeypatch.setattr("optbench.checking.CHECKS", {name: CHECKS[name]})
    (row,) = checked(subject(cls))
    assert row.passed is False, row


@pytest.fixture
def mine(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_optimizer", raising=False)
    return tmp_path


def test_the_command_prints_a_table_of_what_passed(mine, capsys):
    reference = ["--reference", f"{__name__}.Lion"]
    assert check(["my_optimizer", "--config-dir", "mine", *reference]) == 0
    out = capsys.readouterr().out
    for name in CHECKS:
        assert re.search(rf"^{name} +passed", out, re.M), out
        assert f"| `{name}` |" in PAGE
    assert "my_optimizer: 12 of 12 checks passed" in out


def test_the_command_fails_with_the_red_rows_named(mine, capsys):
    path = mine / "my_optimizer.py"
    path.write_text(path.read_text().replace("p.sub_(", "p.add_("))
    words = ["my_optimizer", "lr=0.01", "--config-dir", "mine"]
    assert check(words) == 1
    assert "failed: quadratic, rosenbrock, network, gradient" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lyon"], r"Did you mean .*lion"),
        (["adamw", "0.1"], "KEY=VALUE, as in lr=0.01"),
        (["adamw", "lr=abc"], "AdamW: lr must be a number, not 'abc'"),
        (["adamw", "--config-dir", "nowhere"], "there is no folder nowhere"),
        (["adamw", "--reference", "torch.optim.Adamm"], "has no Adamm"),
    ],
)
def test_mistakes_are_told(words, said, mine, capsys):
    assert check(words) == 1
    assert re.search(said, capsys.readouterr().err)


def test_an_optimizer_that_moves_nothing_fails_with_words(mine, capsys):
    Path("still.py").write_text(
        "import torch\n\nclass Still(torch.optim.SGD):\n    def step(self, closure=None): pass\n"
    )
    Path("mine/optimizer/still.yaml").write_text(
        "name: still\n_target_: still.Still\n_partial_: true\nlr: 0.1\n"
    )
    assert check(["still", "--config-dir", "mine"]) == 1
    told = capsys.readouterr().out
    assert "no weight moved in 5 steps: update in place" in told
    assert "a parameter never moved in 5 steps" in told


COMMANDS = re.findall(r"^    python -m optbench (.*)$", PAGE, re.M)
SMALL = ["data.subset=200", "model.hidden=[8]", "epochs=1", "tuning.repeats=2", "quiet=true"]


@pytest.mark.slow
def test_the_page_leads_from_the_class_to_the_verdict(mine):
    assert [command.split()[0] for command in COMMANDS] == ["check", "check", "--config-dir"]
    for command in COMMANDS:
        if "pytorch_optimizer" in command:
            pytest.importorskip("pytorch_optimizer")
        small = [] if command.startswith("check") else SMALL
        words = command.replace("tuning.trials=20", "tuning.trials=2").split()
        done = subprocess.run(
            [sys.executable, "-m", "optbench", *words, *small],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    verdict = (mine / "results" / "mine" / "verdict.md").read_text()
    assert "my_optimizer" in verdict
    assert "adamw" in verdict
    assert "sgd" in verdict

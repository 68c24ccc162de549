"""The optimizers of the field by name, and small problems to try them on."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import yaml
from composed import CONF
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench import optimizers
from optbench.config import build

# the fourteen, and Muon
NAMES = (
    "lion", "soap", "shampoo", "sophia", "prodigy", "adan", "ademamix", "adopt", "lamb", "mars",
    "schedulefree_adamw", "schedulefree_sgd", "sam", "adahessian", "muon",
)  # fmt: skip
TORCHS = ("sgd", "momentum", "adam", "adamw")  # which pass the same tests
BUDGET = {"total_steps": 500, "steps_per_epoch": 50, "train_examples": 400, "batch_size": 8}


def node(name: str, **changes: Any) -> dict[str, Any]:
    """Return an optimizer's YAML with changes."""
    return yaml.safe_load((CONF / "optimizer" / f"{name}.yaml").read_text("utf-8")) | changes


def factory(name: str, **changes: Any) -> Callable[..., Optimizer]:
    """Return the factory of an optimizer's YAML."""
    return optimizers.with_budget(build.build("optimizer", node(name, **changes)), BUDGET)


def test_rate(name: str) -> float:
    """Return the rate of the YAML's test entry, else the default one."""
    own = node(name)
    return own.get("test", own)["lr"]


test_rate.__test__ = False  # type: ignore[attr-defined]  # no test


class Bowl(nn.Module):
    """(1/2) sum of c_i x_i^2 over a matrix and a vector, from x = 1; condition 10."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(4, 4, dtype=torch.float64))
        self.vector = nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.c = torch.logspace(0, -1, 4, dtype=torch.float64)

    def forward(self) -> Tensor:
        return (self.c * self.matrix**2).sum() / 2 + (self.c * self.vector**2).sum() / 2


class Rosenbrock(nn.Module):
    """Rosenbrock's function of each row of a matrix and of a vector, from (-1.2, 1)."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
        self.matrix = nn.Parameter(start + 0.1 * torch.arange(3, dtype=torch.float64)[:, None])
        self.vector = nn.Parameter(start.clone())

    def forward(self) -> Tensor:
        x = torch.cat([self.matrix, self.vector[None]])
        return ((1 - x[:, 0]) ** 2 + 100 * (x[:, 1] - x[:, 0] ** 2) ** 2).sum()


def take_steps(model: nn.Module, opt: Optimizer, count: int) -> Iterator[float]:
    """Yield the loss before each step, as a closure or with a graph where the class asks."""
    graph = type(opt).__name__ in ("SophiaH", "AdaHessian")
    if callable(switch := getattr(opt, "train", None)):
        switch()

    def closure() -> Tensor:
        own = [p for p in model.parameters() if p.requires_grad]
        with torch.enable_grad():
            loss = model()
            found = torch.autograd.grad(loss, own, create_graph=graph)
        for p, gradient in zip(own, found, strict=True):
            p.grad = gradient
        return loss

    for _ in range(count):
        loss = closure()
        if type(opt).__name__ == "SAM":
            opt.step(closure)
        else:
            opt.step()
        yield loss.item()

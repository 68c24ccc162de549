"""An optimizer under test, and the small functions that it is tried on."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench import optimizers
from optbench.streams import Stream
from optbench.training import closures
from optbench.training.setup import asked_of_parts
from optbench.training.stepping import Stepper

MOST_STEPS = 500
BUDGET = {"total_steps": MOST_STEPS, "steps_per_epoch": 50, "train_examples": 64, "batch_size": 16}


@dataclass(frozen=True)
class Subject:
    """An optimizer to check.

    name: for the table. factory: makes the optimizer at its default settings. at: makes it with
    another lr, which the class may ignore. lr, networks_lr: the rates for the functions and for the
    networks; None: the factory's own, or none. reference: makes an optimizer that must take the
    same steps in float64, or None.
    """

    name: str
    factory: Callable[..., Optimizer]
    at: Callable[[float], Callable[..., Optimizer]]
    lr: float | None = None
    networks_lr: float | None = None
    reference: Callable[..., Optimizer] | None = None

    def for_functions(self) -> Callable[..., Optimizer]:
        """Return the factory with the rate for functions."""
        return self.factory if self.lr is None else self.at(self.lr)

    def for_networks(self) -> Callable[..., Optimizer]:
        """Return the factory with the rate for networks."""
        return self.factory if self.networks_lr is None else self.at(self.networks_lr)


class Function(nn.Module):
    """A function of its own parameters; `forward` returns its value, a scalar."""

    def forward(self) -> Tensor:
        raise NotImplementedError


class Quadratic(Function):
    """(1/2) sum of c_i x_i^2 over a matrix and a vector, from x = 1; condition 10."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(4, 4, dtype=torch.float64))
        self.vector = nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.c = torch.logspace(0, -1, 4, dtype=torch.float64)

    def forward(self) -> Tensor:
        return (self.c * self.matrix**2).sum() / 2 + (self.c * self.vector**2).sum() / 2


class Rosenbrock(Function):
    """Rosenbrock's function of each row of a matrix and of a vector, from (-1.2, 1)."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
        self.matrix = nn.Parameter(start + 0.1 * torch.arange(3, dtype=torch.float64)[:, None])
        self.vector = nn.Parameter(start.clone())

    def forward(self) -> Tensor:
        x = torch.cat([self.matrix, self.vector[None]])
        return ((1 - x[:, 0]) ** 2 + 100 * (x[:, 1] - x[:, 0] ** 2) ** 2).sum()


class Network(Function):
    """Convolution, norm, two linear layers; the cross-entropy of fixed random images.

    turned: whether the parameters come from the last to the first.
    """

    def __init__(self, *, turned: bool = False) -> None:
        super().__init__()
        self.turned = False
        self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.LayerNorm(27)
        self.hidden, self.head = nn.Linear(27, 8), nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.ones(()))
        generator = torch.Generator().manual_seed(0)
        for layer in (self.conv, self.hidden, self.head):
            for p in layer.parameters():
                nn.init.normal_(p, std=0.3, generator=generator)
        self.x = torch.randn(16, 1, 5, 5, generator=generator, dtype=torch.float64)
        self.y = torch.arange(16) % 4
        self.double()
        self.turned = turned

    def forward(self) -> Tensor:
        h = torch.tanh(self.conv(self.x)).flatten(1)
        h = torch.tanh(self.hidden(self.norm(h)))
        return nn.functional.cross_entropy(self.scale * self.head(h), self.y)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters in the order asked for."""
        found = list(super().named_parameters(prefix, recurse, remove_duplicate))
        yield from reversed(found) if self.turned else found


class Two(Function):
    """Two equal matrices, each with its own quadratic, so that both take equal steps."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.linspace(0.5, 1.5, 6, dtype=torch.float64).view(2, 3)
        self.first, self.second = nn.Parameter(start.clone()), nn.Parameter(start.clone())

    def forward(self) -> Tensor:
        return (self.first**2).sum() / 2 + (self.second**2).sum() / 2


class Trial:
    """A function, and an optimizer that steps on it as its class asks for."""

    def __init__(
        self,
        function: Function,
        factory: Callable[..., Optimizer],
        *,
        optimizer: Optimizer | None = None,
        seed: int = 0,
    ) -> None:
        """Build the optimizer, or take one that is built."""
        self.function = function
        factory = optimizers.with_budget(factory, BUDGET)
        build = partial(optimizers.build, decay_biases_and_norms=True)
        ask = partial(asked_of_parts, factory, build, function)
        self.draws = Stream(seed, "check")
        with self.draws:
            self.optimizer = optimizer or build(factory, function)
        self.stepper = Stepper(
            self.optimizer,
            function,
            lambda x, y: function(),
            self.draws,
            evaluates_first=partial(ask, closures.evaluates_first, any_part=False),
            wants_graph=partial(ask, closures.wants_graph, any_part=True),
        )
        self.stepper.switch_mode(training=True, stepped=False)

    def steps(self, count: int) -> Iterator[float]:
        """Take steps, and yield the loss before each. Raises `CodeError`."""
        nothing = torch.zeros(1)
        for _ in range(count):
            yield float(self.stepper.step(nothing, nothing))

    def run(self, count: int) -> list[float]:
        """Take steps, and return the loss before each."""
        return list(self.steps(count))

    def parameters(self) -> list[nn.Parameter]:
        """Return the trained parameters in the function's order."""
        return [p for p in self.function.parameters() if p.requires_grad]

    def values(self) -> dict[str, Tensor]:
        """Return copies of the weights by name."""
        return {name: p.detach().clone() for name, p in self.function.named_parameters()}

    def evaluated(self) -> float:
        """Return the loss at the weights for evaluation."""
        self.stepper.switch_mode(training=False, stepped=True)
        with torch.no_grad():
            value = float(self.function())
        self.stepper.switch_mode(training=True, stepped=True)
        return value


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, float]:
    """Return by name how far the weights moved (Euclidean norms)."""
    return {name: float((after[name] - value).norm()) for name, value in before.items()}


def furthest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Return the largest difference of two sets of weights, relative to their size."""
    found = 0.0
    for name, value in a.items():
        size = max(float(value.abs().max()), 1e-12)
        difference = float((value - b[name]).abs().max()) / size
        found = max(found, math.inf if math.isnan(difference) else difference)
    return found

"""Functions of two variables to watch optimizers on, with minima and usual starts.

Each is a function of its parameters that returns a `Function`. Formulas without another source are
from Surjanovic & Bingham, Virtual Library of Simulation Experiments.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from optbench.common.errors import UserError

Point = tuple[float, float]


class Function(NamedTuple):
    """A function of (x, y), its minima, and the region that a figure shows."""

    name: str
    value: Callable[[Tensor, Tensor], Tensor]  # elementwise, any shape
    minima: tuple[Point, ...]  # global ones
    start: Point
    x_range: Point  # shown in a figure
    y_range: Point
    noise: float = 0.0  # standard deviation, added to each component of a gradient
    condition: float | None = None  # number of a quadratic function, if it has a parameter for it

    @property
    def title(self) -> str:
        """Return the function's name as it is written in a text."""
        return self.name.replace("_", "-").title()

    @property
    def least(self) -> float:
        """Return the value at the minima."""
        x, y = torch.tensor(self.minima[0], dtype=torch.float64)
        return float(self.value(x, y))


def rosenbrock(a: float = 1.0, b: float = 100.0) -> Function:
    """Return (a - x)^2 + b (y - x^2)^2, a curved valley (Rosenbrock 1960, his start)."""
    return Function(
        "rosenbrock",
        lambda x, y: (a - x) ** 2 + b * (y - x**2) ** 2,
        minima=((a, a**2),),
        start=(-1.2, 1.0),
        x_range=(-1.8, 1.8),
        y_range=(-0.6, 2.2),
    )


def beale() -> Function:
    """Return Beale's (1958) flat valley, from the start of More et al. 1981."""
    return Function(
        "beale",
        lambda x, y: (
            (1.5 - x * (1 - y)) ** 2 + (2.25 - x * (1 - y**2)) ** 2 + (2.625 - x * (1 - y**3)) ** 2
        ),
        minima=((3.0, 0.5),),
        start=(1.0, 1.0),
        x_range=(-0.5, 4.2),
        y_range=(-1.5, 1.5),
    )


def himmelblau() -> Function:
    """Return (x^2 + y - 11)^2 + (x + y^2 - 7)^2, four equal minima (Himmelblau 1972)."""
    return Function(
        "himmelblau",
        lambda x, y: (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2,
        minima=(
            (3.0, 2.0),
            (-2.805118086952745, 3.131312518250573),
            (-3.779310253377747, -3.283185991286170),
            (3.584428340330492, -1.848126526964404),
        ),
        start=(0.0, 0.0),
        x_range=(-5.5, 5.5),
        y_range=(-5.5, 5.5),
    )


def rastrigin(a: float = 10.0) -> Function:
    """Return x^2 + y^2 + 2a - a (cos 2 pi x + cos 2 pi y): a minimum per grid point."""

    def value(x: Tensor, y: Tensor) -> Tensor:
        return 2 * a + sum(z**2 - a * torch.cos(2 * torch.pi * z) for z in (x, y))  # type: ignore[return-value]

    return Function(
        "rastrigin",
        value,
        minima=((0.0, 0.0),),
        start=(2.3, -1.7),
        x_range=(-3.2, 3.2),
        y_range=(-3.2, 3.2),
    )


def styblinski_tang() -> Function:
    """Return the sum of (z^4 - 16 z^2 + 5 z) / 2 over x and y, with four minima."""
    z = -2.903534027771177
    return Function(
        "styblinski_tang",
        lambda x, y: sum(z**4 - 16 * z**2 + 5 * z for z in (x, y)) / 2,  # type: ignore[arg-type, return-value]
        minima=((z, z),),
        start=(0.0, 0.0),
        x_range=(-4.5, 4.5),
        y_range=(-4.5, 4.5),
    )


def saddle() -> Function:
    """Return x^2 / 2 - y^2 / 2 + y^4 / 4, with a saddle at 0 between two minima.

    The start is 1e-6 off the ridge y = 0, where the gradient leads into the saddle point.
    """
    return Function(
        "saddle",
        lambda x, y: x**2 / 2 - y**2 / 2 + y**4 / 4,
        minima=((0.0, 1.0), (0.0, -1.0)),
        start=(1.5, 1e-6),
        x_range=(-1.8, 1.8),
        y_range=(-1.6, 1.6),
    )


def ravine(condition: float = 20.0) -> Function:
    """Return 2 x^2 / condition + 2 y^2, steep across and flat along.

    By default it is the function of Zhang et al. (2023, d2l.ai), 0.1 x^2 + 2 y^2. Raises UserError
    unless the condition number is a finite number of at least 1.
    """
    check_condition(condition)
    return Function(
        "ravine",
        lambda x, y: (2 / condition) * x**2 + 2 * y**2,
        minima=((0.0, 0.0),),
        start=(-5.0, -2.0),
        x_range=(-6.0, 4.0),
        y_range=(-2.8, 2.8),
        condition=condition,
    )


def quadratic(condition: float = 100.0, noise: float = 0.1) -> Function:
    """Return (x^2 / condition + y^2) / 2 with noisy gradients, as of mini-batches.

    Raises UserError unless the condition number is a finite number of at least 1.
    """
    check_condition(condition)
    return Function(
        "quadratic",
        lambda x, y: (x**2 / condition + y**2) / 2,
        minima=((0.0, 0.0),),
        start=(-8.0, 2.0),
        x_range=(-10.0, 10.0),
        y_range=(-3.0, 3.0),
        noise=noise,
        condition=condition,
    )


def check_condition(condition: float) -> None:
    """Raise UserError unless this can be a condition number."""
    if not 1 <= condition < math.inf:
        raise UserError(f"function.condition must be a number of at least 1, not {condition:g}")


FUNCTIONS: dict[str, Callable[..., Function]] = {
    f.__name__: f
    for f in (
        *(rosenbrock, beale, himmelblau, rastrigin, styblinski_tang),
        *(saddle, ravine, quadratic),
    )
}

"""The optimizers of the textbooks, one formula per class, written to be read.

Throughout, theta is a parameter, g its gradient, eta the learning rate `lr`. The formulas are the
literature's; where `torch.optim` computes another map, the docstring says so and a test shows it.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from math import inf
from numbers import Real
from typing import Any

import torch
from torch import Tensor, zeros_like
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from optbench.common.errors import UserError

Closure = Callable[[], Any]  # zeroes gradients, computes the loss and its gradients, returns it
State = dict[str, Any]  # a rule's memory of one parameter, by the formula's names


class Textbook(Optimizer):
    """The base of all rules: call the closure, then `update` each parameter."""

    def __init__(self, params: ParamsT, lr: float, **settings: Any) -> None:
        self.check("lr", lr)
        super().__init__(params, {"lr": lr, **settings})

    def check(self, name: str, value: float, least: float = 0, below: float = inf) -> None:
        """Raise `UserError` unless `least <= value < below`."""
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not least <= value < below:
            allowed = f"at least {least:g}" + (f" and below {below:g}" if below < inf else "")
            raise UserError(
                f"{type(self).__name__}: {name} must be a number {allowed}, not {value!r}"
            )

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Update every parameter that has a gradient; return the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for theta in group["params"]:
                if theta.grad is not None:
                    self.update(theta, theta.grad, self.state[theta], group)
        return loss

    def update(self, theta: Tensor, g: Tensor, state: State, group: dict[str, Any]) -> None:
        """Change `theta` and `state` in place."""
        raise NotImplementedError


class GradientDescent(Textbook):
    """theta -= eta g. (Cauchy 1847; with batches, Robbins & Monro 1951)"""

    def __init__(self, params: ParamsT, lr: float = 0.01) -> None:
        super().__init__(params, lr)

    def update(self, theta: Tensor, g: Tensor, state: State, group: dict[str, Any]) -> None:
        theta -= group["lr"] * g


class Momentum(Textbook):
    """v = gamma v + eta g;  theta -= v. (Polyak 1964)

    torch.optim.SGD keeps v / eta: the same map while lr is constant. When a schedule changes lr,
    v remembers the old steps at their old lr, where torch rescales them to the new one.
    """

    def __init__(self, params: ParamsT, lr: float = 0.01, gamma: float = 0.9) -> None:
        self.check("gamma", gamma, below=1)
        super().__init__(params, lr, gamma=gamma)

    def update(self, theta: Tensor, g: Tensor, state: State, group: dict[str, Any]) -> None:
        if not state:
            state["v"] = zeros_like(theta)
        state["v"] = group["gamma"] * state["v"] + group["lr"] * g
        theta -= state["v"]


class Nesterov(Momentum):
    """v = gamma v + eta g(theta - gamma v);  theta -= v. (Nesterov 1983)

    The gradient is taken at the look-ahead point theta - gamma v (Sutskever et al. 2013), so `step`
    needs the closure and returns the loss there. torch.optim.SGD(nesterov=True) stores the
    look-ahead point as its parameter: while lr is constant, torch's iterate is theta - gamma v.
    """

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Take one step; return the closure's loss at the look-ahead point."""
        if closure is None:
            raise UserError(
                "Nesterov takes the gradient at the look-ahead point, so step needs a closure: "
                "define closure() with zero_grad, forward, backward and `return loss`, and call "
                "optimizer.step(closure)"
            )
        starts = []
        for group in self.param_groups:
            for theta in group["params"]:
                # a copy: subtracting gamma v and adding it back would not restore the last bits
                starts.append((theta, theta.clone()))
                if self.state[theta]:
                    theta -= group["gamma"] * self.state[theta]["v"]
        try:
            with torch.enable_grad():
                loss = closure()
        finally:
            for theta, start in starts:
                theta.copy_(start)
        super().step()
        return loss


class Adagrad(Textbook):
    """G += g^2;  theta -= eta / sqrt(G + eps) g. (Duchi, Hazan & Singer 2011)

    torch.optim.Adagrad has eps outside the root, eta / (sqrt(G) + eps); it is the same map with
    its initial_accumulator_value set to eps and its own eps to 0.
    """

    def __init__(self, params: ParamsT, lr: float = 0.01, eps: float = 1e-8) -> None:
        self.check("eps", eps)
        super().__init__(params, lr, eps=eps)

    def update(self, theta: Tensor, g: Tensor, state: State, group: dict[str, Any]) -> None:
        if not state:
            state["G"] = zeros_like(theta)
        state["G"] += g**2
        theta -= group["lr"] / torch.sqrt(state["G"] + group["eps"]) * g


class RMSProp(Textbook):
    """G = gamma G + (1 - gamma) g^2;  theta -= eta / sqrt(G + eps) g. (Hinton 2012)

    Lecture 6e. torch.optim.RMSprop has eps outside the root, eta / (sqrt(G) + eps): the same map
    only as eps goes to 0. Inside the root, eps matters where |g| < sqrt(eps), so 1e-8 acts like
    torch's 1e-4.
    """

    def __init__(
        self, params: ParamsT, lr: float = 0.001, gamma: float = 0.9, eps: float = 1e-8
    ) -> None:
        self.check("gamma", gamma, below=1)
        self.check("eps", eps)
        super().__init__(params, lr, gamma=gamma, eps=eps)

    def update(self, theta: Tensor, g: Tensor, state: State, group: dict[str, Any]) -> None:
        if not state:
            state["G"] = zeros_like(theta)
        state["G"] = group["gamma"] * state["G"] + (1 - group["gamma"]) * g**2
        theta -= group["lr"] / torch.sqrt(state["G"] + group["eps"]) * g


class Adadelta(Textbook):
    """RMS[x] = sqrt(E[x^2] + eps), E a running mean with decay rho. (Zeiler 2012)

    E[g^2] = rho E[g^2] + (1 - rho) g^2;  delta = RMS[delta] / RMS[g] g
    E[delta^2] = rho E[delta^2] + (1 - rho) delta^2;  theta -= eta delta

    eta is 1 in the paper's algorithm 1. The same map as torch.optim.Adadelta.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1.0, rho: float = 0.95, eps: float = 1e-6
    ) -> None:
        self.check("rho", rho, below=1)
        self.check("eps", eps)
        super().__init__(params, lr, rho=rho, eps=eps)

    def update(self, theta: Tensor, g: Tensor, state: State, group: dict[str, Any]) -> None:
        if not state:
            state["E_g2"], state["E_delta2"] = zeros_like(theta), zeros_like(theta)
        rho, eps = group["rho"], group["eps"]
        state["E_g2"] = rho * state["E_g2"] + (1 - rho) * g**2
        delta = torch.sqrt(state["E_delta2"] + eps) / torch.sqrt(state["E_g2"] + eps) * g
        state["E_delta2"] = rho * state["E_delta2"] + (1 - rho) * delta**2
        theta -= group["lr"] * delta


class Adam(Textbook):
    """m and v are running means of g and g^2. (Kingma & Ba 2015, algorithm 1)

    m = beta1 m + (1 - beta1) g;  m_hat = m / (1 - beta1^t)
    v = beta2 v + (1 - beta2) g^2;  v_hat = v / (1 - beta2^t)
    theta -= eta m_hat / (sqrt(v_hat) + eps)

    The same map as torch.optim.Adam. `bias_correction=False` takes m_hat = m and v_hat = v: the
    first steps are then too long, by (1 - beta1) / sqrt(1 - beta2), which is 3.2 by default.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        bias_correction: bool = True,
    ) -> None:
        beta1, beta2 = _pair(self, "betas", betas)
        self.check("the first of betas", beta1, below=1)
        self.check("the second of betas", beta2, below=1)
        self.check("eps", eps)
        settings = {"betas": (beta1, beta2), "eps": eps, "bias_correction": bias_correction}
        super().__init__(params, lr, **settings)

    def update(self, theta: Tensor, g: Tensor, state: State, group: dict[str, Any]) -> None:
        if not state:
            state["t"], state["m"], state["v"] = 0, zeros_like(theta), zeros_like(theta)
        beta1, beta2 = group["betas"]
        state["t"] += 1
        state["m"] = m = beta1 * state["m"] + (1 - beta1) * g
        state["v"] = v = beta2 * state["v"] + (1 - beta2) * g**2
        if group["bias_correction"]:
            m = m / (1 - beta1 ** state["t"])
            v = v / (1 - beta2 ** state["t"])
        theta -= group["lr"] * m / (torch.sqrt(v) + group["eps"])


class Rprop(Textbook):
    """Each weight has its own step size Delta; only the sign of g counts.

    Delta grows by etas[1] if g kept its sign and shrinks by etas[0] if it changed, within
    step_sizes = (smallest, largest);  theta -= sign(g) Delta.

    If the sign changed, the last step jumped over a minimum. With `backtracking` that step is taken
    back (Riedmiller & Braun 1993). Without, the weight rests for one step (iRprop-, Igel & Hüsken
    2000), the same map as torch.optim.Rprop. Either way g then counts as 0, so that Delta does not
    shrink twice. lr is the initial Delta, so a schedule has no effect. Meant for full batches: the
    noise of small ones changes signs.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        backtracking: bool = True,
    ) -> None:
        shrink, grow = _pair(self, "etas", etas)
        self.check("the first of etas", shrink, below=1)
        self.check("the second of etas", grow, least=1)
        smallest, largest = _pair(self, "step_sizes", step_sizes)
        self.check("the first of step_sizes", smallest)
        self.check("the second of step_sizes", largest, least=smallest)
        pairs = {"etas": (shrink, grow), "step_sizes": (smallest, largest)}
        super().__init__(params, lr, **pairs, backtracking=backtracking)

    def update(self, theta: Tensor, g: Tensor, state: State, group: dict[str, Any]) -> None:
        if not state:
            state["Delta"] = torch.full_like(theta, group["lr"])
            state["g"], state["step_taken"] = zeros_like(theta), zeros_like(theta)
        shrink, grow = group["etas"]
        same, changed = g * state["g"] > 0, g * state["g"] < 0
        factor = torch.ones_like(theta).masked_fill(same, grow).masked_fill(changed, shrink)
        state["Delta"] = (state["Delta"] * factor).clamp(*group["step_sizes"])
        g = g.masked_fill(changed, 0)
        step = torch.sign(g) * state["Delta"]
        if group["backtracking"]:
            step = torch.where(changed, -state["step_taken"], step)
        theta -= step
        state["g"], state["step_taken"] = g, step


def _pair(rule: Optimizer, name: str, values: Iterable[float]) -> tuple[float, float]:
    """Return the two numbers of any sequence, also of omegaconf's or NumPy's."""
    ordered = isinstance(values, Iterable) and not isinstance(values, str | Mapping | Set)
    numbers = list(values) if ordered else []
    if len(numbers) != 2:
        raise UserError(f"{type(rule).__name__}: {name} must be two numbers, not {values!r}")
    return numbers[0], numbers[1]

"""Training steps of multilayer perceptrons on the CPU, compiled for this machine.

`mlp.cpp` computes whole steps, many in a call: forward, loss, backward and the update of a common
optimizer. A C++ compiler compiles it once for each machine, at its first use. Without a
compiler, and for trainings that `eligibility` refuses, steps are torch's.

The reason: for 784-64-10 with batches of 32, as in conf/study/claims, a compiled step took 0.20 ms
and a plain one 0.62 ms (AMD EPYC, one thread, Adam). README.md has more, also where torch is ahead.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from optbench import losses
from optbench.engines.compiled_mlp.compile import library
from optbench.engines.compiled_mlp.eligibility import rule_name
from optbench.engines.compiled_mlp.exact_types import Traits
from optbench.engines.compiled_mlp.network import SOURCE, Network, Parameter, address

MASKED_STEPS = 8  # of a call with dropout; all their masks are in memory at the same time


class CompiledMlp:
    """The engine of compiled whole steps, for trainings that `eligibility` supports."""

    name = "compiled_mlp"

    def __init__(self, loss: Callable[..., Tensor], model: nn.Module, optimizer: Optimizer) -> None:
        self._parts = loss, model, optimizer
        self._bound: CompiledSteps | None = None

    def steps(
        self, x: Tensor, y: Tensor, batches: Sequence[Tensor], lrs: Sequence[Sequence[float]]
    ) -> Tensor:
        """Take a step with each batch, and return the batches' losses (k,)."""
        if self._bound is None:  # not earlier: the optimizer's first step creates its state
            self._bound = CompiledSteps(*self._parts)
        return self._bound(x, y, batches, lrs)

    def rebind(self) -> None:
        """Find weights and state again before the next step."""
        self._bound = None


class CompiledGradients:
    """The engine of compiled gradients, for any optimizer of a model of `eligibility`.

    refusal: says in words why the engine does not serve the training, or ""; an optimizer may
    change the model in any step.
    """

    name = "compiled_gradients"
    paused = 0.0
    draws = False  # dropout has a generator of its own

    def __init__(
        self,
        loss: Callable[..., Tensor],
        model: nn.Module,
        optimizer: Optimizer,
        refusal: Callable[[], str],
    ) -> None:
        self._parts, self._training, self._refusal = (loss, model), (model, optimizer), refusal
        self._network: Network | None = None
        self._traits: Traits | None = None  # at the time when the network was made or refused

    def gradients(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Put the gradients of a batch's loss into `p.grad`, and return the scalar loss.

        Return None, and change nothing, where the engine does not serve this batch or the model as
        it is now.
        """
        traits = Traits(*self._training)
        if self._traits is None or not traits.equal(self._traits):
            self._traits = traits
            self._network = None if self._refusal() else Network(*self._parts)
        if self._network is None or not self._network.can_take(x):
            return None
        return self._network.gradients(x, y)


class Rule(NamedTuple):
    """An optimizer's rule: its number in rules.hpp, settings and state tensors."""

    place: int
    settings: Callable[[Mapping[str, Any]], Sequence[float]]
    state: tuple[str, ...] = ()


def _adam(group: Mapping[str, Any]) -> Sequence[float]:
    decay = group["weight_decay"] if group["decoupled_weight_decay"] else 0.0
    return *group["betas"], group["eps"], decay


MOMENTS = ("exp_avg", "exp_avg_sq")
RULES = {
    "sgd": Rule(0, lambda group: ()),
    "momentum": Rule(
        1, lambda g: (g["momentum"], g["dampening"], g["nesterov"]), ("momentum_buffer",)
    ),
    "adam": Rule(2, _adam, MOMENTS),
    "amsgrad": Rule(3, _adam, (*MOMENTS, "max_exp_avg_sq")),
    "rmsprop": Rule(4, lambda g: (g["alpha"], g["eps"]), ("square_avg",)),
    "adagrad": Rule(5, lambda g: (g["lr_decay"], g["eps"]), ("sum",)),
    "adadelta": Rule(6, lambda g: (g["rho"], g["eps"]), ("square_avg", "acc_delta")),
}


class CompiledSteps:
    """Compiled steps of one model and optimizer, whose tensors change in place.

    The optimizer must have taken a plain step, so that its state exists. All batches of a call
    have one size.
    """

    def __init__(self, loss: Callable[..., Tensor], model: nn.Module, optimizer: Optimizer) -> None:
        """Raise ValueError unless weights and state are contiguous and of float32."""
        self.optimizer, self.groups, self.state = optimizer, optimizer.param_groups, optimizer.state
        self.name = rule_name(optimizer, self.groups[0])
        self.rule = RULES[self.name]
        self.decays = (ctypes.c_double * len(self.groups))()
        self.targets: Tensor | None = None  # the last ones that were checked
        self.network = Network(loss, model)
        self.held: list[Tensor] = []  # keeps the tensors of the addresses alive
        self.counters: list[tuple[Parameter, Tensor]] = []
        for to, p in self.network.parameters:
            state = self.state[p]
            tensors = [state[name] for name in self.rule.state]
            self.held += [p, *tensors]
            to.state[: len(tensors)] = [address(t) for t in tensors]
            (to.group,) = (
                k for k, group in enumerate(self.groups) if any(p is q for q in group["params"])
            )
            if isinstance(state.get("step"), Tensor):
                self.counters.append((to, state["step"]))

    def _read_settings(self) -> None:
        """Read the current settings of the groups."""
        if {rule_name(self.optimizer, group) for group in self.groups} != {self.name}:
            raise ValueError("the optimizer's settings now make another rule of it")
        # decoupled decay is part of the rule
        self.decays[:] = [
            0 if g.get("decoupled_weight_decay") else g["weight_decay"] for g in self.groups
        ]
        for to, _ in self.network.parameters:
            settings = self.rule.settings(self.groups[to.group])
            to.settings[: len(settings)] = settings

    def __call__(
        self, x: Tensor, y: Tensor, batches: Sequence[Tensor], rates: Sequence[Sequence[float]]
    ) -> Tensor:
        """Return the losses (k,) of k steps. Raise ValueError first for unsupported data."""
        if self.targets is not y:
            self.network.check(x, y)
            self.targets = y
        self._read_settings()
        self.network.bind()  # a watched step restores the running statistics as new tensors
        taken = []
        masked = any(block.dropout for block in self.network.chain)
        size = MASKED_STEPS if masked else len(batches)
        for start in range(0, len(batches), size):
            chosen = torch.stack(list(batches[start : start + size]))
            for parameter, counter in self.counters:
                parameter.steps = float(counter)
            flat = [rate for row in rates[start : start + size] for rate in row]
            given = (ctypes.c_double * len(flat))(*flat)
            taken.append(self.network.take(x, y, chosen, self.rule.place, given, self.decays))
            for _, counter in self.counters:
                counter += len(chosen)
        return torch.cat(taken)


@cache
def available() -> bool:
    """Return whether mlp.cpp compiles here, and agrees with float64 in a trial."""
    if library(SOURCE) is None:
        return False
    rate, generator = 0.5, torch.Generator().manual_seed(0)
    single: Any = {"device": "meta", "dtype": torch.float32}
    x = torch.randn(90, 260, generator=generator, dtype=torch.float32)
    y = torch.arange(90) % 5
    layers = (
        nn.Linear(260, 270, **single), nn.BatchNorm1d(270, **single), nn.Tanh(),
        nn.Linear(270, 5, **single),
    )  # fmt: skip
    trial = nn.Sequential(*layers).to_empty(device="cpu")
    with torch.no_grad():
        for p in trial.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 16)
        for buffer in trial.buffers():
            buffer.zero_()
    exact = deepcopy(trial).double()
    steps = CompiledSteps(losses.cross_entropy, trial, SGD(trial.parameters(), lr=rate))
    for batch in (torch.arange(77), torch.arange(19, 40)):
        steps(x, y, [batch], [[rate]])
        loss = losses.cross_entropy(exact(x[batch].double()), y[batch])
        gradients = torch.autograd.grad(loss, list(exact.parameters()))
        with torch.no_grad():
            for p, gradient in zip(exact.parameters(), gradients, strict=True):
                p.sub_(rate * gradient)
    pairs = zip(_state(trial), _state(exact), strict=True)
    return all(torch.allclose(p.double(), q.double(), rtol=1e-6, atol=5e-7) for p, q in pairs)


def _state(model: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*model.parameters(), *model.buffers())]

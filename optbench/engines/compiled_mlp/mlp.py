"""Training steps of multilayer perceptrons on the CPU, compiled for this machine.

`mlp.cpp` computes whole steps, many in a call: forward, cross-entropy, backward and the update of
a common optimizer. A C++ compiler compiles it once for each machine, at its first use. Without a
compiler, and for trainings that `eligibility` refuses, steps are torch's.

The reason: for 784-64-10 with batches of 32, as in conf/study/claims, a compiled step took 0.20 ms
and a plain one 0.62 ms (AMD EPYC, one thread, Adam). README.md has more, also where torch is ahead.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from optbench import losses
from optbench.engines.compiled_mlp.compile import library
from optbench.engines.compiled_mlp.eligibility import ACTIVATIONS, linear_chain, rule_name, slope_of
from optbench.engines.compiled_mlp.exact_types import unwrap

SOURCE = Path(__file__).with_name("mlp.cpp")


class CompiledMlp:
    """The `Engine` of compiled steps, for trainings that `eligibility` supports."""

    name = "compiled_mlp"
    exact = False  # within the rounding of float32

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


class Rule(NamedTuple):
    """An optimizer's rule: its number in mlp.hpp, its settings, its state's tensors."""

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


class Parameter(ctypes.Structure):
    """The struct `Parameter` of mlp.hpp."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("state", ctypes.c_void_p * 3),
        ("settings", ctypes.c_double * 4),
        ("steps", ctypes.c_double),
        ("group", ctypes.c_int64),
    )


class Layer(ctypes.Structure):
    """The struct `Layer` of mlp.hpp."""

    _fields_ = (
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("activation", ctypes.c_int64),
        ("slope", ctypes.c_double),
        ("weight", Parameter),
        ("bias", Parameter),
    )


@cache
def available() -> bool:
    """Return whether mlp.cpp compiles here, and agrees with float64 in a trial."""
    if library(SOURCE) is None:
        return False
    rate, generator = 0.5, torch.Generator().manual_seed(0)
    single: Any = {"device": "meta", "dtype": torch.float32}
    x = torch.randn(90, 260, generator=generator, dtype=torch.float32)
    y = torch.arange(90) % 5
    layers = (nn.Linear(260, 270, **single), nn.Tanh(), nn.Linear(270, 5, **single))
    trial = nn.Sequential(*layers).to_empty(device="cpu")
    with torch.no_grad():
        for p in trial.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 16)
    exact = deepcopy(trial).double()
    steps = CompiledSteps(losses.cross_entropy, trial, SGD(trial.parameters(), lr=rate))
    for batch in (torch.arange(77), torch.arange(19, 40)):
        steps(x, y, [batch], [[rate]])
        loss = losses.cross_entropy(exact(x[batch].double()), y[batch])
        gradients = torch.autograd.grad(loss, list(exact.parameters()))
        with torch.no_grad():
            for p, gradient in zip(exact.parameters(), gradients, strict=True):
                p.sub_(rate * gradient)
    pairs = zip(trial.parameters(), exact.parameters(), strict=True)
    return all(torch.allclose(p.double(), q, rtol=1e-6, atol=5e-7) for p, q in pairs)


def _functions() -> ctypes.CDLL:
    found = library(SOURCE)
    assert found is not None
    place, number = ctypes.c_void_p, ctypes.c_int64
    layers = ctypes.POINTER(Layer)
    found.mlp_scratch.argtypes = (layers, number, number)
    found.mlp_scratch.restype = number
    found.mlp_steps.argtypes = (
        *(layers, number, number, ctypes.c_double, place, place, place, place),
        *(number, number, place, number, number, place, place),
    )
    found.mlp_steps.restype = None
    return found


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
        self.owned: list[Parameter] = []
        self.counters: list[tuple[Any, Tensor]] = []
        self.labels: Tensor | None = None  # the labels that were checked
        self.library = _functions()
        self.smoothing = float(unwrap(loss)[1].get("label_smoothing", 0.0))
        chain = linear_chain(model)
        self.inputs, self.classes = chain[0][0].in_features, chain[-1][0].out_features
        self.held: list[Tensor] = []  # keeps the tensors of the addresses alive
        self.layers = (Layer * len(chain))()
        for layer, (linear, activation) in zip(self.layers, chain, strict=True):
            layer.inputs, layer.outputs = linear.in_features, linear.out_features
            layer.activation = 0 if activation is None else ACTIVATIONS.index(type(activation))
            layer.slope = float(slope_of(activation))
            for to, p in ((layer.weight, linear.weight), (layer.bias, linear.bias)):
                if p is not None:
                    self._fill(to, p)
        self.scratch = torch.empty(0, dtype=torch.float32)

    def _fill(self, to: Parameter, p: Tensor) -> None:
        state = self.state[p]
        tensors = [p.detach(), *(state[name] for name in self.rule.state)]
        to.values, *own = self._hold(tensors)
        to.state[: len(own)] = own
        (to.group,) = (
            k for k, group in enumerate(self.groups) if any(p is q for q in group["params"])
        )
        self.owned.append(to)
        if isinstance(state.get("step"), Tensor):
            self.counters.append((to, state["step"]))

    def _hold(self, tensors: Sequence[Tensor]) -> list[int]:
        """Keep tensors alive, and return their addresses."""
        if any(t.dtype != torch.float32 or not t.is_contiguous() for t in tensors):
            raise ValueError("weights and their state must be contiguous, of float32")
        self.held += tensors
        return [t.data_ptr() for t in tensors]

    def _room(self, batch: int) -> int:
        """Return the address of scratch memory for batches of a size."""
        needed = self.library.mlp_scratch(self.layers, len(self.layers), batch)
        if len(self.scratch) < needed:
            self.scratch = torch.empty(needed, dtype=torch.float32)
        return self.scratch.data_ptr()

    def _check(self, x: Tensor, y: Tensor) -> None:
        if len(x) != len(y):
            raise ValueError(f"there are {len(x)} examples and {len(y)} labels")
        if x.dtype != torch.float32 or not x.is_contiguous() or x[0].numel() != self.inputs:
            raise ValueError(f"the examples must be contiguous, {self.inputs} float32 each")
        if y.dtype != torch.int64 or not y.is_contiguous():
            raise ValueError("the labels must be contiguous, of int64")
        if not (y.min() >= 0 and y.max() < self.classes):
            raise ValueError(f"a label is none of the {self.classes} classes")

    def _read_settings(self) -> None:
        """Read the current settings of the groups."""
        if {rule_name(self.optimizer, group) for group in self.groups} != {self.name}:
            raise ValueError("the optimizer's settings now make another rule of it")
        # decoupled decay is part of the rule
        self.decays[:] = [
            0 if g.get("decoupled_weight_decay") else g["weight_decay"] for g in self.groups
        ]
        for to in self.owned:
            settings = self.rule.settings(self.groups[to.group])
            to.settings[: len(settings)] = settings

    def __call__(
        self, x: Tensor, y: Tensor, batches: Sequence[Tensor], rates: Sequence[Sequence[float]]
    ) -> Tensor:
        """Return the losses (k,) of k steps. Raise ValueError first for unsupported data."""
        if self.labels is not y:
            self._check(x, y)
            self.labels = y
        self._read_settings()
        chosen = torch.stack(list(batches))
        count, size = chosen.shape
        for parameter, counter in self.counters:
            parameter.steps = float(counter)
        flat = [rate for row in rates for rate in row]
        taken = torch.empty(count, dtype=torch.float32)
        self.library.mlp_steps(
            self.layers, len(self.layers), self.rule.place, self.smoothing, self.decays,
            x.data_ptr(), y.data_ptr(), chosen.data_ptr(), size, count,
            (ctypes.c_double * len(flat))(*flat), len(self.groups), torch.get_num_threads(),
            self._room(size), taken.data_ptr(),
        )  # fmt: skip
        for _, counter in self.counters:
            counter += count
        return taken

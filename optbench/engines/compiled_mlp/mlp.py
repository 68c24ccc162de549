"""Training steps and evaluations of multilayer perceptrons on the CPU, compiled for this machine.

`mlp.cpp` computes whole steps, many in a call: forward, cross-entropy, backward and the update of
a common optimizer; and the loss and accuracy on many examples. It is compiled once for a machine,
at its first use, where there is a C++ compiler. What it does not know, or cannot be compiled, is
left to torch.
"""

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from math import inf, isfinite, prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop

from optbench import losses
from optbench.engines.compiled_mlp.compile import library
from optbench.engines.exact_types import (
    holds,
    is_number,
    is_untouched,
    is_untouched_optimizer,
    unwrap,
    weights_are_plain,
)
from optbench.problem import Problem
from optbench.torch_internals import torch_is_plain

SOURCE = Path(__file__).with_name("mlp.cpp")
EXAMPLES, LAYERS = 512, 16  # of a batch and of a model, at most; as in mlp.cpp
# in the order of mlp.cpp
ACTIVATIONS = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.ELU)


class Rule(NamedTuple):
    """An optimizer's rule: its place in mlp.cpp, its settings there, and the tensors it keeps."""

    place: int
    settings: Callable[[Mapping[str, Any]], Sequence[float]]
    state: tuple[str, ...] = ()


def _adam(group: Mapping[str, Any]) -> Sequence[float]:
    decay = group["weight_decay"] if group["decoupled_weight_decay"] else 0.0
    return *group["betas"], group["eps"], decay


# of groups, beside lr, weight_decay and betas; an eps below LEAST_EPS lets numbers matter that are
# below float32's normal ones, and mlp.cpp takes these for 0
SCALARS = ("momentum", "dampening", "eps", "alpha", "lr_decay", "rho")
LEAST_EPS = 1e-12
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
    """As in mlp.cpp."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("state", ctypes.c_void_p * 3),
        ("settings", ctypes.c_double * 4),
        ("steps", ctypes.c_double),
        ("group", ctypes.c_int64),
    )


class Layer(ctypes.Structure):
    """As in mlp.cpp."""

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
    """Whether mlp.cpp can be compiled here and then gives what float64 gives, in a small trial:
    of a step and an evaluation by tiles, where the CPU has them, and of a step without."""
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
    steps = DenseSteps(losses.cross_entropy, trial, SGD(trial.parameters(), lr=rate))
    for batch in (torch.arange(77), torch.arange(19, 40)):
        steps(x, y, [batch], [[rate]])
        loss = losses.cross_entropy(exact(x[batch].double()), y[batch])
        gradients = torch.autograd.grad(loss, list(exact.parameters()))
        with torch.no_grad():
            for p, gradient in zip(exact.parameters(), gradients, strict=True):
                p.sub_(rate * gradient)
    pairs = zip(trial.parameters(), exact.parameters(), strict=True)
    if not all(torch.allclose(p.double(), q, rtol=1e-6, atol=5e-7) for p, q in pairs):
        return False
    sums = DenseSums(losses.cross_entropy, trial)(x, y)
    logits = exact(x.double()).detach()
    hits = (logits.argmax(dim=1) == y).sum()
    right = torch.stack([losses.cross_entropy(logits, y) * len(y), hits, torch.tensor(len(y))])
    return sums is None or torch.allclose(sums, right, rtol=1e-6)


def _functions() -> ctypes.CDLL:
    found = library(SOURCE)
    assert found is not None
    place, number = ctypes.c_void_p, ctypes.c_int64
    layers = ctypes.POINTER(Layer)
    found.dense_scratch.argtypes = (layers, number, number)
    found.dense_scratch.restype = number
    found.dense_steps.argtypes = (
        *(layers, number, number, ctypes.c_double, place, place, place, place),
        *(number, number, place, number, number, place, place),
    )
    found.dense_steps.restype = None
    found.dense_sums.argtypes = (
        *(layers, number, ctypes.c_double, place, place, place),
        *(number, number, number, place, ctypes.POINTER(ctypes.c_double)),
    )
    found.dense_sums.restype = number
    return found


def computes(problem: Problem, model: nn.Module, optimizer: Optimizer) -> bool:
    """Return whether training steps on the CPU are to be `DenseSteps`.

    It goes by exact types, never by trying: see `known`.
    """
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    all_owned = owned == {id(p) for p in model.parameters()}
    return (
        torch_is_plain() and all_owned and fits(problem, model) and knows(optimizer) and available()
    )


def fits(problem: Problem, model: nn.Module) -> bool:
    """Return whether mlp.cpp computes the loss: of a chain of linear layers and activations, in
    float32, the cross-entropy of batches of at most 512 examples, beyond which torch is faster."""
    if not _is_cross_entropy(problem.loss):
        return False
    if problem.precision != "float32" or problem.weight_penalty:
        return False
    x, y = problem.dataset.train_x, problem.dataset.train_y
    if problem.batch_examples > min(EXAMPLES, len(y) - 1):  # the whole set is no list of indices
        return False
    if not (_is_array(x, torch.float32) and _is_array(y, torch.int64)):
        return False
    if not all(_is_array(p.detach(), torch.float32) for p in model.parameters()):
        return False
    chain = _chain(model)
    if not 0 < len(chain) <= LAYERS or chain[-1][1] is not None:
        return False
    labelled = bool(y.min() >= 0 and y.max() < chain[-1][0].out_features)
    return labelled and chain[0][0].in_features == prod(problem.dataset.input_shape)


def _is_array(t: Tensor, dtype: torch.dtype) -> bool:
    """Return whether a tensor is an ordinary one that compiled code can read where it lies."""
    plain = type(t) is Tensor and t.layout is torch.strided and t.device.type == "cpu"
    return plain and t.dtype is dtype and t.is_contiguous()


def _is_cross_entropy(loss: Callable[..., Tensor]) -> bool:
    function, settings = unwrap(loss)
    if function is losses.nll:
        return not settings
    smoothing = settings.pop("label_smoothing", 0.0)
    right = is_number(smoothing) and 0 <= smoothing < 1
    return function is losses.cross_entropy and not settings and right


def knows(optimizer: Optimizer) -> bool:
    """Return whether mlp.cpp has the optimizer's rule."""
    rules = {_rule(optimizer, group) for group in optimizer.param_groups}
    return len(rules) == 1 and "" not in rules and is_untouched_optimizer(optimizer)


def _rule(optimizer: Optimizer, group: Mapping[str, Any]) -> str:
    """Return the name in RULES of what a group is updated by; "" where there is none."""
    cls = type(optimizer)  # a class of one's own may do anything
    if cls not in (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta):
        return ""
    if any(group.get(key) for key in ("maximize", "differentiable", "capturable")):
        return ""
    numbers = [group["lr"], group["weight_decay"], *group.get("betas", ())]
    numbers += [group[key] for key in SCALARS if key in group]
    if not all(map(is_number, numbers)) or group.get("eps", LEAST_EPS) < LEAST_EPS:
        return ""
    if cls is SGD:
        return "momentum" if group["momentum"] else "sgd"
    if cls in (Adam, AdamW):
        return "amsgrad" if group["amsgrad"] else "adam"
    if cls is RMSprop:
        return "" if group["centered"] or group["momentum"] else "rmsprop"
    return "adagrad" if cls is Adagrad else "adadelta"


def _chain(model: nn.Module) -> list[tuple[nn.Linear, nn.Module | None]]:
    """Return the linear layers, each with the activation that follows it; [] if it is no chain."""
    found: list[tuple[nn.Linear, nn.Module | None]] = []
    if not weights_are_plain(model):
        return []
    for module in _flat(model):
        last = found[-1] if found else None
        if module is None or not is_untouched(module):
            return []
        if type(module) is nn.Linear:
            if last and last[0].out_features != module.in_features:
                return []
            if not holds(module, ("weight", "bias")) or not module.weight.numel():
                return []
            if module.weight.shape != (module.out_features, module.in_features):
                return []  # it was cut or replaced
            if module.bias is not None and module.bias.shape != (module.out_features,):
                return []
            found.append((module, None))
        elif not holds(module):
            return []
        elif type(module) in ACTIVATIONS and last and last[1] is None:
            lowest = 1e-6 if isinstance(module, nn.ELU) else 0.0
            if not is_number(slope := _slope(module)) or not lowest <= slope < inf:
                return []  # the gradient cannot be told from the output
            found[-1] = (last[0], module)
        elif found or not _flattens(module):
            return []
    own = [linear for linear, _ in found]
    return found if len(set(own)) == len(own) else []


def _flat(module: nn.Module | None) -> Iterator[nn.Module | None]:
    """Yield what a chain of modules calls, one after the other."""
    if (
        type(module) is nn.Sequential
        and is_untouched(module)
        and not (module._parameters or module._buffers)
    ):
        for child in module._modules.values():
            yield from _flat(child)
    else:
        yield module


def _flattens(module: nn.Module) -> bool:
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)


def _slope(activation: nn.Module | None) -> Any:
    return getattr(activation, "negative_slope", getattr(activation, "alpha", 0.0))


class Scratch:
    """What compiled steps and evaluations of one model work in, one after the other."""

    def __init__(self) -> None:
        self.floats = torch.empty(0, dtype=torch.float32)

    def place(self, needed: int) -> int:
        """The address of so many floats."""
        if len(self.floats) < needed:
            self.floats = torch.empty(needed, dtype=torch.float32)
        return self.floats.data_ptr()


class _Dense:
    """A model as mlp.cpp takes it."""

    def __init__(
        self, loss: Callable[..., Tensor], model: nn.Module, scratch: Scratch | None = None
    ) -> None:
        """Raises ValueError where weights are not contiguous, of float32."""
        self.library = _functions()
        self.smoothing = float(unwrap(loss)[1].get("label_smoothing", 0.0))
        chain = _chain(model)
        self.inputs, self.classes = chain[0][0].in_features, chain[-1][0].out_features
        self.held: list[Tensor] = []  # what the addresses are of
        self.layers = (Layer * len(chain))()
        for layer, (linear, activation) in zip(self.layers, chain, strict=True):
            layer.inputs, layer.outputs = linear.in_features, linear.out_features
            layer.activation = 0 if activation is None else ACTIVATIONS.index(type(activation))
            layer.slope = float(_slope(activation))
            for to, p in ((layer.weight, linear.weight), (layer.bias, linear.bias)):
                if p is not None:
                    self._fill(to, p)
        self.scratch = scratch or Scratch()

    def _fill(self, to: Parameter, p: Tensor) -> None:
        (to.values,) = self._hold([p.detach()])

    def _hold(self, tensors: Sequence[Tensor]) -> list[int]:
        """Keep tensors, and give their addresses."""
        if any(t.dtype != torch.float32 or not t.is_contiguous() for t in tensors):
            raise ValueError("weights and their state must be contiguous, of float32")
        self.held += tensors
        return [t.data_ptr() for t in tensors]

    def _room(self, batch: int) -> int:
        """The address of what batches of that size are worked on in."""
        needed = self.library.dense_scratch(self.layers, len(self.layers), batch)
        return self.scratch.place(needed)

    def _check(self, x: Tensor, y: Tensor) -> None:
        if len(x) != len(y):
            raise ValueError(f"there are {len(x)} examples and {len(y)} labels")
        if x.dtype != torch.float32 or not x.is_contiguous() or x[0].numel() != self.inputs:
            raise ValueError(f"the examples must be contiguous, {self.inputs} float32 each")
        if y.dtype != torch.int64 or not y.is_contiguous():
            raise ValueError("the labels must be contiguous, of int64")
        if not (y.min() >= 0 and y.max() < self.classes):
            raise ValueError(f"a label is none of the {self.classes} classes")


class DenseSums(_Dense):
    """`evaluation.Sums` for what `fits`, where it is `available`."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor | None:
        """The sums of the losses, the correct answers and the examples: (3,), float64.

        None for data of another kind than in training, where it would not be faster, and where the
        loss is not finite: there torch's numbers are wanted. There must be an example.
        """
        try:
            self._check(x, y)
        except ValueError:
            return None
        found = (ctypes.c_double * 2)()
        count, size = len(y), min(EXAMPLES, len(y))
        indices = torch.arange(count)
        done = self.library.dense_sums(
            self.layers, len(self.layers), self.smoothing, x.data_ptr(), y.data_ptr(),
            indices.data_ptr(), count, size, torch.get_num_threads(), self._room(size), found,
        )  # fmt: skip
        if not done or not isfinite(found[0]):
            return None
        return torch.tensor([*found, count], dtype=torch.float64)


class DenseSteps(_Dense):
    """`replay.Steps` for what `fits` and `knows`, where it is `available`.

    A call changes the tensors of the model and of the optimizer where they lie. The optimizer must
    have taken a step before, so that its state exists. The batches of one call have one size.
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        model: nn.Module,
        optimizer: Optimizer,
        scratch: Scratch | None = None,
    ) -> None:
        """Raises ValueError where weights or their state are not contiguous, of float32."""
        self.optimizer, self.groups, self.state = optimizer, optimizer.param_groups, optimizer.state
        self.name = _rule(optimizer, self.groups[0])
        self.rule = RULES[self.name]
        self.decays = (ctypes.c_double * len(self.groups))()
        self.owned: list[Parameter] = []
        self.counters: list[tuple[Any, Tensor]] = []
        self.labels: Tensor | None = None  # that are known to be right
        super().__init__(loss, model, scratch)

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

    def _read_settings(self) -> None:
        """Take the groups' settings as they are now."""
        if {_rule(self.optimizer, group) for group in self.groups} != {self.name}:
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
        """Losses (k,) of k steps. Raises ValueError, and takes none, for data of another kind,
        and for settings of another rule."""
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
        self.library.dense_steps(
            self.layers, len(self.layers), self.rule.place, self.smoothing, self.decays,
            x.data_ptr(), y.data_ptr(), chosen.data_ptr(), size, count,
            (ctypes.c_double * len(flat))(*flat), len(self.groups), torch.get_num_threads(),
            self._room(size), taken.data_ptr(),
        )  # fmt: skip
        for _, counter in self.counters:
            counter += count
        return taken

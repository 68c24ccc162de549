"""Check that the parts of a run have exactly known types, with nothing added.

An engine may only serve objects that compute what their class says: no subclass, no hook, no
replaced method, and no mode that changes torch's functions.
"""

from collections.abc import Iterable
from functools import partial
from operator import is_
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench.torch_internals import (
    OPTIMIZER_ATTRIBUTES,
    gradient_hooks,
    own_buffers,
    own_modules,
    own_parameters,
    torch_is_plain,
)


def is_untouched(module: nn.Module) -> bool:
    """Return whether a module has no hook, and replaces no method of its class."""
    own = vars(module)
    hooked = any(own[name] for name in own if name.endswith("_hooks"))
    return not hooked and not any(hasattr(type(module), name) for name in own)


def holds(module: nn.Module, parameters: Iterable[str] = (), buffers: Iterable[str] = ()) -> bool:
    """Return whether a module has just these parameters and buffers, and no submodule."""
    own = set(own_parameters(module)), set(own_buffers(module))
    return own == (set(parameters), set(buffers)) and not own_modules(module)


def weights_are_plain(model: nn.Module) -> bool:
    """Return whether all weights are trained, of torch's class, unhooked and unshared."""
    weights = [p for m in model.modules() for p in own_parameters(m).values() if p is not None]
    tensors = [t for t in (*weights, *model.buffers()) if t.numel()]
    places = [t.untyped_storage().data_ptr() for t in tensors]
    return len(set(places)) == len(places) and all(
        type(p) is nn.Parameter
        and p.requires_grad
        and p.is_leaf
        and p.layout is torch.strided
        and not gradient_hooks(p)
        for p in weights
    )


class Traits:
    """What a step can change of a training beside its numbers, for comparison.

    Traits are found much faster than `eligibility` decides, so each step can compare them.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        modules = list(model.modules())
        weights = [p for m in modules for p in own_parameters(m).values() if p is not None]
        parts = [part for module in modules for part in vars(module).values()]
        holders = [part for part in parts if isinstance(part, dict)]  # of hooks and tensors
        self._objects = [*map(type, modules), *parts, *weights]
        self._objects += [tensor for m in modules for tensor in own_buffers(m).values()]
        self._objects += [p for group in optimizer.param_groups for p in group["params"]]
        self._values = [len(holder) for holder in holders], torch_is_plain(), [
            (p.requires_grad, p.shape, p.layout, len(gradient_hooks(p))) for p in weights
        ]  # fmt: skip

    def equal(self, other: "Traits") -> bool:
        """Return whether nothing has changed: the same objects, and equal values."""
        a, b = self._objects, other._objects
        return len(a) == len(b) and all(map(is_, a, b)) and self._values == other._values


def is_untouched_optimizer(optimizer: Optimizer) -> bool:
    """Return whether a torch optimizer is unchanged, and owns each weight once.

    One of torch's schedules may wrap `step` to count its calls.
    """
    own = vars(optimizer)
    hooks = {name for name in own if name.startswith("_optimizer_") and name.endswith("_hooks")}
    if set(own) - hooks - OPTIMIZER_ATTRIBUTES or any(own[name] for name in hooks):
        return False
    if "step" in own and getattr(own["step"], "__wrapped__", None) is not type(optimizer).step:
        return False
    owned = [id(p) for group in optimizer.param_groups for p in group["params"]]
    return len(set(owned)) == len(owned)


def unwrap(function: Any) -> tuple[Any, dict[str, Any]]:
    """Return the function within partials, and their keywords; (None, {}) if unknown.

    Only functions and classes are known: they are equal only where they are the same object.
    """
    settings: dict[str, Any] = {}
    while _is_partial(function):
        if function.args:
            return None, {}
        settings = dict(function.keywords) | settings
        function = function.func
    known = isinstance(function, FunctionType | BuiltinFunctionType | type)
    return (function, settings) if known else (None, {})


def _is_partial(function: Any) -> bool:
    """Return whether a value is a partial of functools, or Hydra's subclass."""
    made = type(function)
    return made is partial or (issubclass(made, partial) and made.__module__.startswith("hydra."))


def is_number(value: Any) -> bool:
    """Return whether a setting is a plain number, not a tensor."""
    return isinstance(value, int | float) and not isinstance(value, Tensor)

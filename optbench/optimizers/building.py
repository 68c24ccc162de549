"""Build an optimizer that is ready to step, from its configuration and a model."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench.common.errors import UserError
from optbench.optimizers import known
from optbench.optimizers.factories import (
    Factory,
    accepted_names,
    call,
    check_arguments,
    check_callable,
    name_of,
    unwrap,
)
from optbench.optimizers.grouped import Grouped, build_grouped, split_decay
from optbench.optimizers.layers import layer_parameters
from optbench.optimizers.muon import KIND, MuonWithAdamW
from optbench.optimizers.parts import parameters_of


def build(
    factory: Callable[..., Optimizer], model: nn.Module, *, decay_biases_and_norms: bool = True
) -> Optimizer:
    """Call `factory`, such as `partial(torch.optim.Adam, lr=1e-3)`, on the parameters.

    A `Grouped` factory makes the groups, and the optimizers, of its rules. With
    `decay_biases_and_norms=False` parameters of at least two dimensions keep the configured
    weight_decay, all others (biases, norms) get 0. Classes of torch.optim that have a fused kernel
    use it, unless fused, foreach or differentiable is configured.

    Raises `UserError` if the class refuses its arguments, does not fit, or leaves a parameter
    without an owner.
    """
    check_callable(factory)
    grouped = factory if isinstance(factory, Grouped) else None
    factories = [factory] if grouped is None else grouped.factories
    name = name_of(factories[0])
    named = {key: p for key, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise UserError(f"{name} has nothing to train: no parameter of the model requires_grad")
    for each in factories:
        check_arguments(each)
    decay = decay_biases_and_norms
    if grouped is not None:
        optimizer = build_grouped(grouped, model, fits_fused, decay_biases_and_norms=decay)
    else:
        params = list(named.values())
        groups = params if decay else _decay_groups(unwrap(factory)[0], params)
        if unwrap(factory)[0] is MuonWithAdamW:
            groups = _by_kind(model, decay=decay)
        optimizer = call(factory, groups, fused=fits_fused(factory, params))
    _check_class(optimizer, name)
    if not decay and any("weight_decay" not in group for group in optimizer.param_groups):
        raise UserError(
            f"decay_biases_and_norms=false needs an optimizer with weight_decay, and {name} has "
            f"none: set decay_biases_and_norms=true or choose another, such as adamw"
        )
    _check_owners(optimizer, named, name)
    return optimizer


def fits_fused(factory: Factory, params: Sequence[nn.Parameter]) -> bool:
    """Return whether torch's fused kernel serves the parameters.

    False if the user has configured a kernel.
    """
    cls, given = unwrap(factory)
    chosen = any(given.get(key) is not None for key in ("fused", "foreach", "differentiable"))
    return not chosen and all(_has_fused(cls, p) for p in params)


def learning_rate(optimizer: Optimizer) -> float | None:
    """Return the current lr of the first parameter group; None without a numeric lr."""
    lr = optimizer.param_groups[0].get("lr")
    if isinstance(lr, int | float) or (isinstance(lr, Tensor) and lr.numel() == 1):
        return float(lr)
    return None


def takes_any_layout(factory: Callable[..., Optimizer]) -> bool:
    """Return whether the optimizers are known to compute the same in any layout."""
    factories = factory.factories if isinstance(factory, Grouped) else [factory]
    return all(known.in_any_layout(unwrap(each)[0]) for each in factories)


def _has_fused(cls: Any, p: Tensor) -> bool:
    # other packages may mean something else by `fused`
    ours = getattr(cls, "__module__", "").startswith("torch.optim.") or cls is MuonWithAdamW
    fits = p.device.type in ("cpu", "cuda") and not p.is_complex()
    return ours and "fused" in accepted_names(cls) and fits


def _decay_groups(cls: Any, params: list[nn.Parameter]) -> list[dict[str, Any]]:
    if cls is torch.optim.LBFGS:
        raise UserError(
            "LBFGS takes a single group of parameters and has no weight_decay: set "
            "decay_biases_and_norms=true"
        )
    return list(split_decay({"params": params}))


def _by_kind(model: nn.Module, *, decay: bool) -> list[dict[str, Any]]:
    """Return a group for each series of parameters of one kind, with that kind."""
    groups: list[dict[str, Any]] = []
    for entry in layer_parameters(model):
        if not groups or groups[-1][KIND] != entry.kind:
            groups.append({"params": [], KIND: entry.kind})
        groups[-1]["params"].append(entry.parameter)
    return groups if decay else [half for group in groups for half in split_decay(group)]


def _check_class(optimizer: Optimizer, name: str) -> None:
    """Raise `UserError` for a class that forgets what every optimizer has."""
    if not isinstance(getattr(optimizer, "param_groups", None), list):
        raise UserError(
            f"{name} has no param_groups: its __init__ must call super().__init__(params, defaults)"
        )
    step = getattr(type(optimizer), "step", Optimizer.step)
    if inspect.unwrap(step) is inspect.unwrap(Optimizer.step):  # torch wraps the step of a class
        raise UserError(f"{name} has no method step, which takes an optimizer's step")


def _check_owners(optimizer: Optimizer, named: dict[str, nn.Parameter], name: str) -> None:
    """Raise `UserError` unless each trainable parameter lies in exactly one group."""
    owned = [id(p) for p in parameters_of(optimizer)]
    for key, p in named.items():
        count = owned.count(id(p))
        if count != 1:
            raise UserError(
                f"{name} owns the parameter {key} {count} times; each must be in exactly one "
                f"group, or it is not trained, or twice a step"
            )

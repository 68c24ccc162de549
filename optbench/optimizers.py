"""Build an optimizer that is ready to step, from its configuration and a model."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from optbench import textbook
from optbench.common.errors import MUON_GROUPS_HINT, UserError, described, memory_is_full
from optbench.torch_internals import has_step_hooks


def check_callable(factory: object, name: str = "") -> None:
    """Raise `UserError` for what makes no optimizer. name: of the optimizer, quoted."""
    if not callable(factory):
        raise UserError(
            f"the optimizer{f' {name}' if name else ''} must be a class, or a function that takes "
            f"the parameters, not a {type(factory).__name__}: partial(torch.optim.Adam, lr=1e-3) "
            f"is one"
        )


def build(
    factory: Callable[..., Optimizer], model: nn.Module, *, decay_biases_and_norms: bool = True
) -> Optimizer:
    """Call `factory`, such as `partial(torch.optim.Adam, lr=1e-3)`, on the parameters.

    With `decay_biases_and_norms=False` there are two groups: parameters of at least two dimensions
    keep the configured weight_decay, all others (biases, norms) get 0. Classes of torch.optim that
    have a fused kernel use it, unless fused, foreach or differentiable is configured.

    Raises `UserError` if the class refuses its arguments, does not fit, or leaves a parameter
    without an owner.
    """
    check_callable(factory)
    cls, given = _unwrap(factory)
    name = cls.__name__
    named = {key: p for key, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise UserError(f"{name} has nothing to train: no parameter of the model requires_grad")
    accepted = _accepted(cls)
    unknown = [key for key in given if accepted and key not in accepted]
    if unknown:
        raise UserError(f"{name} does not accept {', '.join(unknown)}.{_list(accepted)}")
    _check_kinds(cls, given)
    chosen = any(given.get(key) is not None for key in ("fused", "foreach", "differentiable"))
    params = list(named.values())
    if not chosen and all(_has_fused(cls, p) for p in params):
        factory = partial(factory, fused=True)
    try:
        optimizer = factory(params if decay_biases_and_norms else _decay_groups(cls, params))
    except UserError:
        raise
    except Exception as error:  # a class of any package may raise anything
        if memory_is_full(error):
            raise
        settings = ", ".join(f"{key}={value!r}" for key, value in given.items())
        text = str(error) if isinstance(error, TypeError | ValueError) else described(error)
        advice = _advice(cls, given)
        advice = ("" if advice in text else advice) or _list(accepted)
        raise UserError(f"{name}({settings}) was refused: {text}.{advice}") from error
    if not isinstance(optimizer, Optimizer):
        raise UserError(
            f"{name} gave a {type(optimizer).__name__}, and not a torch.optim.Optimizer: derive "
            f"the class from torch.optim.Optimizer, or return one from the function"
        )
    if not decay_biases_and_norms and "weight_decay" not in getattr(optimizer, "defaults", {}):
        raise UserError(
            f"decay_biases_and_norms=false needs an optimizer with weight_decay, and {name} has "
            f"none: set decay_biases_and_norms=true or choose another, such as adamw"
        )
    _check_owners(optimizer, named, name)
    return optimizer


def learning_rate(optimizer: Optimizer) -> float | None:
    """Return the current lr of the first parameter group; None without a numeric lr."""
    lr = optimizer.param_groups[0].get("lr")
    if isinstance(lr, int | float) or (isinstance(lr, Tensor) and lr.numel() == 1):
        return float(lr)
    return None


def is_known(optimizer: Optimizer) -> bool:
    """Return whether the class is exactly torch's or ours, and its step has no hooks."""
    known = type(optimizer) in _known()
    return known and "step" not in vars(optimizer) and not has_step_hooks(optimizer)


def takes_any_layout(factory: Callable[..., Optimizer]) -> bool:
    """Return whether the optimizer is known to compute the same in any memory layout.

    LBFGS does not: it takes a `view` of every gradient as a vector.
    """
    return _unwrap(factory)[0] in _known() - {torch.optim.LBFGS}


@cache
def _known() -> frozenset[type]:
    found = [*vars(torch.optim).values(), *vars(textbook).values(), MuonWithAdamW]
    return frozenset(c for c in found if isinstance(c, type) and issubclass(c, Optimizer))


class MuonWithAdamW(Optimizer):
    """torch.optim.Muon for matrices, torch.optim.AdamW for all other parameters.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix. A matrix is a parameter of
    two dimensions; convolution kernels, biases and norms go to AdamW. `hidden_only` also gives the
    first and last weights of the model to AdamW, as is usual for language models, where these are
    the embedding and the head. A model without hidden matrices then has AdamW only.

    lr: of Muon. adamw_lr_ratio: AdamW's lr divided by Muon's, so that one lr tunes and schedules
    both. weight_decay: of both, decoupled. Muon's groups come first in `param_groups`.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.01,
        adamw_lr_ratio: float = 0.015,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
        adjust_lr_fn: str | None = None,
        hidden_only: bool = False,
        fused: bool | None = None,
    ) -> None:
        if adamw_lr_ratio < 0:
            raise ValueError(f"adamw_lr_ratio must be at least 0, not {adamw_lr_ratio}")
        settings = {"lr": lr, "weight_decay": weight_decay}
        groups = [settings | group for group in _as_groups(params)]
        weights = [p for group in groups for p in group["params"] if p.ndim >= 2]
        outer = {weights[0], weights[-1]} if hidden_only and weights else set()
        matrices, others = [], []
        for group in groups:
            mine = [p for p in group["params"] if p.ndim == 2 and p not in outer]
            rest = [p for p in group["params"] if p.ndim != 2 or p in outer]
            if mine:
                matrices.append(group | {"params": mine})
            if rest:
                others.append(group | {"params": rest, "lr": group["lr"] * adamw_lr_ratio})
        self.parts: list[Optimizer] = []
        if matrices:
            muon = torch.optim.Muon(
                matrices,
                momentum=momentum,
                nesterov=nesterov,
                ns_steps=ns_steps,
                adjust_lr_fn=adjust_lr_fn,
            )
            self.parts.append(muon)
        if others:
            adamw = torch.optim.AdamW(others, betas=adamw_betas, eps=adamw_eps, fused=fused)
            self.parts.append(adamw)
        super().__init__([group for part in self.parts for group in part.param_groups], settings)
        self._share()

    def _share(self) -> None:
        """Let the parts use this optimizer's own groups and state."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # also at the end of load_state_dict, with new groups
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


def _as_groups(params: ParamsT) -> list[dict[str, Any]]:
    entries: list[Any] = list(params)
    if entries and isinstance(entries[0], dict):
        return [group | {"params": list(group["params"])} for group in entries]
    return [{"params": entries}]


def _unwrap(factory: Callable[..., Optimizer]) -> tuple[Any, dict[str, Any]]:
    """Return the class or function inside nested partials, and its keyword arguments."""
    given: dict[str, Any] = {}
    while isinstance(factory, partial):
        given = dict(factory.keywords) | given
        factory = factory.func
    return factory, given


def _parameters(cls: Callable[..., Optimizer]) -> list[inspect.Parameter]:
    """Return the parameters of a class or function; none are known of a builtin."""
    try:
        return list(inspect.signature(cls).parameters.values())
    except ValueError:
        return []


def _accepted(cls: Callable[..., Optimizer]) -> list[str]:
    """Return the names of keyword arguments; none if `**kwargs` takes any."""
    parameters = _parameters(cls)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    return [p.name for p in parameters[1:]]  # the first takes the model's parameters


def _check_kinds(cls: Callable[..., Optimizer], given: dict[str, Any]) -> None:
    """Raise `UserError` if a known class gets a text for a number, or too many values."""
    if cls not in _known():
        return
    name = getattr(cls, "__name__", str(cls))
    for key, usual in ((p.name, p.default) for p in _parameters(cls)[1:] if p.name in given):
        value = given[key]
        kind = "true or false" if isinstance(usual, bool) else "a number"
        if isinstance(usual, int | float) and not isinstance(value, int | float | Tensor):
            raise UserError(f"{name}: {key} must be {kind}, not {value!r}")
        several = len(value) if isinstance(value, Sequence) else 0
        if isinstance(usual, tuple) and several != len(usual):
            raise UserError(f"{name}: {key} must have {len(usual)} values, not {value!r}")


def _advice(cls: Callable[..., Optimizer], given: dict[str, Any]) -> str:
    """Return advice if a class needs arguments that optbench does not give; else ""."""
    parameters = _parameters(cls)
    if not parameters:
        return ""
    first, name = parameters[0].name, getattr(cls, "__name__", str(cls))
    needed = [p for p in parameters[1:] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [p.name for p in needed if p.default is p.empty and p.name not in given]
    if first in ("model", "module", "net"):
        return (
            " It takes the model itself as its first argument, and optbench gives an optimizer "
            "the model's parameters: choose another class"
        )
    if "optimizer" in first or any("optimizer" in key for key in missing):
        inner = "torch.optim.SGD(params, lr=lr)"
        call = f"{inner}, ..." if "optimizer" in first else f"params, {missing[0]}=..."
        return (
            f" It wraps another optimizer: give as optimizer._target_ a function of yours that "
            f"makes both, such as: def wrapped(params, lr=0.01): return {name}({call})"
        )
    if missing:
        return f" It needs {', '.join(missing)}: give +optimizer.{missing[0]}=VALUE"
    with suppress(OSError, TypeError):  # a class may have no source
        return MUON_GROUPS_HINT if "use_muon" in inspect.getsource(cls) else ""
    return ""


def _list(accepted: list[str]) -> str:
    return f" It accepts: {', '.join(accepted)}" if accepted else ""


def _has_fused(cls: Any, p: Tensor) -> bool:
    # other packages may mean something else by `fused`
    ours = getattr(cls, "__module__", "").startswith("torch.optim.") or cls is MuonWithAdamW
    fits = p.device.type in ("cpu", "cuda") and not p.is_complex()
    return ours and "fused" in _accepted(cls) and fits


def _decay_groups(cls: Any, params: list[nn.Parameter]) -> list[dict[str, Any]]:
    if cls is torch.optim.LBFGS:
        raise UserError(
            "LBFGS takes a single group of parameters and has no weight_decay: set "
            "decay_biases_and_norms=true"
        )
    decayed = [p for p in params if p.ndim >= 2]
    others = [p for p in params if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _check_owners(optimizer: Optimizer, named: dict[str, nn.Parameter], name: str) -> None:
    """Raise `UserError` unless each trainable parameter lies in exactly one group."""
    owned = [id(p) for group in optimizer.param_groups for p in group["params"]]
    for key, p in named.items():
        count = owned.count(id(p))
        if count != 1:
            raise UserError(
                f"{name} owns the parameter {key} {count} times; each must be in exactly one "
                f"group, or it is not trained, or twice a step"
            )

"""Factories of optimizers: what they accept, and the call that explains a refusal."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import FunctionType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from optbench.common.errors import MUON_GROUPS_HINT, UserError, described, memory_is_full
from optbench.common.text import with_article
from optbench.optimizers.known import is_known_class

Factory = Callable[..., Optimizer]
PARTNER_HINT = (
    " It takes matrices only: give all other parameters to a partner, as in "
    "'+optimizer.groups={matrices:{dims:2},others:{optimizer:{_target_:torch.optim.AdamW},"
    "lr_factor:0.1}}'; optimizer=muon does so for torch's Muon"
)


def check_callable(factory: object, name: str = "") -> None:
    """Raise `UserError` for what makes no optimizer. name: of the optimizer, quoted."""
    if not callable(factory):
        raise UserError(
            f"the optimizer{f' {name}' if name else ''} must be a class, or a function that takes "
            f"the parameters, not {with_article(type(factory).__name__)}: "
            f"partial(torch.optim.Adam, lr=1e-3) is one"
        )


def unwrap(factory: Factory) -> tuple[Any, dict[str, Any]]:
    """Return the class or function inside nested partials, and its keyword arguments."""
    given: dict[str, Any] = {}
    while isinstance(factory, partial):
        given = dict(factory.keywords) | given
        factory = factory.func
    return factory, given


def name_of(factory: Factory) -> str:
    """Return the name of a factory's class or function."""
    made = unwrap(factory)[0]
    return str(getattr(made, "__name__", type(made).__name__))


def arguments(cls: Factory) -> list[inspect.Parameter]:
    """Return the parameters of a class or function; none are known of a builtin."""
    try:
        return list(inspect.signature(cls).parameters.values())
    except ValueError:
        return []


def _has_signature(cls: Factory) -> bool:
    """Return whether a class or function tells its arguments; a builtin does not."""
    try:
        inspect.signature(cls)
    except ValueError:
        return False
    return True


def accepted_names(cls: Factory) -> list[str]:
    """Return the names of keyword arguments; none if `**kwargs` takes any."""
    parameters = arguments(cls)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    return [p.name for p in parameters[1:]]  # the first takes the model's parameters


def value_of(factory: Factory, name: str) -> Any:
    """Return the value that a factory's class gets for an argument, or None."""
    cls, given = unwrap(factory)
    if name in given:
        return given[name]
    defaults = (p.default for p in arguments(cls) if p.name == name)
    return next((value for value in defaults if value is not inspect.Parameter.empty), None)


def check_arguments(factory: Factory) -> None:
    """Raise `UserError` for arguments that the class lacks, or of a wrong kind."""
    cls, given = unwrap(factory)
    accepted = accepted_names(cls)
    if isinstance(cls, type | FunctionType) and not arguments(cls) and _has_signature(cls):
        raise UserError(
            f"{name_of(factory)} takes no arguments, and an optimizer takes the parameters first: "
            f"def __init__(self, params, lr=1e-3)"
        )
    if unknown := [key for key in given if accepted and key not in accepted]:
        name = name_of(factory)
        raise UserError(f"{name} does not accept {', '.join(unknown)}.{listed(accepted)}")
    if is_known_class(cls):
        check_kinds(cls, given)


def check_kinds(cls: Factory, given: dict[str, Any]) -> None:
    """Raise `UserError` if a known class gets a text for a number, or too many values."""
    name = getattr(cls, "__name__", str(cls))
    for key, usual in ((p.name, p.default) for p in arguments(cls)[1:] if p.name in given):
        value = given[key]
        kind = "true or false" if isinstance(usual, bool) else "a number"
        if isinstance(usual, int | float) and not isinstance(value, int | float | Tensor):
            raise UserError(f"{name}: {key} must be {kind}, not {value!r}")
        several = len(value) if isinstance(value, Sequence) else 0
        if isinstance(usual, tuple) and several != len(usual):
            raise UserError(f"{name}: {key} must have {len(usual)} values, not {value!r}")


def call(factory: Factory, params: Any, *, fused: bool = False) -> Optimizer:
    """Return the optimizer of these parameters or groups.

    fused: ask for torch's fused kernel. Raises `UserError` with the class's own words, and advice,
    where it refuses.
    """
    cls, given = unwrap(factory)
    name, accepted = name_of(factory), accepted_names(cls)
    try:
        optimizer = factory(params, fused=True) if fused else factory(params)
    except UserError:
        raise
    except Exception as error:  # a class of any package may raise anything
        if memory_is_full(error):
            raise
        settings = ", ".join(f"{key}={value!r}" for key, value in given.items())
        text = str(error) if isinstance(error, TypeError | ValueError) else described(error)
        hint = advice(cls, given)
        if "2D param" in text or "2-D param" in text:
            hint = PARTNER_HINT
        hint = ("" if hint in text else hint) or listed(accepted)
        raise UserError(f"{name}({settings}) was refused: {text}.{hint}") from error
    if not isinstance(optimizer, Optimizer):
        raise UserError(
            f"{name} gave a {type(optimizer).__name__}, and not a torch.optim.Optimizer: derive "
            f"the class from torch.optim.Optimizer, or return one from the function"
        )
    return optimizer


def advice(cls: Factory, given: dict[str, Any]) -> str:
    """Return advice if a class needs arguments that optbench does not give; else ""."""
    parameters = arguments(cls)
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
        shown = f"{inner}, ..." if "optimizer" in first else f"params, {missing[0]}=..."
        return (
            f" It wraps another optimizer: give as optimizer._target_ a function of yours that "
            f"makes both, such as: def wrapped(params, lr=0.01): return {name}({shown})"
        )
    if missing:
        return (
            f" It needs {', '.join(missing)}: give +optimizer.{missing[0]}=VALUE, or in Python "
            f"partial({name}, {missing[0]}=VALUE)"
        )
    with suppress(OSError, TypeError):  # a class may have no source
        return MUON_GROUPS_HINT if "use_muon" in inspect.getsource(cls) else ""
    return ""


def listed(accepted: Sequence[str]) -> str:
    """Return a sentence of the names that a class accepts; "" if they are not known."""
    return f" It accepts: {', '.join(accepted)}" if accepted else ""

"""Find the classes, functions and modules of own code that keep global state."""

import dis
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache, partial
from types import (
    CellType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench.losses import ModuleLoss
from optbench.problem import Problem
from optbench.training.object_state import parts

CACHE = type(lru_cache(int))
NAMESPACES = (SimpleNamespace, threading.local, ContextVar)  # whose attributes keep state
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
# objects of packages that may hold own code: in any attribute, or in those of INNER
HOLDERS = (nn.Module, Optimizer, LRScheduler, Problem, ModuleLoss)
CALLS = (partial, MethodType, staticmethod, classmethod, property)
INNER = ("func", "args", "keywords", "__func__", "__self__", "fget", "fset")


def owners_of(things: tuple[Any, ...]) -> Iterator[tuple[str, Any, set[str] | None]]:
    """Yield the classes, functions, modules, cells and caches that things lead to.

    Each comes with its path, and with the names of its attributes that count; None: all.
    """
    left, seen = deque(things), dict[int, Any]()
    while left:
        thing = left.popleft()
        if id(thing) in seen or isinstance(thing, (*parts.SCALARS, Tensor, ModuleType)):
            continue
        seen[id(thing)] = thing
        own = not parts.is_packaged(thing if isinstance(thing, type) else type(thing))
        if isinstance(thing, FunctionType):
            left.extend(vars(thing).values())
            for cell in thing.__closure__ or ():
                with suppress(ValueError):  # an empty cell
                    left.append(cell.cell_contents)
            for path, owner, names in _keepers_of(thing):
                known = vars(owner)
                named = {n: known[n] for n in names or () if n in known}
                left.extend(named.values())
                yield path, owner, names
                yield from _held_by(path, named)
        elif isinstance(thing, type):
            if own:
                left.extend((*thing.__mro__, *vars(thing).values()))
                path = f"{thing.__module__}.{thing.__qualname__}"
                yield path, thing, None
                if "<locals>" not in path:  # variables around a local class are the caller's
                    yield from _held_by(path, vars(thing))
        elif isinstance(thing, CACHE):
            left.append(thing.__wrapped__)
            if not (isinstance(thing.__wrapped__, FunctionType) and parts.is_packaged(thing)):
                yield f"the cache of {thing.__module__}.{thing.__qualname__}", thing, set()
        elif isinstance(thing, CONTAINERS):
            left.extend(thing.values() if isinstance(thing, dict) else thing)
        elif isinstance(thing, CALLS):
            left.extend(getattr(thing, name, None) for name in INNER)
        else:
            left.append(type(thing))
            held = getattr(thing, "__dict__", {})
            whole = own or isinstance(thing, HOLDERS)
            left.extend(held.values() if whole else [held.get("__wrapped__")])


def _keepers_of(function: FunctionType) -> Iterator[tuple[str, Any, set[str] | None]]:
    """Yield an own function, its module, and the own modules that it names.

    Each module comes with the names that the function uses in it.
    """
    home = sys.modules.get(function.__globals__.get("__name__", ""))
    if home is None or parts.is_packaged(home):
        return
    yield f"{function.__module__}.{function.__qualname__}", function, None
    code = list(_instructions(function.__code__))
    used = {i.argval for i in code if i.opname.endswith("_GLOBAL")}
    # `globals()["n"]` and `setattr(sys.modules[...], "n", 1)` name what they change as texts
    if "globals" in used or any(i.argval == "modules" for i in code):
        used |= {i.argval for i in code if isinstance(i.argval, str)}
    yield home.__name__, home, used
    for value in [vars(home).get(name) for name in used]:
        if isinstance(value, ModuleType) and not parts.is_packaged(value):
            yield value.__name__, value, {i.argval for i in code if i.opname.endswith("_ATTR")}


def _held_by(path: str, named: Mapping[str, Any]) -> Iterator[tuple[str, Any, set[str] | None]]:
    """Yield the namespaces among named values, and the cells of closures."""
    for name, value in named.items():
        if isinstance(value, NAMESPACES):
            yield f"{path}.{name}", value, None
    left = list(named.values())
    for thing in left:  # the loop adds to the list
        if isinstance(thing, CALLS):
            left.extend(getattr(thing, name, None) for name in INNER)
        elif isinstance(thing, FunctionType) and not parts.is_packaged(thing):
            for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
                yield f"{thing.__module__}.{thing.__qualname__}.{name}", cell, {"cell_contents"}
                content = next((value for _, value in attributes_of(cell)), None)
                if not any(content is other for other in left):
                    left.append(content)


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _instructions(inner)


def attributes_of(owner: Any) -> list[tuple[str, Any]]:
    """Return an owner's attributes, code too; those of a cell are its content."""
    if isinstance(owner, ContextVar):
        with suppress(LookupError):  # no value, and no default
            return [("value", owner.get())]
        return []
    if not isinstance(owner, CellType):
        return list(vars(owner).items())
    with suppress(ValueError):  # an empty cell
        return [("cell_contents", owner.cell_contents)]
    return []


def assign(owner: Any, name: str, value: Any) -> None:
    """Set an owner's attribute, or the value of a context variable."""
    if isinstance(owner, ContextVar):
        owner.set(value)
    else:
        setattr(owner, name, value)

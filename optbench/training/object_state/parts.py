"""The parts of live objects that `object_state` keeps, compares or skips."""

import dis
import enum
import inspect
import logging
import sys
import sysconfig
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cache, lru_cache
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench.torch_internals import is_wrapped_by_schedule

SCALARS = (type(None), bool, int, float, str)
DICTS: dict[str, type] = {c.__name__: c for c in (dict, OrderedDict, defaultdict, Counter)}
FACTORIES: dict[str, type] = {c.__name__: c for c in (dict, list, set, int, float, deque)}
SEQUENCES: dict[str, type] = {c.__name__: c for c in (list, tuple, set, frozenset)}
STANDARD_LIBRARY_PATHS = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
Node = Any  # a scalar, or a dict with its "kind"


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def full_name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', None)}:{getattr(thing, '__qualname__', None)}"


def mangled(cls: type, name: str) -> str:
    """Return the name under which Python keeps a private attribute of a class."""
    private = name.startswith("__") and not name.endswith("__")
    return f"_{cls.__name__.lstrip('_')}{name}" if private else name


def attributes_of(thing: Any) -> dict[str, Any]:
    """Return an object's attributes and slots, without those that schedules add."""
    found = dict(getattr(thing, "__dict__", {}))
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = mangled(cls, slot)
            if slot not in ("__dict__", "__weakref__") and hasattr(thing, name):
                found[name] = getattr(thing, name)
    if isinstance(thing, Optimizer) and is_wrapped_by_schedule(found.get("step")):
        del found["step"]  # a schedule's wrapper
    if isinstance(thing, LRScheduler):
        # as in torch's own state_dict: functions of the step number have no state
        lambdas = found.get("lr_lambdas", [None])
        if all(isinstance(each, FunctionType) and has_no_memory(each) for each in lambdas):
            found.pop("lr_lambdas", None)
    return found


@cache
def hook_attributes() -> set[str]:
    """Return the names of torch's own dictionaries of hooks, whose keys count up in a process."""
    # not at import: torch's first optimizer imports its compiler, which takes a second
    things = (nn.Module(), torch.optim.SGD([torch.zeros(1)]))
    names = {name for thing in things for name in vars(thing)}
    return {name for name in names if name.startswith("_") and "_hooks" in name}


def is_hooks(thing: Any, name: str, value: Any) -> bool:
    """Return whether an attribute is one of torch's dictionaries of hooks."""
    known = isinstance(thing, nn.Module | Optimizer) and name in hook_attributes()
    return known and isinstance(value, dict)


def has_no_memory(function: FunctionType) -> bool:
    """Return whether a function changes no variable outside, such as a counter."""
    if is_packaged(function):
        return True
    outside = [cell.cell_contents for cell in function.__closure__ or ()]
    sets = {i.argval for i in dis.get_instructions(function) if i.opname == "STORE_DEREF"}
    fixed = all(type(value) in SCALARS for value in [*outside, *(function.__defaults__ or ())])
    return fixed and not vars(function) and not sets & set(function.__code__.co_freevars)


def is_pure(cls: type) -> bool:
    """Return whether attributes hold all of a class's objects: no base is in C."""
    for base in cls.__mro__[:-1]:
        new = base.__dict__.get("__new__")
        made = new.__func__ if isinstance(new, staticmethod) else new
        if base.__module__ in ("typing", "abc"):
            continue
        if made is not None and not isinstance(made, FunctionType):
            return False
        if not base.__flags__ & (1 << 9):  # Py_TPFLAGS_HEAPTYPE: made by a class statement
            return False
        slots = [name for name in base.__dict__ if inspect.ismemberdescriptor(base.__dict__[name])]
        known = len(slots) + ("__dict__" in base.__dict__) + ("__weakref__" in base.__dict__)
        if base.__base__ and base.__basicsize__ - base.__base__.__basicsize__ > 8 * known:
            return False  # a C type, such as a lock, with state that no attribute shows
    return cls.__new__ is object.__new__ or isinstance(cls.__new__, FunctionType)


def is_packaged(thing: Any) -> bool:
    """Return whether a function, class or module is Python's or from a package."""
    name = str(getattr(thing, "__name__" if isinstance(thing, ModuleType) else "__module__", None))
    module = sys.modules.get(name)
    if module is None or name == "__main__":
        return isinstance(thing, BuiltinFunctionType)
    file = getattr(module, "__file__", None)
    if file is None:
        return name.split(".")[0] in sys.builtin_module_names
    return name.split(".")[0] == "optbench" or _is_installed(file)


@lru_cache(maxsize=4096)
def _is_installed(file: str) -> bool:
    """Return whether a module's file is Python's or of an installed package."""
    path = Path(file)
    standard = any(Path(folder) in path.parents for folder in STANDARD_LIBRARY_PATHS)
    return standard or bool({"site-packages", "dist-packages"} & set(path.parts))


def constant_node(value: Any) -> Node | None:
    """Return the node of a value that is only compared, such as code, or None."""
    if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format):
        return {"kind": "torch", "text": str(value)}
    if isinstance(value, enum.Enum):
        return {"kind": "enum", "class": full_name(type(value)), "name": value.name}
    if isinstance(value, logging.Logger):
        return {"kind": "code", "name": f"logger:{value.name}"}
    if isinstance(value, ModuleType):
        return {"kind": "code", "name": f"module:{value.__name__}"}
    if isinstance(value, type):
        return {"kind": "code", "name": full_name(value)}
    if isinstance(value, FunctionType) and is_packaged(value):
        local = "<" in value.__qualname__ or value.__closure__
        return None if local else {"kind": "code", "name": full_name(value)}
    bound = getattr(value, "__self__", None)
    if isinstance(value, BuiltinFunctionType) and (
        bound is None or isinstance(bound, ModuleType | type)
    ):
        return {"kind": "code", "name": full_name(value)}
    if type(value) is bytes:
        return {"kind": "bytes", "text": value.hex()}
    if isinstance(value, complex):
        return {"kind": "complex", "parts": [value.real, value.imag]}
    if isinstance(value, range):
        return {"kind": "range", "parts": [value.start, value.stop, value.step]}
    if isinstance(value, slice | type(Ellipsis) | PurePath):  # settings
        return {"kind": "fixed", "text": repr(value)}
    if isinstance(value, torch.Size):
        return {"kind": "size", "items": list(value)}
    return None

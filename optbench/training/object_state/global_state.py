"""The state that own code keeps on classes and functions and in modules, apart for each run."""

import dis
import io
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench.losses import ModuleLoss
from optbench.problem import Problem
from optbench.training.object_state import parts
from optbench.training.object_state.capture import Capture, Unsaveable
from optbench.trial import copy_of

Values = dict[str, Any]  # by the name of a class, function or module, and of its attribute
Owner = tuple[Any, set[str] | None]  # a class, function or module; which attributes, None: all
CONTAINERS = (dict, list, tuple, set, frozenset, deque)
# objects of packages that own code may lie in: as attributes, and by these names
HOLDERS = (nn.Module, Optimizer, LRScheduler, Problem, ModuleLoss)
CALLS = (partial, MethodType, staticmethod, classmethod, property)
DEFAULTS = ("__defaults__", "__kwdefaults__")  # a list among these outlives the call
INNER = ("func", "args", "keywords", "__func__", "__self__", "fget", "fset")


class GlobalState:
    """What a training remembers outside of its objects, by `Mine.steps += 1` or `global COUNT`.

    The values are in place within `with state`, and stay to be looked at. The `with` of another
    training undoes the changes of this one, but not what the caller changed after it.
    """

    _present: ClassVar[Optional["GlobalState"]] = None  # the one whose values are in place

    def __init__(self, *code: Any) -> None:
        """Prepare for the functions and classes that will make the training's objects."""
        self._code = code
        self._owners: dict[str, Owner] = {}
        self._found: Values = {}  # copies of what the training found
        self._own: Values | None = None  # its changed values, while others are in place
        self._left: Values | None = None  # all values after `with`
        self._ended: Values | None = None  # the changed values at the training's end

    def __enter__(self) -> None:
        other, GlobalState._present = GlobalState._present, self
        if other is not self:
            if other is not None:
                other._leave()
            self._found = _copies(self.values())
            if self._own is None:
                self.see(*self._code)
                self._code = ()  # which holds the dataset
            else:
                self._bind(self.values() | self._own)
        self._left = self._ended = None

    def __bool__(self) -> bool:
        """Return whether there is own code at all."""
        return bool(self._owners)

    def __exit__(self, *error: object) -> None:
        self._left = self._held()

    def see(self, *things: Any) -> None:
        """Look for global state in the code of objects, classes and functions."""
        known = self.values()
        for path, owner, names in _owners(things):
            while self._owners.get(path, (owner,))[0] is not owner:
                path += "'"  # another class or function of the same name
            more = self._owners.get(path, (owner, set()))[1]
            self._owners[path] = owner, None if names is None or more is None else names | more
        self._found |= _copies({k: v for k, v in self.values().items() if k not in known})

    def end(self) -> None:
        """Take all later changes for the caller's."""
        self._ended = self.changed() if GlobalState._present is self else None

    def values(self) -> Values:
        """Return the values that are in place."""
        return {key: value for key, value in self._held().items() if _is_memory(value)}

    def changed(self) -> Values:
        """Return the values that differ from those that the training found."""
        return {k: v for k, v in self.values().items() if not self._is_as_found(k, v)}

    def load(self, changed: Values) -> None:
        """Restore `changed` values. Raise ValueError if one would replace code."""
        now = self.values()
        for key in changed.keys() - now.keys():
            owner, name = self._place(key)
            if name.startswith("__") or not _is_memory(getattr(owner, name, None)):
                raise ValueError(f"the checkpoint would replace {key}")
        self._bind(self._as_found(now) | changed)

    def _leave(self) -> None:
        now, self._own = self.values(), self.changed()
        left, ended = self._left, self._ended
        callers = {
            key: value
            for key, value in now.items()
            if (left is not None and left.get(key, left) is not value)
            or (ended is not None and key not in ended)
        }
        gone = set() if left is None else left.keys() - now.keys()
        target = self._as_found(now) | callers
        self._bind({key: value for key, value in target.items() if key not in gone})

    def _as_found(self, now: Values) -> Values:
        """Return what the training found: the values of `now` if equal, else copies."""
        equal = {k: v for k, v in now.items() if self._is_as_found(k, v)}
        return equal | _copies({k: v for k, v in self._found.items() if k not in equal})

    def _is_as_found(self, key: str, value: Any) -> bool:
        with suppress(Unsaveable):
            return key in self._found and _equal(_node(value), _node(self._found[key]))
        return False

    def _held(self) -> Values:
        """Return all attributes of the owners, code too, and the defaults of functions."""
        return {
            f"{path}.{name}": value
            for path, (owner, names) in self._owners.items()
            for name, value in (*vars(owner).items(), *_defaults(owner))
            if (name in DEFAULTS or not name.startswith("__") if names is None else name in names)
        }

    def _bind(self, values: Values) -> None:
        now = self.values()
        for key in now.keys() | values.keys():
            owner, name = self._place(key)
            if key not in values:
                delattr(owner, name)
            elif now.get(key, self) is not values[key]:
                setattr(owner, name, values[key])

    def _place(self, key: str) -> tuple[Any, str]:
        path, _, name = key.rpartition(".")
        return self._owners[path][0], name


@contextmanager
def kept(*code: Any) -> Iterator[None]:
    """Let code change no more than copies of its global state, as in a trial."""
    state = GlobalState()
    state.see(*code)
    values = state.values()
    state._bind(_copies(values))
    try:
        yield
    finally:
        state._bind(values)


def _owners(things: tuple[Any, ...]) -> Iterator[tuple[str, Any, set[str] | None]]:
    """Yield the classes, functions and modules of own code that these things lead to."""
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
            for path, owner, names in _owners_of(thing):
                left.extend(vars(owner)[n] for n in names or () if n in vars(owner))
                yield path, owner, names
        elif isinstance(thing, type):
            if own:
                left.extend((*thing.__mro__, *vars(thing).values()))
                yield f"{thing.__module__}.{thing.__qualname__}", thing, None
        elif isinstance(thing, CONTAINERS):
            left.extend(thing.values() if isinstance(thing, dict) else thing)
        elif isinstance(thing, CALLS):
            left.extend(getattr(thing, name, None) for name in INNER)
        else:
            left.append(type(thing))
            held = getattr(thing, "__dict__", {})
            whole = own or isinstance(thing, HOLDERS)
            left.extend(held.values() if whole else [held.get("__wrapped__")])


def _owners_of(function: FunctionType) -> Iterator[tuple[str, Any, set[str] | None]]:
    """Yield an own function, its module, and own modules that it names, with names in them."""
    home = sys.modules.get(function.__globals__.get("__name__", ""))
    if home is None or parts.is_packaged(home):
        return
    yield f"{function.__module__}.{function.__qualname__}", function, None
    code = list(_instructions(function.__code__))
    used = {i.argval for i in code if i.opname.endswith("_GLOBAL")}
    yield home.__name__, home, used
    for value in [vars(home).get(name) for name in used]:
        if isinstance(value, ModuleType) and not parts.is_packaged(value):
            yield value.__name__, value, {i.argval for i in code if i.opname.endswith("_ATTR")}


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _instructions(inner)


def _defaults(owner: Any) -> Iterator[tuple[str, Any]]:
    """Yield the defaults of a function's parameters, if calls can change one of these."""
    for name in DEFAULTS if isinstance(owner, FunctionType) else ():
        value = getattr(owner, name)
        with suppress(Unsaveable):
            if _can_change(value) and _node(value):
                yield name, value


def _can_change(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(_can_change, value))
    if isinstance(value, dict):  # by the names of parameters, or a default
        return True
    return isinstance(value, list | set | deque | Tensor) or not (
        parts.is_packaged(type(value)) or isinstance(value, type)
    )


def _is_memory(value: Any) -> bool:
    """Return whether a value may be memory: no code, and no tool such as a lock."""
    if isinstance(value, partial | io.IOBase) or hasattr(type(value), "__get__"):
        return False
    if (constant := parts.constant_node(value)) is not None:
        return bool(constant["kind"] != "code")
    if isinstance(value, CONTAINERS):
        inside = value.values() if isinstance(value, dict) else value
        return not value or any(isinstance(v, CONTAINERS) or _is_memory(v) for v in inside)
    if not parts.is_packaged(type(value)) or isinstance(value, Iterator):
        return True  # also if no checkpoint can hold it: the run then restarts, and says so
    try:
        _node(value)
    except Unsaveable:
        return False
    return True


def _node(value: Any) -> parts.Node:
    return Capture(()).root({"": value}, "")


def _equal(a: parts.Node, b: parts.Node) -> bool:
    """Return whether two captured values are equal, down to the bits of tensors."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if not isinstance(a, Tensor):
        return repr(a) == repr(b)
    if (a.dtype, a.shape, a.layout) != (b.dtype, b.shape, torch.strided) or a.device != b.device:
        return False
    return torch.equal(*(t.contiguous().view(-1).view(torch.uint8) for t in (a, b)))


def _copies(values: Values) -> Values:
    """Return copies that share among them what the values share."""
    memo: dict[int, Any] = {}
    return {key: copy_of(value, memo) for key, value in values.items()}

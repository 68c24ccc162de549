"""Keep the global state of own code apart for each run.

Such state lies on classes and functions, in modules, in the closures of functions that were made at
import, and in the caches of `functools.lru_cache`.
"""

import io
import pickle
from collections import deque
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FunctionType, GeneratorType
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.training.object_state import parts
from optbench.training.object_state.capture import Capture, Unsaveable
from optbench.training.object_state.owners import (
    CACHE,
    CALLS,
    CONTAINERS,
    NAMESPACES,
    assign,
    attributes_of,
    owners_of,
)
from optbench.trial import copy_of

Values = dict[str, Any]  # by the name of a class, function or module, and of its attribute
Owner = tuple[Any, set[str] | None]  # a class, function, module, cell or cache; which attributes
DEFAULTS = ("__defaults__", "__kwdefaults__")  # a list among these outlives the call


class GlobalState:
    """A training's state outside of its objects, as by `Mine.steps += 1`.

    `with state` puts the values in place. They stay there after the block, for the caller to see.
    The `with` of another training undoes this training's changes, but keeps what the caller changed
    later.
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
        self._built: dict[str, int] = {}  # how often each cache was filled before the first step

    def __enter__(self) -> None:
        other, GlobalState._present = GlobalState._present, self
        if other is not self:
            if other is not None:
                other._leave()
            self._empty_caches()
            self._found = _copies(self.values())
            if self._own is None:
                try:
                    self.see(*self._code)
                except UserError:
                    GlobalState._present = None  # nothing of this training is in place
                    raise
                self._code = ()  # frees the dataset, which the code holds
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
        known, caches = self.values(), self._caches()
        for path, owner, names in owners_of(things):
            while self._owners.get(path, (owner,))[0] is not owner:
                path += "'"  # another class or function of the same name
            more = self._owners.get(path, (owner, set()))[1]
            self._owners[path] = owner, None if names is None or more is None else names | more
        self._found |= _copies({k: v for k, v in self.values().items() if k not in known})
        for path, value in self._held().items():
            if isinstance(value, GeneratorType):
                raise UserError(
                    f"{path} is a generator, which `next` advances and nothing copies or saves, so "
                    f"that no run could begin where another did: make it in __init__, or as an "
                    f"object of a class with a method __next__"
                )
        if GlobalState._present is self:
            self._empty_caches(besides=caches)
        self._built = {path: c.cache_info().misses for path, c in self._caches().items()}

    def end(self) -> None:
        """Count all later changes as the caller's."""
        self._ended = self.changed() if GlobalState._present is self else None

    def values(self) -> Values:
        """Return the values that are in place."""
        return {key: value for key, value in self._held().items() if _is_memory(value)}

    def changed(self) -> Values:
        """Return the values that differ from those that the training found."""
        return {k: v for k, v in self.values().items() if not self._is_as_found(k, v)}

    def filled(self) -> Values:
        """Return the caches that steps have filled, which no checkpoint can save."""
        caches = self._caches().items()
        return {path: c for path, c in caches if c.cache_info().misses != self._built[path]}

    def _caches(self) -> Values:
        return {path: c for path, (c, _) in self._owners.items() if isinstance(c, CACHE)}

    def _empty_caches(self, besides: Container[str] = ()) -> None:
        for path, cache in self._caches().items():
            if path not in besides:
                cache.cache_clear()

    def load(self, changed: Values) -> None:
        """Restore `changed` values. Raise ValueError if one would replace code."""
        now = self.values()
        for key in changed.keys() - now.keys():
            owner, name = self._place(key)
            if name.startswith("__") or not _is_memory(getattr(owner, name, None)):
                raise ValueError(f"the checkpoint would replace {key}")
        self._bind(self._as_found(now) | changed)

    def _leave(self) -> None:
        self._empty_caches()
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
        if key not in self._found:
            return False
        try:
            return _equal(_node(value), _node(self._found[key]))
        except Unsaveable:
            return (data := _pickled(value)) is not None and data == _pickled(self._found[key])

    def _held(self) -> Values:
        """Return all attributes of the owners, code too, and the defaults of functions."""
        return {
            f"{path}.{name}": value
            for path, (owner, names) in self._owners.items()
            for name, value in (*attributes_of(owner), *_defaults(owner))
            if (name in DEFAULTS or not name.startswith("__") if names is None else name in names)
        }

    def _bind(self, values: Values) -> None:
        now = self.values()
        for key in now.keys() | values.keys():
            owner, name = self._place(key)
            if key not in values:
                if hasattr(owner, name):  # no context variable
                    delattr(owner, name)
            elif now.get(key, self) is not values[key]:
                assign(owner, name, values[key])

    def _place(self, key: str) -> tuple[Any, str]:
        path, _, name = key.rpartition(".")
        return self._owners[path][0], name


@contextmanager
def kept(*code: Any) -> Iterator[None]:
    """Let a trial change copies only of the global state of `code`."""
    state = GlobalState()
    state.see(*code)
    values = state.values()
    filled = {path for path, cache in state._caches().items() if cache.cache_info().currsize}
    state._bind(_copies(values))
    try:
        yield
    finally:
        state._bind(values)
        state._empty_caches(besides=filled)


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
    """Return whether a value may be state: no code, and no tool such as a lock."""
    if isinstance(value, partial):
        return any(map(_can_change, (*value.args, *value.keywords.values())))
    if isinstance(value, (io.IOBase, *NAMESPACES)) or hasattr(type(value), "__get__"):
        return False  # the attributes of a namespace are held one by one
    if (constant := parts.constant_node(value)) is not None:
        return bool(constant["kind"] != "code")
    if isinstance(value, CONTAINERS):
        inside = value.values() if isinstance(value, dict) else value
        known = (*CONTAINERS, *NAMESPACES)
        return not value or any(isinstance(v, known) or _is_memory(v) for v in inside)
    if not parts.is_packaged(type(value)) or isinstance(value, Iterator):
        return True  # also if no checkpoint can hold it: the run then restarts, and says so
    try:
        _node(value)
    except Unsaveable:
        return _pickled(value) is not None  # a tool, such as a lock, cannot be pickled
    return True


def _pickled(value: Any) -> bytes | None:
    """Return the pickle of a package's object, for comparison only, or None."""
    if isinstance(value, (*CONTAINERS, *CALLS, Iterator)) or not parts.is_packaged(type(value)):
        return None  # what lies inside may hide a part of its state from pickle
    try:
        return pickle.dumps(value)
    except Exception:  # a class may raise anything
        return None


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
    """Return copies; objects that values share are shared by their copies too."""
    memo: dict[int, Any] = {}
    return {key: copy_of(value, memo) for key, value in values.items()}

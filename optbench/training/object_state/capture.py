"""The walk of `object_state.capture` from live objects to plain values."""

import random
import weakref
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import lru_cache, partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench.training.object_state import parts
from optbench.training.object_state.parts import Node

MIN_ADDRESS = 2**16  # in bytes: no system maps the first pages of memory


class Unsaveable(Exception):
    """A reachable object is neither a plain value nor made of plain values."""


class Capture:
    """One walk, in which each object that is met again is referred to by its number."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = {id(p): k for k, p in enumerate(parameters)}
        self.storages = {parts.storage_of(p): k for k, p in enumerate(parameters) if p.numel()}
        own = [p.untyped_storage() for p in parameters if p.layout is torch.strided]
        self.parameter_bounds = [(s.data_ptr(), s.data_ptr() + s.nbytes()) for s in own]
        # some classes use an address as a key, as in `self.memory[id(p)]`
        self.addresses = {id(p): ("id", k) for k, p in enumerate(parameters)}
        places = {p.data_ptr(): ("data_ptr", k) for k, p in enumerate(parameters) if p.numel()}
        self.addresses |= places
        self.numbers: dict[int, str] = {}  # large whole numbers, and their paths
        self.known: dict[int, int] = {}
        self.kept: list[Any] = []  # keeps objects alive, since Python reuses the id of a dead one
        self.tensors: list[dict[str, Any]] = []
        self.open: set[int] = set()
        self.arrays: list[tuple[int, int, str]] = []  # their first and last bytes, and paths
        self.generators: dict[str, str] = {}  # the states of random generators, by their paths
        self.functions = False  # whether functions without a closure are taken as code
        self.closures = False  # whether functions with a closure or attributes are, too

    def root(self, value: Any, path: str) -> Node:
        """Return the node of a root; a root that is a dictionary is global state."""
        self.functions, self.closures = not isinstance(value, Optimizer), type(value) is dict
        try:
            return self.node(value, path)
        except RecursionError:
            raise Unsaveable(f"{path} is nested too deeply") from None
        finally:
            self.functions = self.closures = False

    def hooks(self, found: list[Any], path: str) -> Node:
        """Return the node of a parameter's hooks, which the constructors register again."""
        self.functions = True
        try:
            return self.node(found, path)
        finally:
            self.functions = False

    def node(self, value: Any, path: str) -> Node:
        cls = type(value)
        if cls is int and abs(value) >= MIN_ADDRESS:
            return self._int(value, path)
        if cls in parts.SCALARS:
            return value
        if id(value) in self.parameters:
            return {"kind": "parameter", "index": self.parameters[id(value)]}
        if (constant := parts.constant_node(value)) is not None:
            return constant
        if id(value) in self.known:
            if id(value) in self.open:
                raise Unsaveable(f"{path} is a {_described(value)} that contains itself")
            return {"kind": "same", "n": self.known[id(value)]}
        self.known[id(value)] = len(self.known)
        self.kept.append(value)
        node: dict[str, Any] = {"n": self.known[id(value)]}
        if isinstance(value, tuple | frozenset | partial):  # restored after all their parts
            self.open.add(id(value))
        try:
            return self._compound(value, path, node)
        finally:
            self.open.discard(id(value))

    def _compound(self, value: Any, path: str, node: dict[str, Any]) -> Node:
        cls = type(value)
        if isinstance(value, Tensor):
            return self._tensor(value, path, node)
        if parts.DICTS.get(cls.__name__) is cls:
            return node | self._dict(value, path)
        if parts.SEQUENCES.get(cls.__name__) is cls:
            items = [self.node(item, f"{path}[{k}]") for k, item in enumerate(value)]
            return node | {"kind": "sequence", "type": cls.__name__, "items": items}
        if cls is deque:
            items = [self.node(item, f"{path}[{k}]") for k, item in enumerate(value)]
            return node | {"kind": "deque", "items": items, "maxlen": value.maxlen}
        if isinstance(value, tuple) and hasattr(cls, "_fields"):  # a named tuple
            items = [
                self.node(item, f"{path}.{k}") for k, item in zip(cls._fields, value, strict=True)
            ]
            return node | {"kind": "named", "class": parts.full_name(cls), "items": items}
        if isinstance(value, np.ndarray | np.generic) and cls.__module__ == "numpy":
            return node | self._array(value, path)
        if (state := _generator_state(value)) is not None:
            self.generators[path] = repr(state)
            addresses, self.addresses = self.addresses, {}  # its numbers are no addresses
            numbers, self.numbers = self.numbers, {}
            inner = self.node(state, path)
            self.addresses, self.numbers = addresses, numbers
            return node | {"kind": "generator", "class": parts.full_name(cls), "state": inner}
        if isinstance(value, partial) and cls is partial:
            held = [self.node(p, path) for p in (value.func, value.args, value.keywords)]
            return node | {"kind": "partial", "parts": held}
        if isinstance(value, weakref.ref) and value() is not None:
            return node | {"kind": "weak", "of": self.node(value(), path)}
        if isinstance(value, MethodType):
            owner = self.node(value.__self__, f"{path}.__self__")
            return node | {"kind": "method", "name": value.__func__.__qualname__, "of": owner}
        free = cls is FunctionType and not (value.__closure__ or vars(value))
        if (self.functions and free) or (self.closures and cls is FunctionType):
            return node | {"kind": "function", "name": parts.full_name(value)}
        if parts.is_pure(cls) and not isinstance(value, FunctionType | ModuleType | type):
            return node | self._object(value, path)
        raise Unsaveable(f"{path} is a {_described(value)}")

    def _tensor(self, value: Tensor, path: str, node: dict[str, Any]) -> dict[str, Any]:
        if type(value) not in (Tensor, nn.Parameter, nn.Buffer):
            raise Unsaveable(f"{path} is a {_described(value)}")
        plain = value.detach()
        place = parts.storage_of(plain)
        if plain.layout is torch.strided and plain.numel() and place in self.storages:
            owner = self.storages[place]
            shape = [list(plain.shape), list(plain.stride()), plain.storage_offset()]
            size = plain.untyped_storage().nbytes()
            dtype = str(plain.dtype).removeprefix("torch.")
            view = {"kind": "view", "index": owner, "shape": shape, "size": size, "dtype": dtype}
            return node | view
        learns = value.requires_grad and value.is_leaf
        node |= {"kind": "tensor", "value": plain, "class": type(value).__name__, "grad": learns}
        self.tensors.append(node)
        return node

    def _int(self, value: int, path: str) -> Node:
        if value in self.addresses:
            of, index = self.addresses[value]
            return {"kind": "address", "of": of, "index": index}
        self.numbers.setdefault(value, path)
        return value

    def check_numbers(self) -> None:
        """Raise `Unsaveable` for the `id` of an object: a restored object has another."""
        for value, path in self.numbers.items():
            if value in self.known:
                raise Unsaveable(f"{path} is the id of an object")

    def _dict(self, value: dict[Any, Any], path: str) -> dict[str, Any]:
        items = [
            [self.node(key, f"{path} (a key)"), self.node(item, f"{path}[{_key(key)}]")]
            for key, item in value.items()
        ]
        node: dict[str, Any] = {"kind": "dict", "type": type(value).__name__, "items": items}
        if isinstance(value, defaultdict):
            factory = value.default_factory
            name = getattr(factory, "__name__", None)
            if factory is not None and parts.FACTORIES.get(str(name)) is not factory:
                raise Unsaveable(f"{path} has {factory!r} as its default")
            node["factory"] = name
        return node

    def _array(self, value: Any, path: str) -> dict[str, Any]:
        array = np.asarray(value)
        if array.dtype.kind not in "biufcSU":
            raise Unsaveable(f"{path} is an array of {array.dtype}")
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        data = array.tobytes("F" if fortran else "C")
        content = torch.frombuffer(bytearray(data) or bytearray(1), dtype=torch.uint8)
        shape = list(array.shape)
        scalar = isinstance(value, np.generic)
        if not scalar and array.size:
            self.arrays.append((*np.lib.array_utils.byte_bounds(array), path))
        return {
            "kind": "array", "content": content, "size": array.nbytes, "dtype": array.dtype.str,
            "shape": shape, "order": "F" if fortran else "C", "scalar": scalar,
        }  # fmt: skip

    def check_memory(self) -> None:
        """Raise `Unsaveable` for an array that shares memory, as a restored one would not."""
        tensors = [node["value"] for node in self.tensors]
        strided = [t.untyped_storage() for t in tensors if t.layout is torch.strided]
        bounds = [(s.data_ptr(), s.data_ptr() + s.nbytes()) for s in strided if s.nbytes()]
        bounds += self.parameter_bounds
        for k, (first, last, path) in enumerate(self.arrays):
            others = [*bounds, *(array[:2] for array in self.arrays[:k])]
            if any(first < end and begin < last for begin, end in others):
                raise Unsaveable(f"{path} is an array that shares its memory with another")

    def _object(self, value: Any, path: str) -> dict[str, Any]:
        kept = {}
        for name, item in parts.attributes_of(value).items():
            if parts.is_hooks(value, name, item):
                # the constructor registers hooks again; those of state_dict take part in no step
                for hook in () if "state_dict" in name else item.values():
                    self.node(hook, f"{path}.{name}")
            else:
                kept[name] = self.node(item, f"{path}.{name}")
        return {"kind": "object", "class": parts.full_name(type(value)), "attributes": kept}


def _key(key: Any) -> str:
    return repr(key) if isinstance(key, parts.SCALARS) else type(key).__name__


def _described(value: Any) -> str:
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return f"function ({value.__qualname__})"
    if isinstance(value, type(lru_cache(int))):
        return "filled functools.lru_cache"
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _generator_state(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return [str(value.device), value.get_state()]
    if isinstance(value, random.Random) and type(value) is random.Random:
        return list(value.getstate())
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.random.BitGenerator):
        return value.state
    return None

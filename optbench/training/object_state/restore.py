"""The walk of `object_state.restore` from plain values into newly built objects."""

import enum
import inspect
import random
import sys
import weakref
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from optbench.training.object_state import parts
from optbench.training.object_state.parts import Node

# no object of these packages' classes is created by a checkpoint
LIBRARY_PACKAGES = {*sys.stdlib_module_names, "torch", "numpy", "optbench"}
MAX_POSITIONS = {"pos": 624, "buffer_pos": 4}  # in the buffers of MT19937 and Philox


def _parts_of(root: Any) -> list[Any]:
    """Return the modules of a model, or the parts of several optimizers."""
    return list(root.modules() if isinstance(root, nn.Module) else getattr(root, "parts", ()))


class Restore:
    """One walk over what was captured, beside the objects that were built anew."""

    def __init__(self, roots: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self.made: dict[int, Any] = {}
        self.taken: dict[int, Any] = {}  # the constructors' objects that have been restored
        bases = {
            base
            for root in roots.values()
            for part in (root, *_parts_of(root))
            for base in type(part).__mro__
        }
        self.packages = {base.__module__.split(".")[0] for base in bases} - LIBRARY_PACKAGES

    def value(self, node: Node, there: Any) -> Any:
        """Return the value of a node, restored into `there` if its kind is the same.

        there: the object that the constructors put in this place.
        """
        if not isinstance(node, dict):
            return node
        kind = node["kind"]
        if kind == "parameter":
            return self.parameters[node["index"]]
        if kind == "address":
            p = self.parameters[node["index"]]
            return id(p) if node["of"] == "id" else p.data_ptr()
        if kind == "same":
            return self.made[node["n"]]
        if kind == "enum" and parts.constant_node(there) != node:
            return self._class(node["class"], enum.Enum)[node["name"]]  # type: ignore[index]
        if kind in ("torch", "enum", "code", "complex", "bytes", "fixed", "range", "size"):
            return _constant_value(node, there)
        if kind in ("dict", "sequence", "deque", "array", "generator", "object"):
            if id(there) in self.taken:  # another node has been restored into it
                there = None
            self.taken[id(there)] = there
        made = getattr(self, f"_{kind}")(node, there)
        self.made[node["n"]] = made
        return made

    def _tensor(self, node: dict[str, Any], there: Any) -> Tensor:
        value: Tensor = node["value"]
        if node["class"] == "Parameter":
            value = nn.Parameter(value, requires_grad=node["grad"])
        elif node["class"] == "Buffer":
            value = nn.Buffer(value)
        elif node["grad"]:
            value.requires_grad_()
        return value

    def _view(self, node: dict[str, Any], there: Any) -> Tensor:
        storage = self.parameters[node["index"]].untyped_storage()
        dtype = getattr(torch, node["dtype"])
        if storage.nbytes() != node["size"] or not isinstance(dtype, torch.dtype):
            raise ValueError("a parameter lies elsewhere in memory than the one that was saved")
        whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
        return torch.as_strided(whole.view(dtype), *node["shape"])

    def _dict(self, node: dict[str, Any], there: Any) -> Any:
        cls = parts.DICTS[node["type"]]
        made: Any = there if type(there) is cls else cls()
        if isinstance(made, defaultdict):
            factory = node["factory"]
            made.default_factory = None if factory is None else parts.FACTORIES[factory]
        self.made[node["n"]] = made
        before = dict(made)
        made.clear()
        for key, item in node["items"]:
            name = self.value(key, None)
            made[name] = self.value(item, before.get(name))
        return made

    def _sequence(self, node: dict[str, Any], there: Any) -> Any:
        cls = parts.SEQUENCES[node["type"]]
        before = list(there) if isinstance(there, list | tuple) else []
        if cls is list or cls is set:
            made: Any = there if type(there) is cls else cls()
            self.made[node["n"]] = made
            items = self._items(node, before)
            made.clear()
            made.extend(items) if cls is list else made.update(items)
            return made
        return cls(self._items(node, before))

    def _items(self, node: dict[str, Any], before: Sequence[Any]) -> list[Any]:
        padded = [*before, *([None] * len(node["items"]))]
        return [self.value(item, old) for item, old in zip(node["items"], padded, strict=False)]

    def _deque(self, node: dict[str, Any], there: Any) -> Any:
        same = type(there) is deque and there.maxlen == node["maxlen"]
        made = there if same else deque(maxlen=node["maxlen"])
        self.made[node["n"]] = made
        made.clear()
        made.extend(self.value(item, None) for item in node["items"])
        return made

    def _named(self, node: dict[str, Any], there: Any) -> Any:
        cls: type = type(there)
        if parts.full_name(cls) != node["class"]:
            cls = self._class(node["class"])
        before: Any = there if isinstance(there, cls) else ()
        return cls(*self._items(node, before))

    def _array(self, node: dict[str, Any], there: Any) -> Any:
        content = node["content"].numpy().tobytes()[: node["size"]]
        flat = np.frombuffer(content, dtype=np.dtype(node["dtype"]))
        found = flat.reshape(node["shape"], order=node["order"]).copy("K")
        if node["scalar"]:
            return found[()]
        if type(there) is np.ndarray and (there.dtype, there.shape) == (found.dtype, found.shape):
            there[...] = found
            return there
        return found

    def _generator(self, node: dict[str, Any], there: Any) -> Any:
        state = self.value(node["state"], None)
        _check_positions(state)
        if parts.full_name(type(there)) != node["class"]:
            there = _new_generator(node["class"], state)
        if isinstance(there, torch.Generator):
            there.set_state(state[1])
        elif isinstance(there, random.Random):
            there.setstate(tuple(state))
        elif isinstance(there, np.random.RandomState):
            there.set_state(state)
        elif isinstance(there, np.random.Generator):
            there.bit_generator.state = state
        else:
            there.state = state
        return there

    def _partial(self, node: dict[str, Any], there: Any) -> Any:
        if type(there) is not partial:
            raise ValueError("a partial call is missing")
        before = (there.func, there.args, there.keywords)
        func, args, keywords = (
            self.value(part, old) for part, old in zip(node["parts"], before, strict=True)
        )
        return partial(func, *args, **keywords)

    def _function(self, node: dict[str, Any], there: Any) -> Any:
        if not isinstance(there, FunctionType) or parts.full_name(there) != node["name"]:
            raise ValueError(f"the function {node['name']} is missing")
        return there

    def _weak(self, node: dict[str, Any], there: Any) -> Any:
        before = there() if isinstance(there, weakref.ref) else None
        target = self.value(node["of"], before)
        return there if target is before else weakref.ref(target)

    def _method(self, node: dict[str, Any], there: Any) -> Any:
        if not isinstance(there, MethodType) or there.__func__.__qualname__ != node["name"]:
            raise ValueError(f"the method {node['name']} is missing")
        owner = self.value(node["of"], there.__self__)
        return there if owner is there.__self__ else MethodType(there.__func__, owner)

    def _object(self, node: dict[str, Any], there: Any) -> Any:
        if parts.full_name(type(there)) != node["class"]:
            there = object.__new__(self._class(node["class"]))
        self.made[node["n"]] = there
        before = parts.attributes_of(there)
        for name, item in node["attributes"].items():
            _check_attribute(there, name, before)
            value = self.value(item, before.get(name))
            if name in before and before[name] is value:
                continue
            if name in getattr(there, "__dict__", {}) or not _has_slot(type(there), name):
                there.__dict__[name] = value
            else:
                object.__setattr__(there, name, value)
        for name, item in before.items():
            if name not in node["attributes"] and not parts.is_hooks(there, name, item):
                getattr(there, "__dict__", {}).pop(name, None)
        return there

    def _class(self, name: str, base: type = object) -> type:
        """Return the class, by name, of an object that the constructors did not make.

        Allowed are the user's own classes, and those of the packages of optimizer and model. No
        code of them runs: no constructor is called, and a class with a finalizer is refused.
        """
        module, qualname = name.split(":")
        found: Any = sys.modules.get(module)
        for part in qualname.split("."):
            found = getattr(found, part, None)
        fits = isinstance(found, type) and issubclass(found, base)
        fits = fits and parts.full_name(found) == name
        own = fits and (module.split(".")[0] in self.packages or not parts.is_packaged(found))
        pure = own and (base is not object or parts.is_pure(found) or hasattr(found, "_fields"))
        if not pure or hasattr(found, "__del__"):
            raise ValueError(f"an object of {name} is missing")
        return cast(type, found)


def _has_slot(cls: type, name: str) -> bool:
    return any(inspect.ismemberdescriptor(base.__dict__.get(name)) for base in cls.__mro__)


def _check_attribute(thing: Any, name: str, before: Mapping[str, Any]) -> None:
    """Raise ValueError for an attribute that would replace code."""
    usual = inspect.getattr_static(type(thing), name, None)
    code = callable(usual) or isinstance(usual, property | staticmethod | classmethod)
    if name.startswith("__") or (code and name not in before):
        raise ValueError(f"the checkpoint would replace {type(thing).__name__}.{name}")


def _check_positions(state: Any) -> None:
    """Raise ValueError for a position beyond a buffer, which NumPy would read."""
    for key, value in state.items() if isinstance(state, dict) else ():
        if isinstance(value, dict):
            _check_positions(value)
        elif key in MAX_POSITIONS and not 0 <= value <= MAX_POSITIONS[key]:
            raise ValueError(f"a generator of NumPy has no {key} {value}")


def _new_generator(name: str, state: Any) -> Any:
    if name == parts.full_name(torch.Generator):
        return torch.Generator(state[0])
    bits = (
        np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64,
    )  # fmt: skip
    if name == parts.full_name(np.random.Generator):
        return np.random.Generator({c.__name__: c for c in bits}[state["bit_generator"]]())
    makers: tuple[type, ...] = (random.Random, np.random.RandomState, *bits)
    return {parts.full_name(c): c for c in makers}[name]()


def _constant_value(node: dict[str, Any], there: Any) -> Any:
    kind = node["kind"]
    if kind == "complex":
        return complex(*node["parts"])
    if kind == "bytes":
        return bytes.fromhex(node["text"])
    if kind == "size":
        return torch.Size(node["items"])
    if kind == "range":
        return range(*node["parts"])
    if parts.constant_node(there) == node:
        return there
    if kind == "torch":
        name = node["text"].removeprefix("torch.")
        found = getattr(torch, name, None)
        return found if isinstance(found, torch.dtype | torch.layout) else torch.device(name)
    raise ValueError(f"something else stands where {node.get('name', node.get('text'))} stood")

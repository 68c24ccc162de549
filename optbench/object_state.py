"""The state of live objects as plain values: what is reachable from them, found by looking.

A checkpoint of a user's optimizer must hold what the class remembers, wherever it keeps it: in its
groups, in `state`, in attributes, in objects and optimizers of its own. `capture` walks over all of
that; `restore` puts it back into objects that were built anew, in the same way. No object is ever
pickled: classes and functions are compared by name with those that are there, never loaded.
"""

import copy
import dis
import enum
import inspect
import logging
import random
import sys
import sysconfig
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

SMALLEST_ADDRESS = 2**16  # in memory: no system maps its first pages
SCALARS = (type(None), bool, int, float, str)
DICTS: dict[str, type] = {c.__name__: c for c in (dict, OrderedDict, defaultdict, Counter)}
FACTORIES: dict[str, type] = {c.__name__: c for c in (dict, list, set, int, float, deque)}
SEQUENCES: dict[str, type] = {c.__name__: c for c in (list, tuple, set, frozenset)}
# torch's own dictionaries of hooks, whose keys count up in a process
HOOKS = {
    name
    for thing in (nn.Module(), torch.optim.SGD([torch.zeros(1)]))
    for name in vars(thing)
    if name.startswith("_") and "_hooks" in name
}
STANDARD = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]  # Python's library
# packages whose classes are never made anew
OTHERS = {*sys.stdlib_module_names, "torch", "numpy", "optbench"}
Node = Any  # a scalar, or a dict with its "kind"


class Unsaveable(Exception):
    """Something reachable is neither a plain value nor made of plain values."""


def capture(roots: Mapping[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """All that is reachable from `roots`, as tensors and plain values.

    parameters: the model's, which are kept once and referred to from everywhere else. Tensors are
    those that live, not copies. Raises `Unsaveable`, with the path of what cannot be kept.
    """
    look = _Capture(parameters)
    tree = {}
    for name, root in roots.items():
        look.functions = not isinstance(root, Optimizer)
        tree[name] = look.node(root, name)
    look.functions = False
    given = [look.node(_given(p), f"parameter {k}") for k, p in enumerate(parameters)]
    look.check_memory()
    look.check_numbers()
    # of a slice of a larger tensor, a file would hold the whole
    values = [p.detach() for p in parameters]
    count: dict[int, int] = {}
    for tensor in [*values, *(node["value"] for node in look.tensors)]:
        place = _storage(tensor)
        count[place] = count.get(place, 0) + 1
    for node in look.tensors:
        node["value"] = _alone(node["value"], count)
    return {
        "parameters": [_alone(value, count) for value in values],
        "learn": [p.requires_grad for p in parameters],
        "given": given,
        "tree": tree,
    }


def restore(roots: Mapping[str, Any], parameters: Sequence[Tensor], state: dict[str, Any]) -> None:
    """Put what `capture` found back into `roots`, built in the same way, and into `parameters`.

    Raises ValueError where the objects are not those that were captured, and LookupError or
    TypeError for a state that no `capture` made. The objects are then of no use.
    """
    state = copy.deepcopy(state)  # tensors that share memory still do
    with torch.no_grad():
        for p, value in zip(parameters, state["parameters"], strict=True):
            if p.shape != value.shape:
                raise ValueError(f"a parameter has shape {tuple(p.shape)}, not {value.shape}")
            p.copy_(value)
    for p, learns in zip(parameters, state["learn"], strict=True):
        p.requires_grad_(learns)
    put = _Restore(roots, parameters)
    for name, root in roots.items():
        if put.value(state["tree"][name], root) is not root:
            raise ValueError(f"the {name} is another than the one that was saved")
    for p, node in zip(parameters, state["given"], strict=True):
        vars(p).update(put.value(node, _given(p)))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _alone(tensor: Tensor, count: Mapping[int, int]) -> Tensor:
    """A copy, where the tensor is the only one of a storage that is larger than itself."""
    if tensor.layout is not torch.strided or count[_storage(tensor)] > 1:
        return tensor
    larger = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    return tensor.clone() if larger else tensor


def _given(p: Tensor) -> dict[str, Any]:
    """What an optimizer hung onto a parameter, as `p.steps`."""
    return dict(getattr(p, "__dict__", {}))


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', None)}:{getattr(thing, '__qualname__', None)}"


def _mangled(cls: type, name: str) -> str:
    """The name under which Python keeps a private attribute that is written in this class."""
    private = name.startswith("__") and not name.endswith("__")
    return f"_{cls.__name__.lstrip('_')}{name}" if private else name


def _attributes(thing: Any) -> dict[str, Any]:
    """What an object keeps, less what torch keeps there for its own ends."""
    found = dict(getattr(thing, "__dict__", {}))
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = _mangled(cls, slot)
            if slot not in ("__dict__", "__weakref__") and hasattr(thing, name):
                found[name] = getattr(thing, name)
    if isinstance(thing, Optimizer) and hasattr(found.get("step"), "_wrapped_by_lr_sched"):
        del found["step"]  # a schedule's
    if isinstance(thing, LRScheduler):
        # as in torch's own state_dict: functions of the step number have no state
        lambdas = found.get("lr_lambdas", [None])
        if all(isinstance(each, FunctionType) and _has_no_memory(each) for each in lambdas):
            found.pop("lr_lambdas", None)
    return found


def _is_hooks(thing: Any, name: str, value: Any) -> bool:
    """Whether this attribute is one of torch's dictionaries of hooks."""
    known = isinstance(thing, nn.Module | Optimizer) and name in HOOKS
    return known and isinstance(value, dict)


def _has_no_memory(function: FunctionType) -> bool:
    """Whether it gives the same for the same: a user's function counts in no variable outside."""
    if _is_packaged(function):
        return True
    outside = [cell.cell_contents for cell in function.__closure__ or ()]
    sets = {i.argval for i in dis.get_instructions(function) if i.opname == "STORE_DEREF"}
    fixed = all(type(value) in SCALARS for value in [*outside, *(function.__defaults__ or ())])
    return fixed and not vars(function) and not sets & set(function.__code__.co_freevars)


def _is_pure(cls: type) -> bool:
    """Whether its objects are made of their attributes alone: no base of it is written in C."""
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
            return False  # a type of C's, such as a lock, that keeps what no attribute shows
    return cls.__new__ is object.__new__ or isinstance(cls.__new__, FunctionType)


def _is_packaged(thing: Any) -> bool:
    """Whether a function or class belongs to Python or an installed package: it does not change."""
    name = str(getattr(thing, "__module__", None))
    module = sys.modules.get(name)
    if module is None or name == "__main__":
        return isinstance(thing, BuiltinFunctionType)
    file = getattr(module, "__file__", None)
    if file is None:
        return name.split(".")[0] in sys.builtin_module_names
    path = Path(file)
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    standard = any(Path(folder) in path.parents for folder in STANDARD)
    return bool(installed) or standard or name.split(".")[0] == "optbench"


class _Capture:
    """One walk; objects that were met are referred to by their number."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = {id(p): k for k, p in enumerate(parameters)}
        self.storages = {_storage(p): k for k, p in enumerate(parameters) if p.numel()}
        own = [p.untyped_storage() for p in parameters if p.layout is torch.strided]
        self.parameter_bounds = [(s.data_ptr(), s.data_ptr() + s.nbytes()) for s in own]
        # what some classes use as a key, as `self.memory[id(p)]`
        self.addresses = {id(p): ("id", k) for k, p in enumerate(parameters)}
        places = {p.data_ptr(): ("data_ptr", k) for k, p in enumerate(parameters) if p.numel()}
        self.addresses |= places
        self.numbers: dict[int, str] = {}  # large whole numbers, and their paths
        self.known: dict[int, int] = {}
        self.kept: list[Any] = []  # an id means nothing once its object is gone
        self.tensors: list[dict[str, Any]] = []
        self.open: set[int] = set()
        self.arrays: list[tuple[int, int, str]] = []  # their first and last bytes, and paths
        self.functions = False  # whether functions without a closure are taken as code

    def node(self, value: Any, path: str) -> Node:
        cls = type(value)
        if cls is int and abs(value) >= SMALLEST_ADDRESS:
            return self._int(value, path)
        if cls in SCALARS:
            return value
        if id(value) in self.parameters:
            return {"kind": "parameter", "index": self.parameters[id(value)]}
        if (constant := _constant(value)) is not None:
            return constant
        if id(value) in self.known:
            if id(value) in self.open:
                raise Unsaveable(f"{path} is a {_described(value)} that contains itself")
            return {"kind": "same", "n": self.known[id(value)]}
        self.known[id(value)] = len(self.known)
        self.kept.append(value)
        node: dict[str, Any] = {"n": self.known[id(value)]}
        if isinstance(value, tuple | frozenset | partial):  # made at once, of all their parts
            self.open.add(id(value))
        try:
            return self._compound(value, path, node)
        finally:
            self.open.discard(id(value))

    def _compound(self, value: Any, path: str, node: dict[str, Any]) -> Node:
        cls = type(value)
        if isinstance(value, Tensor):
            return self._tensor(value, path, node)
        if cls.__name__ in DICTS and cls is DICTS[cls.__name__]:
            return node | self._dict(value, path)
        if cls.__name__ in SEQUENCES and cls is SEQUENCES[cls.__name__]:
            items = [self.node(item, f"{path}[{k}]") for k, item in enumerate(value)]
            return node | {"kind": "sequence", "type": cls.__name__, "items": items}
        if cls is deque:
            items = [self.node(item, f"{path}[{k}]") for k, item in enumerate(value)]
            return node | {"kind": "deque", "items": items, "maxlen": value.maxlen}
        if isinstance(value, tuple) and hasattr(cls, "_fields"):  # a named tuple
            items = [
                self.node(item, f"{path}.{k}") for k, item in zip(cls._fields, value, strict=True)
            ]
            return node | {"kind": "named", "class": _name(cls), "items": items}
        if isinstance(value, np.ndarray | np.generic) and cls.__module__ == "numpy":
            return node | self._array(value, path)
        if (state := _generator_state(value)) is not None:
            addresses, self.addresses = self.addresses, {}  # its numbers are none of these
            numbers, self.numbers = self.numbers, {}
            inner = self.node(state, path)
            self.addresses, self.numbers = addresses, numbers
            return node | {"kind": "generator", "class": _name(cls), "state": inner}
        if isinstance(value, partial) and cls is partial:
            parts = [value.func, value.args, value.keywords]
            return node | {"kind": "partial", "parts": [self.node(p, path) for p in parts]}
        if isinstance(value, weakref.ref) and value() is not None:
            return node | {"kind": "weak", "of": self.node(value(), path)}
        if isinstance(value, MethodType):
            owner = self.node(value.__self__, f"{path}.__self__")
            return node | {"kind": "method", "name": value.__func__.__qualname__, "of": owner}
        if self.functions and cls is FunctionType and not (value.__closure__ or vars(value)):
            return node | {"kind": "function", "name": _name(value)}
        if _is_pure(cls) and not isinstance(value, FunctionType | ModuleType | type):
            return node | self._object(value, path)
        raise Unsaveable(f"{path} is a {_described(value)}")

    def _tensor(self, value: Tensor, path: str, node: dict[str, Any]) -> dict[str, Any]:
        if type(value) not in (Tensor, nn.Parameter, nn.Buffer):
            raise Unsaveable(f"{path} is a {_described(value)}")
        plain = value.detach()
        if plain.layout is torch.strided and plain.numel() and _storage(plain) in self.storages:
            owner = self.storages[_storage(plain)]
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
        """Raise `Unsaveable` for the `id` of an object: the restored one has another."""
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
            if factory is not None and FACTORIES.get(str(name)) is not factory:
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
        """Raise `Unsaveable` for an array that shares memory: the restored ones would not."""
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
        for name, item in _attributes(value).items():
            if _is_hooks(value, name, item):
                # code that the constructor registers again; loading and saving is no step's
                for hook in () if "state_dict" in name else item.values():
                    self.node(hook, f"{path}.{name}")
            else:
                kept[name] = self.node(item, f"{path}.{name}")
        return {"kind": "object", "class": _name(type(value)), "attributes": kept}


def _key(key: Any) -> str:
    return repr(key) if isinstance(key, SCALARS) else type(key).__name__


def _described(value: Any) -> str:
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return f"function ({value.__qualname__})"
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _constant(value: Any) -> Node | None:
    """A node for what is compared, and not kept: code of packages, dtypes, members of an enum."""
    if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format):
        return {"kind": "torch", "text": str(value)}
    if isinstance(value, enum.Enum):
        return {"kind": "enum", "class": _name(type(value)), "name": value.name}
    if isinstance(value, logging.Logger):
        return {"kind": "code", "name": f"logger:{value.name}"}
    if isinstance(value, ModuleType):
        return {"kind": "code", "name": f"module:{value.__name__}"}
    if isinstance(value, type):
        return {"kind": "code", "name": _name(value)}
    if isinstance(value, FunctionType) and _is_packaged(value):
        local = "<" in value.__qualname__ or value.__closure__
        return None if local else {"kind": "code", "name": _name(value)}
    bound = getattr(value, "__self__", None)
    if isinstance(value, BuiltinFunctionType) and (
        bound is None or isinstance(bound, ModuleType | type)
    ):
        return {"kind": "code", "name": _name(value)}
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


class _Restore:
    """One walk over what was captured, beside the objects that were built anew."""

    def __init__(self, roots: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self.made: dict[int, Any] = {}
        self.taken: dict[int, Any] = {}  # what the constructors made, and is in use again
        bases = {
            base
            for root in roots.values()
            for part in (root, *(root.modules() if isinstance(root, nn.Module) else ()))
            for base in type(part).__mro__
        }
        self.packages = {base.__module__.split(".")[0] for base in bases} - OTHERS

    def value(self, node: Node, there: Any) -> Any:
        """The value of a node: the object that is `there`, changed, where that is of its kind."""
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
        if kind == "enum" and _constant(there) != node:
            return self._class(node["class"], enum.Enum)[node["name"]]  # type: ignore[index]
        if kind in ("torch", "enum", "code", "complex", "bytes", "fixed", "range", "size"):
            return _constant_value(node, there)
        if kind in ("dict", "sequence", "deque", "array", "generator", "object"):
            if id(there) in self.taken:  # the restored one of another
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
        cls = DICTS[node["type"]]
        made: Any = there if type(there) is cls else cls()
        if isinstance(made, defaultdict):
            made.default_factory = None if node["factory"] is None else FACTORIES[node["factory"]]
        self.made[node["n"]] = made
        before = dict(made)
        made.clear()
        for key, item in node["items"]:
            name = self.value(key, None)
            made[name] = self.value(item, before.get(name))
        return made

    def _sequence(self, node: dict[str, Any], there: Any) -> Any:
        cls = SEQUENCES[node["type"]]
        before = list(there) if isinstance(there, list | tuple) else []
        before += [None] * (len(node["items"]) - len(before))
        if cls is list or cls is set:
            made: Any = there if type(there) is cls else cls()
            self.made[node["n"]] = made
            items = [
                self.value(item, old) for item, old in zip(node["items"], before, strict=False)
            ]
            made.clear()
            made.extend(items) if cls is list else made.update(items)
            return made
        return cls(self.value(item, old) for item, old in zip(node["items"], before, strict=False))

    def _deque(self, node: dict[str, Any], there: Any) -> Any:
        same = type(there) is deque and there.maxlen == node["maxlen"]
        made = there if same else deque(maxlen=node["maxlen"])
        self.made[node["n"]] = made
        made.clear()
        made.extend(self.value(item, None) for item in node["items"])
        return made

    def _named(self, node: dict[str, Any], there: Any) -> Any:
        cls = type(there) if _name(type(there)) == node["class"] else self._class(node["class"])
        before: Any = there if isinstance(there, cls) else [None] * len(node["items"])
        return cls(
            *(self.value(item, old) for item, old in zip(node["items"], before, strict=False))
        )

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
        _check_places(state)
        if _name(type(there)) != node["class"]:
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
        if not isinstance(there, FunctionType) or _name(there) != node["name"]:
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
        if _name(type(there)) != node["class"]:
            cls = self._class(node["class"])
            there = object.__new__(cls)
        self.made[node["n"]] = there
        before = _attributes(there)
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
            if name not in node["attributes"] and not _is_hooks(there, name, item):
                getattr(there, "__dict__", {}).pop(name, None)
        return there

    def _class(self, name: str, base: type = object) -> type:
        """A class by its name, of an object that the constructor does not make: of the user's own
        modules, or of the packages of optimizer and model. Nothing of it runs: no constructor, no
        finalizer."""
        module, qualname = name.split(":")
        found: Any = sys.modules.get(module)
        for part in qualname.split("."):
            found = getattr(found, part, None)
        fits = isinstance(found, type) and issubclass(found, base) and _name(found) == name
        own = fits and (module.split(".")[0] in self.packages or not _is_packaged(found))
        pure = own and (base is not object or _is_pure(found) or hasattr(found, "_fields"))
        if not pure or hasattr(found, "__del__"):
            raise ValueError(f"an object of {name} is missing")
        return cast(type, found)


def _has_slot(cls: type, name: str) -> bool:
    return any(inspect.ismemberdescriptor(base.__dict__.get(name)) for base in cls.__mro__)


def _check_attribute(thing: Any, name: str, before: Mapping[str, Any]) -> None:
    """Raise ValueError for what would take the place of code."""
    usual = inspect.getattr_static(type(thing), name, None)
    code = callable(usual) or isinstance(usual, property | staticmethod | classmethod)
    if name.startswith("__") or (code and name not in before):
        raise ValueError(f"the checkpoint would replace {type(thing).__name__}.{name}")


PLACES = {"pos": 624, "buffer_pos": 4}  # of MT19937 and Philox


def _check_places(state: Any) -> None:
    """Raise ValueError for a place beyond a generator's numbers: NumPy would read it."""
    for key, value in state.items() if isinstance(state, dict) else ():
        if isinstance(value, dict):
            _check_places(value)
        elif key in PLACES and not 0 <= value <= PLACES[key]:
            raise ValueError(f"a generator of NumPy has no {key} {value}")


def _new_generator(name: str, state: Any) -> Any:
    if name == _name(torch.Generator):
        return torch.Generator(state[0])
    bits = (
        np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64,
    )  # fmt: skip
    if name == _name(np.random.Generator):
        return np.random.Generator({c.__name__: c for c in bits}[state["bit_generator"]]())
    makers: tuple[type, ...] = (random.Random, np.random.RandomState, *bits)
    return {_name(c): c for c in makers}[name]()


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
    if _constant(there) == node:
        return there
    if kind == "torch":
        name = node["text"].removeprefix("torch.")
        found = getattr(torch, name, None)
        return found if isinstance(found, torch.dtype | torch.layout) else torch.device(name)
    raise ValueError(f"something else stands where {node.get('name', node.get('text'))} stood")

"""What a checkpoint holds of live objects: everything, or a word about what it cannot hold."""

import enum
import io
import itertools
import math
import random
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optbench.training.object_state import Unsaveable, capture, restore


class Memory(torch.optim.Optimizer):
    """An optimizer that keeps whatever it is given in its attribute `kept`."""

    def __init__(self, kept=None):
        weights = [nn.Parameter(torch.arange(6.0).view(2, 3)), nn.Parameter(torch.ones(2))]
        super().__init__(weights, {"lr": 0.1})
        self.kept = kept
        self.bound = self.rule

    def rule(self):
        return self.kept

    @property
    def half(self):
        return 0.5


def weights(optimizer):
    return optimizer.param_groups[0]["params"]


def stored(optimizer):
    file = io.BytesIO()
    torch.save(capture({"optimizer": optimizer}, weights(optimizer)), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def again(optimizer, other=None):
    """Another optimizer, with the state of this one."""
    other = other or Memory()
    restore({"optimizer": other}, weights(other), stored(optimizer))
    return other


def same(a, b):
    """Equal in type and value, down to the bits of tensors and arrays."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        a, b = a.detach(), b.detach()
        alike = (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        return alike and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, np.ndarray):
        return (a.dtype, a.strides) == (b.dtype, b.strides) and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dict__") and not isinstance(a, enum.Enum):
        return same(vars(a), vars(b))
    return a == b or (a != a and b != b)


class Norm(enum.Enum):
    SPECTRAL = 1
    SIGN = 2


@dataclass
class Plain:
    values: list = field(default_factory=list)
    best: float = math.inf


@dataclass(slots=True, frozen=True)
class Slotted:
    values: tuple = ()
    best: float = math.inf


class Private:
    __slots__ = ("__hidden", "seen")

    def __init__(self, hidden):
        self.__hidden, self.seen = hidden, [hidden]

    def __eq__(self, other):
        return (self.__hidden, self.seen) == (other.__hidden, other.seen)


Pair = namedtuple("Pair", "first second")

KEPT = {
    "nested": {"a": [1, (2.5, None, {3: "x"})], "b": {frozenset({1, 2}): {True}}},
    "numbers": [math.inf, -0.0, 2**70, -(2**100), 1 + 2j, b"\x00\xff", "\udc80é", True],
    "deques": [deque([1, 2, 3], maxlen=3), deque(), deque(maxlen=0)],
    "dictionaries": [OrderedDict(b=1, a=2), Counter("aab"), defaultdict(list, {1: [2]})],
    "objects": [Plain([1, 2], 0.5), Slotted((1,), 0.25), Private(3)],
    "named tuple": Pair(1, [2]),
    "arrays": [np.arange(6.0).reshape(2, 3), np.zeros(0, np.int8), np.array("text"), np.array(3)],
    "orders": [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(3, dtype=">i2")],
    "array numbers": [np.float64(0.1), np.float32(0.1), np.int64(-3), np.bool_(True)],
    "tensors": [torch.tensor([1.5, math.nan, -0.0])[:2], torch.ones(2, 3).t(), torch.tensor(3)],
    "types": [torch.float16, torch.device("cpu"), torch.channels_last, torch.Size([2, 3])],
    "kinds": [Norm.SIGN, range(1, 9, 2)],
    "sparse": torch.tensor([[0, 1.0], [0, 0]]).to_sparse(),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in KEPT if name not in ("types", "sparse")])
def test_values_that_only_a_step_made_come_back(name):
    assert same(again(Memory(KEPT[name])).kept, KEPT[name])


def test_types_and_sparse_tensors_come_back():
    types = KEPT["types"][:2] + KEPT["types"][3:]
    assert again(Memory(types)).kept == types
    assert again(Memory(KEPT["types"]), Memory(list(KEPT["types"]))).kept == KEPT["types"]
    assert torch.equal(again(Memory(KEPT["sparse"])).kept.to_dense(), KEPT["sparse"].to_dense())


def test_objects_of_the_constructor_are_changed_in_place():
    made = Memory([Plain(), [1], deque(maxlen=2), {}, np.zeros(2)])
    before = list(made.kept)
    changed = [Plain([1], 2), [3, 4], deque([1], maxlen=2), {"x": 1}, np.ones(2)]
    again(Memory(changed), made)
    assert all(old is new for old, new in zip(before, made.kept, strict=True))
    assert same(made.kept, changed)


def generators():
    made = [torch.Generator(), random.Random(), np.random.RandomState(), np.random.default_rng()]
    made += [np.random.Generator(kind()) for kind in (np.random.Philox, np.random.SFC64)]
    return [*made, np.random.PCG64DXSM()]


def draws(made):
    first = [torch.rand(3, generator=made[0]).tolist(), made[1].gauss(0, 1), made[2].randn()]
    return [*first, *(each.normal() for each in made[3:6]), int(made[6].random_raw())]


@pytest.mark.parametrize("late", [True, False])
def test_generators_go_on(late):
    first = Memory(generators())
    draws(first.kept)  # so that spare normal numbers lie in them
    second = again(first, Memory(None if late else generators()))
    assert draws(first.kept) == draws(second.kept)


def test_tensors_that_share_memory_still_do():
    whole = torch.zeros(6)
    kept = again(Memory([whole, whole[:2], whole.view(2, 3)[1], whole])).kept
    kept[0].add_(1)
    assert [t.sum().item() for t in kept] == [6, 2, 3, 6]
    assert kept[0] is kept[3]


def test_a_slice_is_saved_without_the_rest_of_its_tensor():
    tree = stored(Memory(torch.zeros(1000)[:2]))["tree"]["optimizer"]
    assert tree["attributes"]["kept"]["value"].untyped_storage().nbytes() == 8


def test_views_of_parameters_still_follow_them():
    first = Memory()
    p = weights(first)[0]
    first.kept = [p.data, p.data[1], p.data.t(), p.data.view(torch.int32), p.detach()[:, 1:]]
    first.state[p]["twin"], first.state["by name"] = p, p.data
    second = again(first)
    q = weights(second)[0]
    q.data.fill_(7)
    assert [t.shape for t in second.kept] == [t.shape for t in first.kept]
    assert all((t == 7).all() for t in (*second.kept[:3], second.kept[4]))
    assert (second.kept[3].view(torch.float32) == 7).all()
    assert second.state[q]["twin"] is q
    assert second.state["by name"].data_ptr() == q.data_ptr()


def test_tensors_stand_as_entries_of_state_and_on_parameters():
    first = Memory()
    p = weights(first)[0]
    first.state[p] = torch.ones(3)
    first.state["steps"] = torch.tensor(4)
    p.seen = 5
    p.average = torch.full((2,), 0.5)
    second = again(first)
    q = weights(second)[0]
    assert torch.equal(second.state[q], torch.ones(3))
    assert second.state["steps"] == 4
    assert (q.seen, q.average.tolist()) == (5, [0.5, 0.5])


def test_wrapper_and_wrapped_share_their_groups_again():
    def make():
        outer = Memory()
        outer.kept = torch.optim.SGD(outer.param_groups, lr=1, momentum=0.9)
        outer.kept.param_groups = outer.param_groups
        outer.kept.state = outer.state
        return outer

    first = make()
    for p in weights(first):
        p.grad = torch.ones_like(p)
    first.kept.step()
    first.param_groups[0]["lr"] = 0.25
    second = again(first, make())
    assert second.param_groups is second.kept.param_groups
    assert second.state is second.kept.state
    assert second.kept.param_groups[0]["lr"] == 0.25
    state = [optimizer.kept.state[weights(optimizer)[0]] for optimizer in (first, second)]
    assert same(state[0], state[1])


def test_cycles_and_shared_values_keep_their_shape():
    shared = Plain([1])
    loop = [shared, {"again": shared}]
    loop.append(loop)
    shared.best = loop
    first = Memory(loop)
    first.me = first
    second = again(first)
    assert second.kept[2] is second.kept
    assert second.kept[0] is second.kept[1]["again"]
    assert second.kept[0].best is second.kept
    assert second.me is second
    assert second.bound() is second.kept


def test_two_objects_do_not_become_the_one_that_the_constructor_made():
    one = {"n": 0}
    second = again(Memory([{"n": 1}, {"n": 2}]), Memory([one, one]))
    assert second.kept == [{"n": 1}, {"n": 2}]


def test_ids_and_addresses_of_parameters_are_those_of_the_new_ones():
    first = Memory()
    p, q = weights(first)
    first.kept = [{id(p): 1, q.data_ptr(): 2}, {id(q)}, 12345678901, -(2**70)]
    second = again(first)
    p, q = weights(second)
    assert second.kept == [{id(p): 1, q.data_ptr(): 2}, {id(q)}, 12345678901, -(2**70)]


def test_ids_of_other_objects_are_refused():
    other = [1]
    with pytest.raises(Unsaveable, match="is the id of an object"):
        stored(Memory([{id(other): 1}, other]))


def test_attributes_come_and_go():
    first, second = Memory(), Memory()
    first.late = [torch.ones(2)]
    second.early = 1
    again(first, second)
    assert torch.equal(second.late[0], torch.ones(2))
    assert not hasattr(second, "early")


def test_hook_like_attributes_of_ones_own_are_kept():
    first = Memory()
    first._hooks_seen = {"a": 1}
    assert again(first)._hooks_seen == {"a": 1}


def _function(x):
    return x


def _looped():
    inner: list = []
    outer = (inner,)
    inner.append(outer)
    return outer


def _shared_array():
    array = np.zeros(4)
    return [array, array[:2]]


REFUSED = {
    "lambda": (lambda: {"rule": lambda x: x}, "rule'] is a function"),
    "function": (lambda: [_function], r"kept\[0\] is a function"),
    "partial of a function": (lambda: partial(_function, 1), "is a function"),
    "file": (lambda: io.StringIO("text"), "StringIO"),
    "lock": (lambda: {"a": threading.Lock()}, r"\['a'\] is a _thread.lock"),
    "iterator": (lambda: iter([1]), "list_iterator"),
    "counter": (lambda: itertools.count(), "itertools.count"),
    "generator": (lambda: (k for k in [1]), "generator"),
    "dictionary of one's own": (lambda: type("Mine", (dict,), {})(), "Mine"),
    "default of one's own": (lambda: defaultdict(lambda: 0), "default"),
    "default called list": (lambda: defaultdict(type("list", (), {})), "list"),
    "array of objects": (lambda: np.array([None]), "array of object"),
    "array with a view": (_shared_array, "shares its memory"),
    "array of a tensor": (lambda: (lambda t: [t, t.numpy()])(torch.zeros(3)), "shares its memory"),
    "tuple in itself": (_looped, "contains itself"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_kept_is_named_with_its_place(name):
    make, words = REFUSED[name]
    with pytest.raises(Unsaveable, match=words) as error:
        stored(Memory(make()))
    assert "optimizer.kept" in str(error.value)


def test_a_function_in_a_group_is_named_with_its_place():
    optimizer = Memory()
    optimizer.param_groups[0]["shape"] = lambda k: 1.0
    with pytest.raises(Unsaveable, match=r"param_groups\[0\]\['shape'\] is a function"):
        stored(optimizer)


class Alarm:
    """An object whose code says that it ran."""

    ran = False

    def __del__(self):
        Alarm.ran = True


def node(kept):
    """The state of an optimizer, with another node in the place of `kept`."""
    state = stored(Memory([1]))
    state["tree"]["optimizer"]["attributes"]["kept"] = kept
    return state


def of_class(name):
    return node({"kind": "object", "class": name, "attributes": {}, "n": 90})


def with_attribute(name):
    state = node(None)
    state["tree"]["optimizer"]["attributes"][name] = 1
    return state


MALICIOUS = {
    "class of the standard library": lambda: of_class("subprocess:Popen"),
    "class of the standard library by way of a user's": lambda: of_class(f"{__name__}:threading.T"),
    "thread": lambda: of_class("threading:Thread"),
    "class imported by the user": lambda: of_class(f"{__name__}:deque"),
    "class of torch": lambda: of_class("torch.nn.modules.linear:Identity"),
    "class with a finalizer": lambda: of_class(f"{__name__}:Alarm"),
    "function for a class": lambda: of_class(f"{__name__}:_function"),
    "no class": lambda: of_class(f"{__name__}:nothing.there"),
    "enum that is none": lambda: node({"kind": "enum", "class": f"{__name__}:Plain", "name": "x"}),
    "method replaced": lambda: with_attribute("step"),
    "own method replaced": lambda: with_attribute("rule"),
    "property replaced": lambda: with_attribute("half"),
    "class replaced": lambda: with_attribute("__class__"),
    "dictionary replaced": lambda: with_attribute("__dict__"),
    "code where a list stood": lambda: node({"kind": "code", "name": "os:system"}),
    "function where a list stood": lambda: node({"kind": "function", "name": "os:system", "n": 90}),
    "method where a list stood": lambda: node(
        {"kind": "method", "name": "Memory.rule", "of": None, "n": 90}
    ),
    "partial call": lambda: node({"kind": "partial", "parts": ["os:system", [], {}], "n": 90}),
    "parameter of another shape": lambda: node([]) | {"parameters": [torch.ones(1), torch.ones(2)]},
    "view beyond a parameter": lambda: node(
        {
            "kind": "view", "index": 0, "shape": [[9], [1], 0], "size": 10**9,
            "dtype": "float32", "n": 90,
        }
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MALICIOUS))
def test_states_that_name_code_are_refused(name):
    optimizer = Memory([1])
    with pytest.raises(ValueError, match=r"missing|replace|stands where|shape|elsewhere"):
        restore({"optimizer": optimizer}, weights(optimizer), MALICIOUS[name]())
    assert not Alarm.ran


@pytest.mark.parametrize("name", ["MT19937", "Philox"])
def test_a_generator_cannot_read_beyond_its_numbers(name):
    optimizer = Memory(np.random.Generator(getattr(np.random, name)()))
    state = stored(optimizer)
    kept = state["tree"]["optimizer"]["attributes"]["kept"]
    _set_place(kept, 10**6)
    with pytest.raises(ValueError, match=r"no (buffer_)?pos 1000000"):
        restore({"optimizer": optimizer}, weights(optimizer), state)


def _set_place(node, place):
    for item in node["state"]["items"] if node.get("kind") == "generator" else node["items"]:
        if item[0] in ("pos", "buffer_pos"):
            item[1] = place
        elif isinstance(item[1], dict) and item[1].get("kind") == "dict":
            _set_place(item[1], place)


def test_a_view_cannot_reach_beyond_its_parameter():
    size = 24
    shape = [[9], [1], 0]
    view = {"kind": "view", "index": 0, "shape": shape, "size": size, "dtype": "float32", "n": 90}
    optimizer = Memory([1])
    with pytest.raises(RuntimeError, match="out of bounds"):
        restore({"optimizer": optimizer}, weights(optimizer), node(view))


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3)
)
KEYS = st.one_of(st.integers(), st.text(max_size=3), st.tuples(st.integers(), st.booleans()))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.builds(lambda items, n: deque(items, maxlen=n), st.lists(inner), st.integers(0, 4)),
        st.builds(Plain, st.lists(inner, max_size=2), st.floats()),
        st.frozensets(st.integers(), max_size=3),
        st.lists(st.floats(width=32), max_size=4).map(torch.tensor),
        st.lists(st.integers(-9, 9), max_size=4).map(np.array),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(TREES, TREES)
def test_generated_values_come_back_whatever_stood_there(kept, before):
    assert same(_bits(again(Memory(kept), Memory(before)).kept), _bits(kept))


def _bits(value):
    """Tensors as their bytes, in which NaN equals NaN."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _bits(item) for key, item in value.items()}
    if isinstance(value, Plain):
        return "plain", _bits(value.values), _bits(value.best)
    if isinstance(value, list | tuple):
        return type(value)(_bits(item) for item in value)
    if isinstance(value, deque):
        return [value.maxlen, *map(_bits, value)]
    return value

"""The state of live objects as plain values: what is reachable from them, found by looking.

A checkpoint of a user's optimizer must hold what the class remembers, wherever it keeps it: in its
groups, in `state`, in attributes, in objects and optimizers of its own. `capture` walks over all of
that; `restore` puts it back into objects that were built anew, in the same way. No object is ever
pickled: classes and functions are compared by name with those that are there, never loaded.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optbench.training.object_state.capture import Capture, Unsaveable
from optbench.training.object_state.parts import storage_of
from optbench.training.object_state.restore import Restore

__all__ = ["Unsaveable", "capture", "generators", "restore"]


def capture(roots: Mapping[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """All that is reachable from `roots`, as tensors and plain values.

    parameters: the model's, which are kept once and referred to from everywhere else. Tensors are
    those that live, not copies. Raises `Unsaveable`, with the path of what cannot be kept.
    """
    look = Capture(parameters)
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
        place = storage_of(tensor)
        count[place] = count.get(place, 0) + 1
    for node in look.tensors:
        node["value"] = _alone(node["value"], count)
    return {
        "parameters": [_alone(value, count) for value in values],
        "learn": [p.requires_grad for p in parameters],
        "given": given,
        "tree": tree,
    }


def generators(roots: Mapping[str, Any], parameters: Sequence[Tensor]) -> dict[str, str]:
    """The states of the random generators that are reachable from `roots`, as texts, by their
    paths. Raises `Unsaveable`."""
    look = Capture(parameters)
    for name, root in roots.items():
        look.functions = not isinstance(root, Optimizer)
        look.node(root, name)
    return look.generators


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
    put = Restore(roots, parameters)
    for name, root in roots.items():
        if put.value(state["tree"][name], root) is not root:
            raise ValueError(f"the {name} is another than the one that was saved")
    for p, node in zip(parameters, state["given"], strict=True):
        vars(p).update(put.value(node, _given(p)))


def _alone(tensor: Tensor, count: Mapping[int, int]) -> Tensor:
    """A copy, where the tensor is the only one of a storage that is larger than itself."""
    if tensor.layout is not torch.strided or count[storage_of(tensor)] > 1:
        return tensor
    larger = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    return tensor.clone() if larger else tensor


def _given(p: Tensor) -> dict[str, Any]:
    """What an optimizer hung onto a parameter, as `p.steps`."""
    return dict(getattr(p, "__dict__", {}))

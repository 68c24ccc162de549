"""The state of live objects: all values reachable from them, as plain values.

A checkpoint of a user's optimizer must hold all that the class remembers, in its groups, in
`state`, in attributes, or in objects and optimizers inside it. `capture` walks over all of these;
`restore` puts the values back into objects that were built in the same way. No object is ever
pickled: classes and functions are compared by name with those of the process, never loaded.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optbench.torch_internals import gradient_hooks
from optbench.training.object_state.capture import Capture, Unsaveable
from optbench.training.object_state.parts import storage_of
from optbench.training.object_state.restore import Restore

__all__ = ["Unsaveable", "capture", "generators", "restore"]


def capture(roots: Mapping[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """Return all values that are reachable from `roots`, as tensors and plain values.

    parameters: the model's; they are kept once, and referred to from everywhere else. Tensors are
    the live ones, not copies. Raises `Unsaveable`, with the path of an object that cannot be kept.
    """
    look, places = Capture(parameters), list(enumerate(parameters))
    tree = {name: look.root(root, name) for name, root in roots.items()}
    given = [look.node(_given(p), f"parameter {k}") for k, p in places]
    hooks = [look.hooks(gradient_hooks(p), f"parameter {k}.hooks") for k, p in places]
    look.check_memory()
    look.check_numbers()
    # torch.save writes the whole storage of a slice, so slices that stand alone are copied
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
        "hooks": hooks,
        "tree": tree,
    }


def generators(roots: Mapping[str, Any], parameters: Sequence[Tensor]) -> dict[str, str]:
    """Return random generators' states as texts, by path. Raise `Unsaveable`."""
    look = Capture(parameters)
    for name, root in roots.items():
        look.root(root, name)
    return look.generators


def restore(roots: Mapping[str, Any], parameters: Sequence[Tensor], state: dict[str, Any]) -> None:
    """Restore a captured state into `roots`, built in the same way, and `parameters`.

    Raises ValueError where the objects are not those that were captured, and LookupError or
    TypeError for a state that `capture` did not make. Do not use the objects after an error.
    """
    state = copy.deepcopy(state)  # keeps tensors that share memory together
    with torch.no_grad():
        for p, value in zip(parameters, state["parameters"], strict=True):
            if p.shape != value.shape:
                raise ValueError(f"a parameter has shape {tuple(p.shape)}, not {value.shape}")
            if p.stride() != value.stride():  # an optimizer gave the weights another layout
                p.data = torch.empty_strided(
                    value.shape, value.stride(), dtype=p.dtype, device=p.device
                )
            p.copy_(value)
    for p, learns in zip(parameters, state["learn"], strict=True):
        p.requires_grad_(learns)
    put = Restore(roots, parameters)
    for name, root in roots.items():
        if put.value(state["tree"][name], root) is not root:
            raise ValueError(f"the {name} is another than the one that was saved")
    for p, node in zip(parameters, state["given"], strict=True):
        vars(p).update(put.value(node, _given(p)))
    for p, node in zip(parameters, state["hooks"], strict=True):
        hooks = gradient_hooks(p)
        if len(hooks) != len(node["items"]):
            raise ValueError("hooks were registered on gradients after the first step")
        put.value(node, hooks)


def _alone(tensor: Tensor, count: Mapping[int, int]) -> Tensor:
    """Return a copy of a tensor that is alone in a larger storage, else the tensor."""
    if tensor.layout is not torch.strided or count[storage_of(tensor)] > 1:
        return tensor
    larger = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    return tensor.clone() if larger else tensor


def _given(p: Tensor) -> dict[str, Any]:
    """Return the attributes that an optimizer set on a parameter, such as `p.steps`."""
    return dict(getattr(p, "__dict__", {}))

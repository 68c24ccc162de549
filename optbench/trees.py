"""Trees of tensors: several inputs, outputs or targets in the place of one tensor.

A tree is a tensor, or a tuple, list or mapping of trees. `Parts` holds examples of several tensors.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

Tree = Any  # Tensor | tuple | list | Mapping | Parts | None


class Parts:
    """Several tensors with one example in each row, such as the two inputs of a model.

    Like a tensor, it can choose rows and move them to a device; each method acts on all parts.
    tensors: by name, or in their order. Raises ValueError for unequal lengths.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | Sequence[Tensor]) -> None:
        self.named = isinstance(tensors, Mapping)
        pairs = tensors.items() if isinstance(tensors, Mapping) else enumerate(tensors)
        self.tensors = {str(name): tensor for name, tensor in pairs}
        if len({len(tensor) for tensor in self.tensors.values()}) != 1:
            raise ValueError("the parts must have one length")

    def plain(self) -> dict[str, Tensor] | tuple[Tensor, ...]:
        """Return the parts as a model or a loss is given them: a dictionary or a tuple."""
        return dict(self.tensors) if self.named else tuple(self.tensors.values())

    def map(self, change: Callable[[Tensor], Tensor]) -> "Parts":
        """Return the parts with `change` of each."""
        changed = {name: change(tensor) for name, tensor in self.tensors.items()}
        return Parts(changed if self.named else list(changed.values()))

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: Any) -> "Parts":
        return self.map(lambda tensor: tensor[rows])

    def index_select(self, dim: int, index: Tensor) -> "Parts":
        """Return the rows of these numbers; `dim` is 0."""
        return self.map(lambda tensor: tensor.index_select(dim, index))

    def split(self, size: int | list[int]) -> "list[Parts]":
        """Return the rows in batches of so many rows, or of these sizes."""
        rows = [part for part in torch.arange(len(self)).split(size) if len(part)]
        return [self[int(part[0]) : int(part[0]) + len(part)] for part in rows] or [self]

    def to(self, *args: Any, **kwargs: Any) -> "Parts":
        """Return the parts on another device."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def cpu(self) -> "Parts":
        """Return the parts on the CPU."""
        return self.map(Tensor.cpu)

    def clone(self) -> "Parts":
        """Return a copy of the parts."""
        return self.map(Tensor.clone)

    def double(self) -> "Parts":
        """Return the parts with float64 numbers; whole numbers stay."""
        return self.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)

    def is_floating_point(self) -> bool:
        """Return whether all parts hold real numbers."""
        return all(tensor.is_floating_point() for tensor in self.tensors.values())

    def max(self) -> Tensor:
        """Return the largest whole number of all parts that hold whole numbers."""
        whole = [tensor for tensor in self.tensors.values() if not tensor.is_floating_point()]
        return torch.stack([tensor.max() for tensor in whole]).max()

    @property
    def shape(self) -> torch.Size:
        """The number of rows; one row has no shape that all parts share."""
        return torch.Size([len(self)])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of a row, by part."""
        return {name: tuple(tensor.shape[1:]) for name, tensor in self.tensors.items()}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first part."""
        return next(iter(self.tensors.values())).dtype

    @property
    def device(self) -> torch.device:
        """The device of all parts."""
        return next(iter(self.tensors.values())).device


def plain(tree: Tree) -> Tree:
    """Return a tensor as it is, and `Parts` as a dictionary or a tuple."""
    return tree.plain() if isinstance(tree, Parts) else tree


def map_tensors(change: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Return a tree of the same form, with `change` applied to each tensor.

    others: trees of the same form, whose tensors are further arguments of `change`. None stays
    None.
    """
    if isinstance(tree, Parts):
        return Parts(map_tensors(change, tree.plain(), *(other.plain() for other in others)))
    if isinstance(tree, Mapping):
        parts = {
            key: map_tensors(change, part, *(other[key] for other in others))
            for key, part in tree.items()
        }
        if type(tree) is dict:
            return parts
        made: Any = copy(tree)  # of a class with attributes of its own, as ModelOutput
        for key, part in parts.items():
            made[key] = part
        return made
    if isinstance(tree, tuple | list):
        items = [map_tensors(change, *each) for each in zip(tree, *others, strict=True)]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return tree if tree is None else change(tree, *others)


def cat(trees: Sequence[Tree]) -> Tree:
    """Return the rows of several trees of one form, one after another."""
    return map_tensors(lambda *tensors: torch.cat(tensors), *trees)


def to_float(tensor: Tensor) -> Tensor:
    """Return real numbers as float32, and whole numbers as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor


def leaves(tree: Tree) -> Iterator[Any]:
    """Yield the leaves of a tree: all but tuples, lists, mappings and None."""
    tree = plain(tree)
    if isinstance(tree, Mapping | tuple | list):
        for part in tree.values() if isinstance(tree, Mapping) else tree:
            yield from leaves(part)
    elif tree is not None:
        yield tree


def packed(value: Any) -> Any:
    """Return `Parts` as a dictionary for `unpacked`, and anything else as it is."""
    return {"parts": value.tensors, "named": value.named} if isinstance(value, Parts) else value


def unpacked(value: Any) -> Any:
    """Undo `packed`."""
    if isinstance(value, Mapping) and set(value) == {"parts", "named"}:
        return Parts(value["parts"] if value["named"] else list(value["parts"].values()))
    return value

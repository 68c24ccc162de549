"""Describe a multilayer perceptron and its loss to the code of `mlp.cpp`."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from optbench.engines.compiled_mlp.compile import library
from optbench.engines.compiled_mlp.eligibility import (
    ACTIVATIONS,
    MAX_EXAMPLES,
    blocks,
    loss_of,
    slope_of,
)

SOURCE = Path(__file__).with_name("mlp.cpp")
GRADIENT = 7  # the number of the rule that only writes gradients, in rules.hpp


class Parameter(ctypes.Structure):
    """The struct `Parameter` of rules.hpp."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("state", ctypes.c_void_p * 3),
        ("settings", ctypes.c_double * 4),
        ("steps", ctypes.c_double),
        ("group", ctypes.c_int64),
    )


class Norm(ctypes.Structure):
    """The struct `Norm` of job.hpp."""

    _fields_ = (
        ("place", ctypes.c_int64),
        ("eps", ctypes.c_double),
        ("momentum", ctypes.c_double),
        ("weight", Parameter),
        ("bias", Parameter),
        ("mean", ctypes.c_void_p),
        ("variance", ctypes.c_void_p),
    )


class Layer(ctypes.Structure):
    """The struct `Layer` of job.hpp."""

    _fields_ = (
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("activation", ctypes.c_int64),
        ("slope", ctypes.c_double),
        ("weight", Parameter),
        ("bias", Parameter),
        ("norm", Norm),
        ("threshold", ctypes.c_int64),
        ("scale", ctypes.c_double),
    )


class Job(ctypes.Structure):
    """The struct `Job` of job.hpp."""

    _fields_ = (
        ("layers", ctypes.POINTER(Layer)),
        ("count", ctypes.c_int64),
        ("batch", ctypes.c_int64),
        ("steps", ctypes.c_int64),
        ("X", ctypes.c_void_p),
        ("Y", ctypes.c_void_p),
        ("T", ctypes.c_void_p),
        ("batches", ctypes.c_void_p),
        ("masks", ctypes.POINTER(ctypes.c_void_p)),
        ("rates", ctypes.POINTER(ctypes.c_double)),
        ("groups", ctypes.c_int64),
        ("decays", ctypes.POINTER(ctypes.c_double)),
        ("loss", ctypes.c_int64),
        ("smoothing", ctypes.c_double),
    )


def _functions() -> ctypes.CDLL:
    found = library(SOURCE)
    assert found is not None
    place, number, job = ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(Job)
    found.mlp_scratch.argtypes = (job,)
    found.mlp_scratch.restype = number
    found.mlp_steps.argtypes = (job, number, number, place, place)
    found.mlp_steps.restype = None
    return found


class Network:
    """A model and its loss, as the compiled code reads them, with scratch memory.

    parameters: each trained tensor with its struct.
    """

    def __init__(self, loss: Callable[..., Tensor], model: nn.Module) -> None:
        self.library = _functions()
        found, self.chain = loss_of(loss), blocks(model)
        if found is None or not self.chain:
            raise ValueError("the compiled code has no such model or loss")
        self.loss = found
        self.inputs = self.chain[0].linear.in_features
        self.outputs = self.chain[-1].linear.out_features
        self.layers = (Layer * len(self.chain))()
        self.parameters: list[tuple[Parameter, Tensor]] = []
        for layer, block in zip(self.layers, self.chain, strict=True):
            linear, activation = block.linear, block.activation
            layer.inputs, layer.outputs = linear.in_features, linear.out_features
            layer.activation = 0 if activation is None else ACTIVATIONS.index(type(activation))
            layer.slope = float(slope_of(activation))
            places = [(layer.weight, linear.weight), (layer.bias, linear.bias)]
            if block.dropout is not None:
                layer.threshold, layer.scale = block.dropout.threshold, 1 / (1 - block.dropout.p)
            if block.norm is not None:
                layer.norm.place = 2 if block.norm_after else 1
                layer.norm.eps, layer.norm.momentum = (
                    block.norm.eps,
                    float(block.norm.momentum or 0),
                )
                places += [(layer.norm.weight, block.norm.weight)]
                places += [(layer.norm.bias, block.norm.bias)]
            self.parameters += [(to, p) for to, p in places if p is not None]
        self.norms = [
            (layer.norm, block.norm)
            for layer, block in zip(self.layers, self.chain, strict=True)
            if block.norm is not None
        ]
        self._zero = (ctypes.c_double * 1)()
        self._scratch = torch.empty(0, dtype=torch.float32)

    def bind(self) -> None:
        """Read where the weights and the running statistics lie; both must be contiguous."""
        for to, p in self.parameters:
            to.values = address(p)
        for norm, module in self.norms:
            if module.running_mean is not None and module.running_var is not None:
                norm.mean, norm.variance = map(address, (module.running_mean, module.running_var))

    def take(
        self,
        x: Tensor,
        y: Tensor,
        chosen: Tensor,
        rule: int,
        rates: Any = None,
        decays: Any = None,
    ) -> Tensor:
        """Take k steps, and return their losses (k,).

        chosen: indices into x and y (k, batch). rates, decays: the lr of each step and
        group, and the weight decay of each group.
        """
        count, size = chosen.shape
        masks = [
            block.dropout.draw((size, block.linear.in_features))
            for _ in range(count)
            for block in self.chain
            if block.dropout is not None
        ]
        job = Job(
            self.layers, len(self.layers), size, count, x.data_ptr(),
            0 if self.loss.values else y.data_ptr(), y.data_ptr() if self.loss.values else 0,
            chosen.data_ptr(), (ctypes.c_void_p * len(masks))(*(m.data_ptr() for m in masks)),
            self._zero if rates is None else rates, 1 if decays is None else len(decays),
            self._zero if decays is None else decays, self.loss.number, self.loss.smoothing,
        )  # fmt: skip
        needed = self.library.mlp_scratch(job)
        if len(self._scratch) < needed:
            self._scratch = torch.empty(needed, dtype=torch.float32)
        losses = torch.empty(count, dtype=torch.float32)
        self.library.mlp_steps(
            job, rule, torch.get_num_threads(), self._scratch.data_ptr(), losses.data_ptr()
        )
        for _, module in self.norms:
            if module.num_batches_tracked is not None:
                module.num_batches_tracked += count
        return losses

    def check(self, x: Tensor, y: Tensor) -> None:
        """Raise ValueError for examples or targets that the compiled code does not take."""
        if len(x) != len(y):
            raise ValueError(f"there are {len(x)} examples and {len(y)} labels")
        if x.dtype != torch.float32 or not x.is_contiguous() or x[0].numel() != self.inputs:
            raise ValueError(f"the examples must be contiguous, {self.inputs} float32 each")
        if self.loss.values:
            if y.dtype != torch.float32 or not y.is_contiguous() or y[0].numel() != self.outputs:
                raise ValueError(f"the targets must be contiguous, {self.outputs} float32 each")
            return
        if y.dtype != torch.int64 or not y.is_contiguous():
            raise ValueError("the labels must be contiguous, of int64")
        if not (y.min() >= 0 and y.max() < self.outputs):
            raise ValueError(f"a label is none of the {self.outputs} classes")

    def can_take(self, x: Tensor) -> bool:
        """Return whether a batch and the weights are as the compiled code needs them."""
        tensors = [p for _, p in self.parameters]
        size = 2 if self.norms else 1
        return size <= len(x) <= MAX_EXAMPLES and all(
            t.dtype is torch.float32 and t.is_contiguous() for t in (x, *tensors)
        )

    def gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """Put the gradients into `p.grad`, and return the loss, a scalar."""
        for to, p in self.parameters:
            p.grad = torch.empty_like(p)
            to.state[0] = p.grad.data_ptr()
        self.bind()
        return self.take(x, y, torch.arange(len(x)).view(1, -1), GRADIENT)[0]


def address(t: Tensor) -> int:
    """Return where a tensor lies; ValueError unless it is contiguous, of float32."""
    if t.dtype != torch.float32 or not t.is_contiguous():
        raise ValueError("weights and their state must be contiguous, of float32")
    return t.data_ptr()

"""Explain why a model's first layer does not take the examples."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from optbench.datasets.prepare import Dataset
from optbench.torch_internals import CONVOLUTION
from optbench.trees import Parts

# by the dimensions of a convolution
PLACES = {1: "length", 2: "height, width", 3: "time, height, width"}
LOOK_UPS = (nn.Embedding, nn.EmbeddingBag)


def advice(model: nn.Module, data: Dataset) -> str:
    """Return what the first layer takes, what the examples are, and advice."""
    first = next(_known_layers(model), None)
    said = "" if first is None else f". The first {type(first).__name__} takes {takes(first)}"
    return f"{said}; the examples are {examples_in_words(data)}{_what_to_do(model, first, data)}"


def _known_layers(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        known = (CONVOLUTION, nn.Linear, nn.RNNBase, *LOOK_UPS)
        if isinstance(module, known) and not isinstance(module, LazyModuleMixin):
            yield module


def takes(layer: nn.Module) -> str:
    """Return in words the shape and the kind of numbers that a known layer takes."""
    if isinstance(layer, CONVOLUTION):
        places = PLACES[layer.weight.ndim - 2]
        return f"real numbers (n, {layer.in_channels}, {places})"
    if isinstance(layer, nn.RNNBase):
        order = "n, time" if layer.batch_first else "time, n"
        first = "" if layer.batch_first else ", without batch_first=True"
        return f"real numbers ({order}, {layer.input_size}){first}"
    if isinstance(layer, nn.Linear):
        return f"real numbers (n, ..., {layer.in_features})"
    return f"whole numbers from 0 to {getattr(layer, 'num_embeddings', 1) - 1}"


def examples_in_words(data: Dataset) -> str:
    """Return the shape and the kind of numbers of a dataset's examples."""
    if isinstance(data.train_x, Parts):
        parts = data.train_x.tensors.items()
        return "; ".join(f"{name}: {_in_words(tensor)}" for name, tensor in parts)
    return _in_words(data.train_x)


def _in_words(x: torch.Tensor) -> str:
    shape = ", ".join(["n", *map(str, x.shape[1:])])
    kind = "real" if x.is_floating_point() else "whole"
    return f"{kind} numbers ({shape}), {x.dtype}"


def _what_to_do(model: nn.Module, first: nn.Module | None, data: Dataset) -> str:
    shape = data.input_shape
    if isinstance(data.train_x, Parts):
        how = "by name" if data.train_x.named else "in their order"
        return f". Several inputs are given to the model's forward {how}"
    if data.task.told_models.get("causal"):
        return (
            ". The examples are tokens, numbers that stand for characters or words: take "
            "model=gpt, lstm or bigram, or a model of yours that looks them up (nn.Embedding)"
        )
    if not data.train_x.is_floating_point():
        if any(isinstance(module, LOOK_UPS) for module in model.modules()):
            return ""
        return ". The examples are integers: preprocessing=none gives numbers for other layers"
    if any(isinstance(module, LOOK_UPS) for module in model.modules()):
        return ". A model that looks numbers up (nn.Embedding) needs preprocessing=integers"
    if isinstance(first, nn.Conv2d) and len(shape) == 3 and first.in_channels != shape[0]:
        return (
            f". It takes images of {first.in_channels} channels, and these have {shape[0]}: take "
            f"another dataset (cifar10 has 3), or write a function of your own: "
            f"def net(input_shape, classes): return nn.Sequential(nn.Conv2d(input_shape[0], "
            f"{first.in_channels}, 1), MODEL(num_classes=classes))"
        )
    return ""

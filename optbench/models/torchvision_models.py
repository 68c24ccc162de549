"""torchvision's networks for classification, without pretrained weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from optbench.common.errors import UserError, message_of
from optbench.common.names import did_you_mean
from optbench.datasets.torchvision_shim import import_torchvision


def torchvision_model(input_shape: Sequence[int], classes: int, *, network: str) -> nn.Module:
    """Return a network of torchvision for images of any channels, to logits.

    Weights are never downloaded: the run's initializer fills them. The last layer has `classes`
    outputs. A first convolution for three channels becomes one for the images' channels.
    network: a name of `torchvision.models.list_models`, of the networks for classification.
    Raises `UserError` for another name, or images that the network does not take.
    """
    if len(input_shape) != 3:
        raise UserError(
            f"model=torchvision needs images (channels, height, width), and this dataset's "
            f"examples have shape {tuple(input_shape)}. Use model=mlp or model=logreg, or a "
            f"dataset of images."
        )
    models = import_torchvision().models
    names = models.list_models(module=models)
    if network not in names:
        raise UserError(
            f"torchvision has no network {network!r} for classification"
            f"{did_you_mean(str(network), names)}\nmodel.name is one of: {', '.join(names)}"
        )
    channels, height, width = input_shape
    given = _settings(network, height, width)
    try:
        model: nn.Module = models.get_model(network, weights=None, num_classes=classes, **given)
        _adapt_channels(model, network, channels)
        with torch.no_grad():
            outputs = model.eval()(torch.zeros(2, *input_shape))
    except (ValueError, RuntimeError, AssertionError) as error:
        why = " ".join(message_of(error).split())
        raise UserError(
            f"model.name={network} does not take images of {height}x{width} pixels "
            f"({why}). Larger ones: dataset.size=224 for dataset=image_folder; small "
            f"ones: model=resnet, or model.name=resnet18"
        ) from error
    shape = tuple(outputs.shape)
    if shape != (2, classes):
        raise UserError(
            f"model.name={network} gives outputs of shape {shape} for 2 examples; {(2, classes)} "
            f"is needed, one logit per class: choose another network"
        )
    return model.train()


def _settings(network: str, height: int, width: int) -> dict[str, Any]:
    """Return the arguments that a network needs for one output and images of a size."""
    if network == "googlenet" or network == "inception_v3":
        # without auxiliary outputs; naming the default of `init_weights` avoids a warning
        return {"aux_logits": False, "init_weights": True}
    if network.startswith("vit_"):
        if height != width:
            raise UserError(f"model.name={network} needs square images, not {height}x{width}")
        return {"image_size": height}
    if network.startswith("maxvit"):
        return {"input_size": (height, width)}
    return {}


def _adapt_channels(model: nn.Module, network: str, channels: int) -> None:
    """Replace the first convolution, of three channels, by one of `channels`."""
    if channels == 3:
        return
    name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels != 3 or first.groups != 1:
        raise UserError(
            f"model.name={network} begins with a convolution of {first.in_channels} channels, and "
            f"optbench adapts one of 3 alone: choose another network"
        )
    new = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]  # the stubs: a tuple of any length
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
        padding_mode=first.padding_mode,
    )
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)

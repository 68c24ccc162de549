"""Convolutional networks for images."""

from collections.abc import Sequence

from torch import nn

from optbench.common.errors import UserError
from optbench.models.dense import mlp
from optbench.models.layers import block, dropout_layers, norm_follows, sizes_of


def cnn(
    input_shape: Sequence[int],
    classes: int,
    *,
    channels: Sequence[int] = (32, 64, 64),
    kernel: int = 3,
    hidden: Sequence[int] = (128,),
    activation: str = "relu",
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    batch_norm: bool = False,
    batch_norm_place: str = "before",
) -> nn.Module:
    """Return a convolutional network for images `(channels, height, width)` from 8x8.

    A stage is a convolution of size `kernel` that keeps the image's size, the activation, and 2x2
    max-pooling while there are two pixels to pool. An MLP with the `hidden` layers follows.
    """
    if len(input_shape) != 3:
        raise UserError(
            f"model=cnn needs images (channels, height, width), and this dataset's examples have "
            f"shape {tuple(input_shape)}. Use model=mlp or model=logreg, or a dataset of images."
        )
    width, height_px, width_px = input_shape
    if min(height_px, width_px) < 8:
        raise UserError(
            f"model=cnn needs images of at least 8x8 pixels, not {height_px}x{width_px}"
        )
    if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise UserError(f"model.kernel must be an odd whole number (1, 3, 5, ...), not {kernel!r}")
    layers = dropout_layers("model.input_dropout", input_dropout)
    for size in sizes_of("model.channels", channels):
        bias = not norm_follows(batch_norm, batch_norm_place)
        conv = nn.Conv2d(width, size, kernel, padding=kernel // 2, bias=bias)
        norm = nn.BatchNorm2d(size) if batch_norm else None
        layers += block(conv, norm, activation, batch_norm_place)
        if min(height_px, width_px) >= 2:
            layers.append(nn.MaxPool2d(2))
            height_px, width_px = height_px // 2, width_px // 2
        layers += dropout_layers("model.dropout", dropout)
        width = size
    head = mlp(
        (width, height_px, width_px),
        classes,
        hidden=hidden,
        activation=activation,
        dropout=dropout,
        batch_norm=batch_norm,
        batch_norm_place=batch_norm_place,
    )
    return nn.Sequential(*layers, *head.children())

"""Three-dimensional convolutional networks for clips."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from optbench.common.errors import UserError
from optbench.models.dense import mlp
from optbench.models.layers import block, dropout_layers, norm_follows, sizes_of


class ChannelsFirst(nn.Module):
    """Put the channels of clips before the time.

    Clips `(n, time, channels, height, width)` to `(n, channels, time, height, width)`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class MeanOverPlaces(nn.Module):
    """Features `(n, channels, time, height, width)` to their means `(n, channels)`."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(x, dim=(2, 3, 4))


def cnn3d(
    input_shape: Sequence[int],
    classes: int,
    *,
    channels: Sequence[int] = (8, 16, 32),
    kernel: int = 3,
    hidden: Sequence[int] = (64,),
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
    batch_norm_place: str = "before",
) -> nn.Module:
    """Return a convolutional network for clips from 4 frames of 8x8 pixels.

    A clip is `(time, channels, height, width)`. A stage is a convolution of size `kernel` in time
    and space that keeps the clip's size, the activation, and max-pooling of 2x2 pixels, from the
    second stage on of two frames too, while there are two to pool (Tran et al. 2015). The means
    over all places go to an MLP with the `hidden` layers.
    """
    if len(input_shape) != 4:
        raise UserError(
            f"model=cnn3d needs clips (time, channels, height, width), and this dataset's examples "
            f"have shape {tuple(input_shape)}. Use model=cnn for images, model=lstm for sequences, "
            f"or a dataset of clips such as dataset=moving_digits"
        )
    frames, width, *size = input_shape
    if frames < 4 or min(size) < 8:
        raise UserError(
            f"model=cnn3d needs clips of at least 4 frames of 8x8 pixels, not {frames} of "
            f"{size[0]}x{size[1]}"
        )
    if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise UserError(f"model.kernel must be an odd whole number (1, 3, 5, ...), not {kernel!r}")
    layers: list[nn.Module] = [ChannelsFirst()]
    for stage, units in enumerate(sizes_of("model.channels", channels)):
        bias = not norm_follows(batch_norm, batch_norm_place)
        conv = nn.Conv3d(width, units, kernel, padding=kernel // 2, bias=bias)
        norm = nn.BatchNorm3d(units) if batch_norm else None
        layers += block(conv, norm, activation, batch_norm_place)
        pools = tuple(2 if n >= 2 else 1 for n in (frames if stage else 1, *size))
        if math.prod(pools) > 1:
            layers.append(nn.MaxPool3d(pools))
            frames, *size = (n // pool for n, pool in zip((frames, *size), pools, strict=True))
        layers += dropout_layers("model.dropout", dropout)
        width = units
    head = mlp(
        (width,),
        classes,
        hidden=hidden,
        activation=activation,
        dropout=dropout,
        batch_norm=batch_norm,
        batch_norm_place=batch_norm_place,
    )
    return nn.Sequential(*layers, MeanOverPlaces(), *head.children())

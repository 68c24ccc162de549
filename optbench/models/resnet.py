"""The residual networks of He et al. 2016 (section 4.2) for small images, CIFAR's."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from optbench.common.errors import UserError, check_choice

NORMS = ("batch", "layer", "group")
SHORTCUTS = ("A", "B")
WIDTHS = (1, 2, 4)  # of the three stages, times `width`


def resnet(
    input_shape: Sequence[int],
    classes: int,
    *,
    depth: int = 20,
    width: int = 16,
    norm: str = "batch",
    groups: int = 8,
    shortcut: str = "A",
) -> nn.Module:
    """Return a residual network for images `(channels, height, width)`, to logits.

    A convolution, three stages of n blocks with 1, 2 and 4 times `width` channels, the mean over
    the pixels, and a linear layer. Stages two and three halve the image.
    depth: 6 n + 2 weight layers: 8, 14, 20, ... norm: "batch"; "layer", over channels and pixels of
    each example, which is one group (Wu & He 2018); "group", over `groups` groups of channels.
    shortcut: where a stage begins, "A" takes every second pixel and adds channels of zeros, without
    parameters; "B" is a 1x1 convolution with a norm. ResNet-20 has 0.27 million parameters with A.
    """
    if len(input_shape) != 3:
        raise UserError(
            f"model=resnet needs images (channels, height, width), and this dataset's examples "
            f"have shape {tuple(input_shape)}. Use model=mlp or model=logreg, or a dataset of "
            f"images."
        )
    check_choice("model.norm", norm, NORMS)
    check_choice("model.shortcut", shortcut, SHORTCUTS)
    if type(depth) is not int or depth < 8 or depth % 6 != 2:
        raise UserError(f"model.depth must be 6 n + 2 (8, 14, 20, 32, ...), not {depth!r}")
    for key, value in (("width", width), ("groups", groups)):
        if type(value) is not int or value < 1:
            raise UserError(f"model.{key} must be a whole number of at least 1, not {value!r}")
    if norm == "group" and width % groups:
        raise UserError(
            f"model.groups must divide model.width={width}, and {groups} does not: take "
            f"{_divisor(width, groups)}"
        )

    def make_norm(channels: int) -> nn.Module:
        if norm == "batch":
            return nn.BatchNorm2d(channels)
        return nn.GroupNorm(1 if norm == "layer" else groups, channels)

    layers: list[nn.Module] = [_conv(input_shape[0], width, 3), make_norm(width), nn.ReLU()]
    channels = width
    for stage, factor in enumerate(WIDTHS):
        for block in range((depth - 2) // 6):
            stride = 2 if stage and not block else 1
            layers.append(ResidualBlock(channels, factor * width, stride, make_norm, shortcut))
            channels = factor * width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )


class ResidualBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), with x brought to the outputs' shape."""

    takes_any_layout = True  # the result does not depend on the memory layout

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        make_norm: Callable[[int], nn.Module],
        shortcut: str,
    ) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, 3, stride), make_norm(outputs)
        self.relu1 = nn.ReLU()
        self.conv2, self.norm2 = _conv(outputs, outputs, 3), make_norm(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if inputs != outputs and shortcut == "A":
            self.shortcut = Subsample(stride, outputs - inputs)
        elif inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), make_norm(outputs))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(x))


class Subsample(nn.Module):
    """Every `stride`-th pixel, with channels of zeros appended: shortcut A."""

    takes_any_layout = True  # the result does not depend on the memory layout

    def __init__(self, stride: int, zeros: int) -> None:
        super().__init__()
        self.stride, self.zeros = stride, zeros

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.zeros))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, zeros={self.zeros}"


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    # no bias: a norm follows, which would subtract it
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _divisor(width: int, most: int) -> int:
    return max(n for n in range(1, min(width, most) + 1) if width % n == 0)

"""Models: functions of an input shape and a number of classes to an `nn.Module`."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from optbench.common.errors import UserError, check_choice
from optbench.torch_internals import has_forward_hooks

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class Drawing(nn.Module):
    """A layer that draws random numbers while training, from its own generator.

    The training loop sets `generator`. While `generator` is None, the layer draws from torch's
    global generator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator: torch.Generator | None = None


def drawing_layers(model: nn.Module) -> Iterator[tuple[str, Drawing]]:
    """Yield the name and the layer of each `Drawing` in the model, by its type."""
    for name, module in model.named_modules():
        if isinstance(module, Drawing) and "generator" in vars(module):
            yield name, module


def draw_from(model: nn.Module, generator: torch.Generator) -> None:
    """Let each `Drawing` layer of the model draw from `generator`."""
    for _, layer in drawing_layers(model):
        layer.generator = generator


class Dropout(Drawing):
    """Inverted dropout (Srivastava et al. 2014) with a generator of its own.

    `nn.Dropout` draws from the global generator, so two runs in one process would change each
    other's masks.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = self.draw(x.shape, x.device) >= self.threshold
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))

    @property
    def threshold(self) -> int:
        """The least number of `draw` whose unit is kept."""
        return min(math.ceil(self.p * 2**16), 2**16 - 1) - 2**15

    def draw(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Draw 16 random bits for each unit, as an int16 tensor of a shape.

        One draw of whole words is many times as fast as `bernoulli_` with a generator.
        """
        units = math.prod(shape)
        words = torch.empty((units + 3) // 4, dtype=torch.int64, device=device)
        words.random_(-(2**63), None, generator=self.generator)
        return words.view(torch.int16)[:units].view(*shape)

    def extra_repr(self) -> str:
        return f"p={self.p}"


ANY_LAYOUT_LAYERS = (
    nn.Sequential, nn.Flatten, nn.Linear, nn.Conv2d, nn.MaxPool2d, nn.BatchNorm1d, nn.BatchNorm2d,
    nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, Dropout,
)  # fmt: skip


def takes_any_layout(model: nn.Module) -> bool:
    """Return whether exactly known layers make the model independent of memory layout."""
    return all(type(m) in ANY_LAYOUT_LAYERS and not has_forward_hooks(m) for m in model.modules())


def mlp(
    input_shape: Sequence[int],
    classes: int,
    *,
    hidden: Sequence[int] = (512, 256),
    activation: str = "relu",
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    batch_norm: bool = False,
    batch_norm_place: str = "before",
) -> nn.Module:
    """Return a multilayer perceptron, `(n, *input_shape)` to logits `(n, classes)`.

    `dropout` is the probability of dropping a hidden unit, `input_dropout` that of an input. Batch
    norm stands before the activation (Ioffe & Szegedy 2015) or after it.
    """
    layers = [nn.Flatten(), *_dropout("model.input_dropout", input_dropout)]
    width = math.prod(input_shape)
    for size in _sizes("model.hidden", hidden):
        linear = nn.Linear(width, size, bias=not _norm_follows(batch_norm, batch_norm_place))
        norm = nn.BatchNorm1d(size) if batch_norm else None
        layers += _block(linear, norm, activation, batch_norm_place)
        layers += _dropout("model.dropout", dropout)
        width = size
    return nn.Sequential(*layers, nn.Linear(width, classes))


def logreg(input_shape: Sequence[int], classes: int) -> nn.Module:
    """Return multinomial logistic regression, a single linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), classes))


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
    layers = _dropout("model.input_dropout", input_dropout)
    for size in _sizes("model.channels", channels):
        bias = not _norm_follows(batch_norm, batch_norm_place)
        conv = nn.Conv2d(width, size, kernel, padding=kernel // 2, bias=bias)
        norm = nn.BatchNorm2d(size) if batch_norm else None
        layers += _block(conv, norm, activation, batch_norm_place)
        if min(height_px, width_px) >= 2:
            layers.append(nn.MaxPool2d(2))
            height_px, width_px = height_px // 2, width_px // 2
        layers += _dropout("model.dropout", dropout)
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


def _block(
    layer: nn.Module, norm: nn.Module | None, activation: str, place: str
) -> list[nn.Module]:
    check_choice("model.activation", activation, ACTIVATIONS)
    activate = ACTIVATIONS[activation]()
    if norm is None:
        return [layer, activate]
    return [layer, norm, activate] if place == "before" else [layer, activate, norm]


def _norm_follows(batch_norm: bool, place: str) -> bool:
    # The norm subtracts any bias; its gradient is rounding noise that adaptive methods amplify.
    if not isinstance(batch_norm, bool):
        raise UserError(f"model.batch_norm must be true or false, not {batch_norm!r}")
    if place not in ("before", "after"):
        raise UserError(
            f"model.batch_norm_place must be 'before' or 'after' the activation, not {place!r}"
        )
    return batch_norm and place == "before"


def _sizes(key: str, sizes: Sequence[int]) -> list[int]:
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise UserError(f"{key} must be a list of layer sizes such as [256,128], not {sizes!r}")
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise UserError(
                f"{key} must be a list of whole numbers of at least 1, not {list(sizes)}"
            )
    return list(sizes)


def _dropout(key: str, p: float) -> list[nn.Module]:
    if not isinstance(p, int | float) or isinstance(p, bool) or not 0 <= p < 1:
        raise UserError(f"{key} must be a probability in [0, 1), not {p!r}")
    return [Dropout(p)] if p else []

"""The layers of the models, and the checks of their settings."""

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
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
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
    nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Softsign,
    Dropout,
    nn.ModuleList, nn.LSTM, nn.GRU, nn.GroupNorm, nn.AdaptiveAvgPool2d,
)  # fmt: skip
ANY_LAYOUT = "takes_any_layout"  # the attribute that marks other classes of optbench's


def takes_any_layout(model: nn.Module) -> bool:
    """Return whether exactly known layers make the model independent of memory layout."""
    return all(
        (type(m) in ANY_LAYOUT_LAYERS or ANY_LAYOUT in vars(type(m))) and not has_forward_hooks(m)
        for m in model.modules()
    )


def block(layer: nn.Module, norm: nn.Module | None, activation: str, place: str) -> list[nn.Module]:
    """Return a layer with its activation, and its norm before or after the activation."""
    check_choice("model.activation", activation, ACTIVATIONS)
    activate = ACTIVATIONS[activation]()
    if norm is None:
        return [layer, activate]
    return [layer, norm, activate] if place == "before" else [layer, activate, norm]


def norm_follows(batch_norm: bool, place: str) -> bool:
    """Return whether a batch norm follows a layer directly, which then has no bias."""
    # The norm subtracts any bias; its gradient is rounding noise that adaptive methods amplify.
    if not isinstance(batch_norm, bool):
        raise UserError(f"model.batch_norm must be true or false, not {batch_norm!r}")
    if place not in ("before", "after"):
        raise UserError(
            f"model.batch_norm_place must be 'before' or 'after' the activation, not {place!r}"
        )
    return batch_norm and place == "before"


def sizes_of(key: str, sizes: Sequence[int]) -> list[int]:
    """Return checked layer sizes. key: the setting, for messages."""
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise UserError(f"{key} must be a list of layer sizes such as [256,128], not {sizes!r}")
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise UserError(
                f"{key} must be a list of whole numbers of at least 1, not {list(sizes)}"
            )
    return list(sizes)


def count_of(key: str, value: object) -> int:
    """Return a checked whole number of at least 1. key: the setting, for messages."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{key} must be a whole number of at least 1, not {value!r}")
    return value


def check_tokens(model: str, input_shape: Sequence[int], vocabulary: int) -> int:
    """Return an example's number of tokens. Raise `UserError` for other examples."""
    if len(input_shape) != 1 or not vocabulary:
        kind = "integers" if vocabulary else "real numbers"
        raise UserError(
            f"model={model} needs tokens (time,), as integers, and this dataset's examples are "
            f"{kind} of shape {tuple(input_shape)}. Take dataset=austen, dataset=text or another "
            f"of tokens; for images model=cnn or model=mlp, for vectors model=mlp"
        )
    return input_shape[0]


def dropout_layers(key: str, p: float) -> list[nn.Module]:
    """Return a dropout layer in a list, or [] for a probability of 0."""
    if not isinstance(p, int | float) or isinstance(p, bool) or not 0 <= p < 1:
        raise UserError(f"{key} must be a probability in [0, 1), not {p!r}")
    return [Dropout(p)] if p else []

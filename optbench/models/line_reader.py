"""A convolutional recurrent network that reads lines of characters."""

from collections.abc import Sequence

from torch import Tensor, nn

from optbench.common.errors import UserError, check_choice
from optbench.models.layers import block, count_of, dropout_layers, norm_follows, sizes_of
from optbench.models.recurrent import CELLS, Recurrent


class LineReader(nn.Module):
    """Convolutions whose columns are the steps of a recurrent network.

    Shi et al. 2017. Images `(n, channels, height, width)` to logits `(n, steps, classes)`, from
    left to right.
    """

    takes_any_layout = True

    def __init__(self, stages: nn.Module, recurrent: Recurrent) -> None:
        super().__init__()
        self.stages, self.recurrent = stages, recurrent

    def forward(self, x: Tensor) -> Tensor:
        columns = self.stages(x).permute(0, 3, 1, 2)  # (n, width, channels, height)
        logits: Tensor = self.recurrent(columns.flatten(2))
        return logits


def line_reader(
    input_shape: Sequence[int],
    classes: int,
    *,
    channels: Sequence[int] = (8, 16, 32),
    kernel: int = 3,
    hidden: int = 64,
    layers: int = 1,
    cell: str = "lstm",
    bidirectional: bool = True,
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
    batch_norm_place: str = "before",
) -> nn.Module:
    """Return a reader of lines `(channels, height, width)` for CTC.

    A stage is a convolution of size `kernel` that keeps the image's size, the activation, and 2x2
    max-pooling while there are two pixels to pool: three stages make a step of eight columns.
    hidden: units of each recurrent layer and direction.
    """
    if len(input_shape) != 3:
        raise UserError(
            f"model=line_reader needs images of lines (channels, height, width), and this "
            f"dataset's examples have shape {tuple(input_shape)}. Use dataset=digit_lines, or "
            f"model=lstm for sequences of vectors"
        )
    check_choice("model.cell", cell, CELLS)
    for key, value in (("model.hidden", hidden), ("model.layers", layers)):
        count_of(key, value)
    if not isinstance(bidirectional, bool):
        raise UserError(f"model.bidirectional must be true or false, not {bidirectional!r}")
    if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise UserError(f"model.kernel must be an odd whole number (1, 3, 5, ...), not {kernel!r}")
    width, rows, columns = input_shape
    stages: list[nn.Module] = []
    for units in sizes_of("model.channels", channels):
        bias = not norm_follows(batch_norm, batch_norm_place)
        conv = nn.Conv2d(width, units, kernel, padding=kernel // 2, bias=bias)
        norm = nn.BatchNorm2d(units) if batch_norm else None
        stages += block(conv, norm, activation, batch_norm_place)
        pools = (2 if rows >= 2 else 1, 2 if columns >= 2 else 1)
        if max(pools) > 1:
            stages.append(nn.MaxPool2d(pools))
            rows, columns = rows // pools[0], columns // pools[1]
        stages += dropout_layers("model.dropout", dropout)
        width = units
    recurrent = Recurrent(
        width * rows,
        classes,
        vocabulary=0,
        per_token=True,
        hidden=hidden,
        layers=layers,
        cell=cell,
        dropout=dropout,
        bidirectional=bidirectional,
    )
    return LineReader(nn.Sequential(*stages), recurrent)

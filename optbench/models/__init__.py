"""Models: functions of an input shape and a number of classes to an `nn.Module`."""

from optbench.models.convolutional import cnn
from optbench.models.dense import linear, logreg, mlp
from optbench.models.layers import (
    ACTIVATIONS,
    Drawing,
    Dropout,
    draw_from,
    drawing_layers,
    takes_any_layout,
)
from optbench.models.tabular import tabular_mlp

__all__ = [
    "ACTIVATIONS",
    "Drawing",
    "Dropout",
    "cnn",
    "draw_from",
    "drawing_layers",
    "linear",
    "logreg",
    "mlp",
    "tabular_mlp",
    "takes_any_layout",
]

"""Models: functions of an input shape and a number of classes to an `nn.Module`."""

from optbench.models.convolutional import cnn
from optbench.models.dense import logreg, mlp
from optbench.models.layers import (
    ACTIVATIONS,
    Drawing,
    Dropout,
    draw_from,
    drawing_layers,
    takes_any_layout,
)
from optbench.models.resnet import resnet
from optbench.models.torchvision_models import torchvision_model

__all__ = [
    "ACTIVATIONS",
    "Drawing",
    "Dropout",
    "cnn",
    "draw_from",
    "drawing_layers",
    "logreg",
    "mlp",
    "resnet",
    "takes_any_layout",
    "torchvision_model",
]

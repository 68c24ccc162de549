"""Models: functions of an input shape and a number of classes to an `nn.Module`."""

from optbench.models.autoencoder import vae
from optbench.models.baseline import bigram
from optbench.models.convolutional import cnn
from optbench.models.dense import deep_linear, linear, logreg, mlp
from optbench.models.layers import (
    ACTIVATIONS,
    Drawing,
    Dropout,
    draw_from,
    drawing_layers,
    takes_any_layout,
)
from optbench.models.line_reader import line_reader
from optbench.models.recurrent import lstm
from optbench.models.resnet import resnet
from optbench.models.tabular import tabular_mlp
from optbench.models.torchvision_models import torchvision_model
from optbench.models.transformer import ReluSquared, gpt
from optbench.models.video import cnn3d

__all__ = [
    "ACTIVATIONS",
    "Drawing",
    "Dropout",
    "ReluSquared",
    "bigram",
    "cnn",
    "cnn3d",
    "deep_linear",
    "draw_from",
    "drawing_layers",
    "gpt",
    "line_reader",
    "linear",
    "logreg",
    "lstm",
    "mlp",
    "resnet",
    "tabular_mlp",
    "takes_any_layout",
    "torchvision_model",
    "vae",
]

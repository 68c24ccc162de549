"""Thirty small models, each with a trait that a fast path or a checkpoint could miss.

Each is a function of `(input_shape, classes)` that takes images of one channel.
"""

import random
from collections import deque
from math import prod

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from optbench import models

WIDTH = 12


def _inputs(shape):
    return prod(shape)


class Body(nn.Module):
    """A flattened input, a hidden layer and a head; parts below change one thing."""

    def __init__(self, shape, classes, width=WIDTH):
        super().__init__()
        self.first, self.head = nn.Linear(_inputs(shape), width), nn.Linear(width, classes)

    def forward(self, x):
        return self.head(torch.tanh(self.first(x.flatten(1))))


def plain(shape, classes):
    return models.mlp(shape, classes, hidden=[WIDTH])


def deep_sigmoid(shape, classes):
    return models.mlp(shape, classes, hidden=[WIDTH, 9, 7], activation="sigmoid")


def linear(shape, classes):
    return models.logreg(shape, classes)


def own_dropout(shape, classes):
    return models.mlp(shape, classes, hidden=[WIDTH], dropout=0.3, input_dropout=0.1)


def batch_norm(shape, classes):
    return models.mlp(shape, classes, hidden=[WIDTH], batch_norm=True)


def convolutions(shape, classes):
    return models.cnn(shape, classes, channels=[3, 4], hidden=[8])


def torch_dropout(shape, classes):
    layers = [nn.Flatten(), nn.Linear(_inputs(shape), WIDTH), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, classes))


class Temperature(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return super().forward(x) * self.scale.exp()


def weight_norm(shape, classes):
    hidden = parametrizations.weight_norm(nn.Linear(_inputs(shape), WIDTH))
    return nn.Sequential(nn.Flatten(), hidden, nn.Tanh(), nn.Linear(WIDTH, classes))


def spectral_norm(shape, classes):
    hidden = parametrizations.spectral_norm(nn.Linear(_inputs(shape), WIDTH))
    return nn.Sequential(nn.Flatten(), hidden, nn.Tanh(), nn.Linear(WIDTH, classes))


class Later(Body):
    """The first layer is frozen after some steps, counted in Python."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.k = 0

    def forward(self, x):
        x = torch.tanh(self.first(x.flatten(1)))
        self.k += self.training
        return self.head(x.detach() if self.k > 60 else x)


class PythonDraw(Body):
    def forward(self, x):
        scale = random.random() + 0.5 if self.training else 1.0
        return super().forward(x) * scale


class TorchNoise(Body):
    def forward(self, x):
        noise = torch.randn_like(x) if self.training else 0.0
        return super().forward(x + 0.3 * noise)


class NumpyNoise(Body):
    def forward(self, x):
        if self.training:
            noise = np.random.randn(*x.shape).astype(np.float32)  # noqa: NPY002
            x = x + 0.3 * torch.from_numpy(noise).to(x.dtype)
        return super().forward(x)


class Remembering(Body):
    """Its scale depends on the last few batches, kept in a deque of numbers."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.last = deque(maxlen=3)

    def forward(self, x):
        if self.training:
            self.last.append(x.mean().item())
        return super().forward(x) * (1 + sum(self.last) / 10)


class RunningMean(Body):
    """A buffer that no state_dict has."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("mean", torch.zeros(_inputs(shape)), persistent=False)

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return super().forward(x - self.mean)


class Tied(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.first = nn.Linear(_inputs(shape), WIDTH)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.again = nn.Linear(WIDTH, WIDTH)
        self.again.weight = self.middle.weight
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x):
        x = torch.tanh(self.middle(torch.tanh(self.first(x.flatten(1)))))
        return self.head(torch.tanh(self.again(x)))


def _halve(module, inputs, output):
    return output / 2


def hooked(shape, classes):
    model = models.mlp(shape, classes, hidden=[WIDTH])
    model[1].register_forward_hook(_halve)
    return model


class Residual(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        x = F.gelu(self.first(x.flatten(1)))
        return self.head(x + F.dropout(self.inner(x), 0.2, self.training))


class View(nn.Module):
    """A convolution whose output is viewed, as many hand-written networks do."""

    def __init__(self, shape, classes):
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 3, 3, stride=2)
        n = self.conv(torch.zeros(1, *shape)).numel()
        self.head = nn.Linear(n, classes)

    def forward(self, x):
        x = self.conv(x).relu()
        return self.head(x.view(x.size(0), -1))


def conv_batch_norm(shape, classes):
    return models.cnn(shape, classes, channels=[3], hidden=[8], batch_norm=True)


class Rows(nn.Module):
    """A recurrent network that reads an image row by row."""

    def __init__(self, shape, classes):
        super().__init__()
        self.cell, self.head = nn.GRU(shape[-1], 8, batch_first=True), nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.cell(x.squeeze(1))[0][:, -1])


class Attention(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.embed = nn.Linear(shape[-1], 8)
        self.attend = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = self.embed(x.squeeze(1))
        return self.head(self.attend(x, x, x, need_weights=False)[0].mean(1))


class StochasticDepth(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        x = torch.tanh(self.first(x.flatten(1)))
        for block in self.blocks:
            if not self.training or random.random() < 0.7:
                x = x + torch.tanh(block(x))
        return self.head(x)


class HalfFrozen(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.first.weight.requires_grad_(False)


class Subclassed(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * 0.7


def subclassed(shape, classes):
    return Subclassed(nn.Flatten(), nn.Linear(_inputs(shape), WIDTH), nn.Linear(WIDTH, classes))


class Counted:
    """An object of one's own, beside the weights."""

    def __init__(self):
        self.calls, self.by_kind = 0, {"train": 0}


class WithObject(Body):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.seen = Counted()

    def forward(self, x):
        if self.training:
            self.seen.calls += 1
            self.seen.by_kind["train"] += x.shape[0] % 7
        warm = min(1.0, (self.seen.calls + 1) / 100)
        return super().forward(x) * (0.5 + 0.5 * warm)


class OwnGenerator(Body):
    """A part called generator, and a generator of torch's beside it."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.generator = nn.Linear(WIDTH, WIDTH)
        self.source = torch.Generator().manual_seed(5)

    def forward(self, x):
        x = torch.tanh(self.generator(torch.tanh(self.first(x.flatten(1)))))
        if self.training:
            x = x + 0.1 * torch.randn(x.shape, generator=self.source).to(x.dtype)
        return self.head(x)


def leaky_no_bias(shape, classes):
    layers = [nn.Flatten(), nn.Linear(_inputs(shape), WIDTH, bias=False), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, classes, bias=False))


def group_norm(shape, classes):
    layers = [nn.Conv2d(shape[0], 4, 5, stride=3), nn.GroupNorm(2, 4), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, classes))


# served by the compiled engines, whose results are those of float32 within its rounding
COMPILED = ("plain", "deep_sigmoid", "linear", "leaky_no_bias", "own_dropout", "batch_norm")
NAMES = (
    *COMPILED, "convolutions", "torch_dropout", "Temperature",
    "weight_norm", "spectral_norm", "Later", "PythonDraw", "TorchNoise", "NumpyNoise",
    "Remembering", "RunningMean", "Tied", "hooked", "Residual", "View",
    "conv_batch_norm", "Rows", "Attention", "StochasticDepth", "HalfFrozen", "subclassed",
    "WithObject", "OwnGenerator", "group_norm",
)  # fmt: skip

"""The parts of DeepOBS's test problems (Schneider et al. 2019) beyond mlp and cnn.

Written from the published definition by Schneider, Balles & Hennig (github.com/fsschneider/DeepOBS,
deepobs/tensorflow and deepobs/pytorch). conf/problem puts the parts together.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from optbench.common.errors import UserError
from optbench.models import Drawing, Dropout

CODE_DIMENSIONS = 8  # of the VAE's code


def quadratic(samples: int = 1000, dim: int = 100, noise: float = 0.6) -> tuple[Tensor, ...]:
    """Return normal samples with standard deviation `noise`, and meaningless labels.

    DeepOBS draws the training set with RandomState(42), the test set with RandomState(43) and,
    since 1.2, a validation set with RandomState(44).
    """
    train, test, val = (
        torch.from_numpy(
            np.random.RandomState(seed).normal(0.0, noise, (samples, dim)).astype(np.float32)
        )
        for seed in (42, 43, 44)
    )
    labels = torch.zeros(samples, dtype=torch.int64)
    return train, labels, test, labels, val, labels


def hessian(small: int = 90, large: int = 10) -> np.ndarray:
    """Return Q = R^T diag(eigenvalues) R in float64, all drawn with RandomState(42).

    `small` eigenvalues are uniform on (0, 1) and `large` ones on (30, 60), spread as those of
    networks are. The eigenvalues are drawn before the rotation.
    """
    rng = np.random.RandomState(42)
    eigenvalues = np.concatenate([rng.uniform(0, 1, small), rng.uniform(30, 60, large)])
    rotation = random_rotation(small + large, rng)
    return rotation.T @ (eigenvalues[:, None] * rotation)


def random_rotation(dim: int, rng: np.random.RandomState) -> np.ndarray:
    """Return a rotation from the Haar measure (Diaconis & Shahshahani 1987).

    The subgroup algorithm extends a rotation of d dimensions to d + 1, then applies the reflection
    that maps the first axis to a uniform direction.
    """
    angle = 2 * np.pi * rng.uniform()
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for d in range(3, dim + 1):
        direction = rng.normal(size=d)
        normal = -direction / np.linalg.norm(direction)
        normal[0] += 1
        normal /= np.linalg.norm(normal)
        larger = np.eye(d)
        larger[1:, 1:] = rotation
        rotation = larger - 2 * np.outer(normal, normal @ larger)
    return -rotation


class Quadratic(nn.Module):
    """Each example's loss 0.5 (theta - x)^T Q (theta - x), (n,); theta starts at ones."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 10:
            raise UserError(f"model=deepobs_quadratic needs 10 features or more, not {dim}")
        self.theta = nn.Parameter(torch.ones(dim))
        q = torch.from_numpy(hessian(dim - dim // 10, dim // 10)).float()
        self.register_buffer("hessian", q)
        self.hessian: Tensor

    def forward(self, x: Tensor) -> Tensor:
        away = self.theta - x
        return 0.5 * ((away @ self.hessian) * away).sum(dim=1)


def quadratic_model(input_shape: Sequence[int], classes: int) -> nn.Module:
    """Return the stochastic quadratic with a deep network's spectrum; it gives losses."""
    (dim,) = input_shape
    return Quadratic(dim)


def mean_output(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean output of a model that gives each example's loss."""
    return outputs.mean()


def net_3c3d(input_shape: Sequence[int], classes: int) -> nn.Module:
    """Return DeepOBS's network of three convolutions and three dense layers.

    The convolutions are 64 of 5x5 and 96 of 3x3 (valid) and 128 of 3x3 (same), each with ReLU and
    3x3 max-pooling of stride 2 (same). The dense layers have 512, 256 and `classes` units. DeepOBS
    has images of 3 x 32 x 32; any size from 18x18 works.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < 18:
        raise UserError(
            f"model=deepobs_3c3d needs images from 18x18 pixels, and this dataset's examples have "
            f"shape {tuple(input_shape)}"
        )
    depth, *size = input_shape
    layers: list[nn.Module] = []
    for channels, kernel, same in ((64, 5, False), (96, 3, False), (128, 3, True)):
        padding = kernel // 2 if same else 0
        layers += [nn.Conv2d(depth, channels, kernel, padding=padding), nn.ReLU()]
        size = [n if same else n - kernel + 1 for n in size]
        layers += _same_pool(size)
        depth, size = channels, [-(-n // 2) for n in size]
    layers.append(nn.Flatten())
    width = depth * size[0] * size[1]
    for units in (512, 256):
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, classes))


def _same_pool(size: Sequence[int]) -> list[nn.Module]:
    """Return 3x3 max-pooling of stride 2, padded as TensorFlow's "same".

    Even sides are padded at their end. Zeros never win the maximum after a ReLU.
    """
    height, width = ((1, 1) if n % 2 else (0, 1) for n in size)
    return [nn.ZeroPad2d((*width, *height)), nn.MaxPool2d(3, stride=2)]


class Noise(Drawing):
    """Standard normal noise of the input's shape, from the training loop's generator.

    Each evaluation draws the same noise, and none from the training's generator.
    """

    def forward(self, x: Tensor) -> Tensor:
        generator = self.generator
        if not self.training:
            generator = torch.Generator(x.device).manual_seed(0)
        return torch.empty_like(x).normal_(generator=generator)


class VAE(nn.Module):
    """A variational autoencoder (Kingma & Welling 2014) of grey 28 x 28 images.

    Gives (n, 784 + 8 + 8): the image, and the mean and log standard deviation of its code.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.3), Dropout(0.2),
            nn.Conv2d(64, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.3), Dropout(0.2),
            nn.ZeroPad2d((1, 2, 1, 2)),  # "same" for an even kernel
            nn.Conv2d(64, 64, 4), nn.LeakyReLU(0.3), Dropout(0.2),
            nn.Flatten(),
        )  # fmt: skip
        self.mean = nn.Linear(7 * 7 * 64, CODE_DIMENSIONS)
        self.log_variance = nn.Linear(7 * 7 * 64, CODE_DIMENSIONS)
        self.noise = Noise()
        crop = nn.ZeroPad2d((0, -1, 0, -1))
        self.decoder = nn.Sequential(
            nn.Linear(CODE_DIMENSIONS, 24), nn.LeakyReLU(0.3), nn.Linear(24, 49), nn.LeakyReLU(0.3),
            nn.Unflatten(1, (1, 7, 7)),
            nn.ConvTranspose2d(1, 64, 4, stride=2, padding=1), nn.ReLU(), Dropout(0.2),
            nn.ConvTranspose2d(64, 64, 4, padding=1), crop, nn.ReLU(), Dropout(0.2),
            nn.ConvTranspose2d(64, 64, 4, padding=1), crop, nn.ReLU(),
            nn.Flatten(), nn.Linear(14 * 14 * 64, 28 * 28), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encoder(x)
        mean, log_std = self.mean(hidden), 0.5 * self.log_variance(hidden)
        code = mean + self.noise(mean) * log_std.exp()
        return torch.cat([self.decoder(code), mean, log_std], dim=1)


def vae(input_shape: Sequence[int], classes: int) -> nn.Module:
    """Return DeepOBS's VAE for MNIST and Fashion-MNIST."""
    if tuple(input_shape) != (1, 28, 28):
        raise UserError(
            f"model=deepobs_vae is made for grey images of 28x28 pixels, and this dataset's "
            f"examples have shape {tuple(input_shape)}"
        )
    return VAE()


def vae_loss(outputs: Tensor, images: Tensor) -> Tensor:
    """Return the squared error over pixels plus the KL divergence of the code.

    sum (image - x)^2 - 0.5 sum (1 + 2 s - m^2 - exp(2 s)), averaged over the examples.
    """
    x = images.flatten(1)
    image, mean, log_std = outputs.split([x.shape[1], CODE_DIMENSIONS, CODE_DIMENSIONS], dim=1)
    divergence = -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).sum(dim=1)
    return ((image - x).square().sum(dim=1) + divergence).mean()

"""A variational autoencoder of vectors or images with values in [0, 1]."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from optbench.common.errors import check_choice
from optbench.models.layers import ACTIVATIONS, Drawing, count_of


class CodeNoise(Drawing):
    """Standard normal noise of a tensor's shape, from the training loop's generator.

    Each evaluation draws the same noise, and takes none from the training's generator.
    """

    takes_any_layout = True

    def forward(self, x: Tensor) -> Tensor:
        generator = self.generator
        if not self.training:
            generator = torch.Generator(x.device).manual_seed(0)
        return torch.empty_like(x).normal_(generator=generator)


class VAE(nn.Module):
    """A variational autoencoder with one hidden layer on each side.

    Kingma & Welling 2014. The outputs are (n, inputs + 2 latent): logits of the inputs, and the
    mean and log variance of the code.
    """

    def __init__(self, inputs: int, hidden: int, latent: int, activation: str) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, hidden), ACTIVATIONS[activation]()
        )
        self.code = nn.Linear(hidden, 2 * latent)
        self.noise = CodeNoise()
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, inputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.code(self.encoder(x)).chunk(2, dim=1)
        code = mean + self.noise(mean) * (0.5 * log_variance).exp()
        return torch.cat([self.decoder(code), mean, log_variance], dim=1)


def vae(
    input_shape: Sequence[int],
    classes: int,
    *,
    hidden: int = 500,
    latent: int = 50,
    activation: str = "softplus",
) -> nn.Module:
    """Return a VAE, `(n, *input_shape)` to `(n, inputs + 2 latent)`; for loss=vae.

    The defaults are those of Kingma & Ba 2015, section 6.4: 500 softplus units on each side, and a
    code of 50 dimensions.
    """
    check_choice("model.activation", activation, ACTIVATIONS)
    sizes = (count_of("model.hidden", hidden), count_of("model.latent", latent))
    return VAE(math.prod(input_shape), *sizes, activation)

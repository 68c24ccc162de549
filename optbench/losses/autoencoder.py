"""The loss of variational autoencoders."""

import torch.nn.functional as F
from torch import Tensor

from optbench.common.errors import UserError


def vae(outputs: Tensor, inputs: Tensor) -> Tensor:
    """Return the negative evidence lower bound in nats, averaged over the examples.

    outputs: (n, values + 2 latent), logits of the inputs, mean m and log variance v of the code.
    inputs: (n, ...), each of `values` numbers in [0, 1]. The bound (Kingma & Welling 2014, appendix
    B) is -sum log p(x | code) - 0.5 sum (1 + v - m^2 - exp(v)), with one drawn code per example.
    Raises `UserError` if outputs and inputs do not fit.
    """
    x = inputs.flatten(1)
    rest = outputs.shape[1] - x.shape[1]
    if not x.is_floating_point() or rest < 2 or rest % 2:
        raise UserError(
            f"loss=vae needs the outputs of model=vae and data.targets=inputs; the model gives "
            f"{outputs.shape[1]} outputs for targets of {x.shape[1]} values"
        )
    logits, mean, log_variance = outputs.split([x.shape[1], rest // 2, rest // 2], dim=1)
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1)
    fit = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=1)
    return (fit + divergence).mean()

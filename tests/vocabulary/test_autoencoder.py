"""The variational autoencoder of Kingma & Ba 2015, its loss, and its noise."""

from functools import partial

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

import optbench
from optbench import datasets, initializers, losses, models, prepare
from optbench.common.errors import UserError


def test_loss_is_the_negative_evidence_lower_bound():
    generator = torch.Generator().manual_seed(1)
    logits, mean, log_variance = (torch.randn(5, n, generator=generator) for n in (12, 3, 3))
    x = torch.rand(5, 3, 4, generator=generator).round()
    found = losses.vae(torch.cat([logits, mean, log_variance], dim=1), x)
    code = Normal(mean, (0.5 * log_variance).exp())
    divergence = kl_divergence(code, Normal(torch.zeros(3), torch.ones(3))).sum(dim=1)
    fit = -Bernoulli(logits=logits).log_prob(x.flatten(1)).sum(dim=1)
    assert found.item() == pytest.approx((fit + divergence).mean().item(), rel=1e-5)


@pytest.mark.parametrize("outputs", [12, 13, 15])
def test_loss_refuses_outputs_without_a_code(outputs):
    with pytest.raises(UserError, match="targets=inputs"):
        losses.vae(torch.zeros(2, outputs), torch.zeros(2, 12))


def test_model_has_published_sizes_and_draws_while_it_trains():
    model = models.vae((1, 28, 28), 0)
    sizes = [tuple(p.shape) for p in model.parameters() if p.ndim == 2]
    assert sizes == [(500, 784), (100, 500), (500, 50), (784, 500)]
    x = torch.rand(3, 1, 28, 28)
    assert model(x).shape == (3, 784 + 100)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"latent": 1.5}, {"activation": "none"}])
def test_model_refuses_wrong_settings(settings):
    with pytest.raises(UserError, match="model"):
        models.vae((4,), 0, **settings)


def test_training_lowers_the_bound_and_repeats():
    data = prepare(datasets.mnist_5k(), preprocessing="scale", targets="inputs", subset=300)
    model = partial(models.vae, hidden=30, latent=4)
    problem = optbench.Problem(data, model, losses.vae, initializers.initialize, epochs=4)
    adam = partial(torch.optim.Adam, lr=3e-3)
    runs = [[u.epoch for u in optbench.train(problem, adam) if u.epoch] for _ in range(2)]
    first, second = ([row["train_loss"] for row in rows] for rows in runs)
    assert first == second
    assert first[-1] < 0.7 * first[0]

"""Losses against their formulas in float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optbench import losses
from optbench.errors import UserError


def case(seed: int, n: int = 5, classes: int = 4):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, classes)) * 3, rng.integers(classes, size=n)
    return logits, labels, np.eye(classes)[labels]


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def value(loss, logits, labels, **kwargs):
    return loss(torch.tensor(logits), torch.tensor(labels), **kwargs).item()


@given(seed=st.integers(0, 2**32 - 1), smoothing=st.sampled_from([0.0, 0.1, 0.5]))
def test_each_loss_equals_its_formula(seed, smoothing):
    z, labels, one_hot = case(seed)
    smooth = one_hot * (1 - smoothing) + smoothing / z.shape[1]
    entropy = -(smooth * np.log(softmax(z))).sum(1).mean()
    assert value(losses.cross_entropy, z, labels, label_smoothing=smoothing) == pytest.approx(
        entropy
    )
    assert value(losses.nll, z, labels) == pytest.approx(
        value(losses.cross_entropy, z, labels), rel=1e-12
    )
    for output, function in [("softmax", softmax), ("sigmoid", sigmoid), ("linear", lambda z: z)]:
        expected = ((function(z) - one_hot) ** 2).mean()
        assert value(losses.mse, z, labels, output=output) == pytest.approx(expected)
    p = sigmoid(z)
    bce = -(one_hot * np.log(p) + (1 - one_hot) * np.log(1 - p)).mean()
    assert value(losses.bce, z, labels) == pytest.approx(bce, rel=1e-6)


def test_mse_through_a_saturated_sigmoid_has_a_vanishing_gradient_and_bce_has_not():
    labels = torch.tensor([0])
    sizes = {}
    for name in ("mse", "bce"):
        z = torch.tensor([[-12.0, -12.0]], requires_grad=True)  # badly wrong, and sure of it
        kwargs = {"output": "sigmoid"} if name == "mse" else {}
        getattr(losses, name)(z, labels, **kwargs).backward()
        sizes[name] = z.grad.abs().max().item()
    assert sizes["mse"] < 1e-4 < 0.4 < sizes["bce"]


def test_bad_arguments_are_named():
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(UserError, match=r"loss\.output"):
        losses.mse(z, y, output="tanh")
    with pytest.raises(UserError, match=r"loss\.label_smoothing"):
        losses.cross_entropy(z, y, label_smoothing=1.5)

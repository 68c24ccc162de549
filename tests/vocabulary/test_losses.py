"""Losses against their formulas in float64 numpy."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from optbench import losses
from optbench.common.errors import UserError
from optbench.config import build
from optbench.datasets.prepare import prepare
from optbench.problem import build_model
from optbench.training.evaluation import EVAL_BATCH_DENSE, score


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


WEIGHTS = [1.0, 2.0, 5.0]


def mean_of_everything(logits, labels):
    return F.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("target", "arguments", "expected"),
    [
        ("torch.nn.CrossEntropyLoss", {}, {}),
        ("torch.nn.CrossEntropyLoss", {"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
        ("torch.nn.CrossEntropyLoss", {"weight": WEIGHTS}, {"weight": torch.tensor(WEIGHTS)}),
        (
            "torch.nn.functional.cross_entropy",
            {"weight": WEIGHTS},
            {"weight": torch.tensor(WEIGHTS)},
        ),
    ],
)
def test_losses_of_torch_are_called_as_torch_calls_them(make_problem, target, arguments, expected):
    node = {"_target_": target, "_partial_": True, "name": "own", **arguments}
    loss = losses.as_function(build.build("loss", node))
    problem = make_problem(loss=loss, batch_size=48, epochs=1, n=6000)
    data, model = problem.dataset, build_model(problem, 0)
    logits = model(data.train_x)
    right = F.cross_entropy(logits, data.train_y, **expected)
    torch.testing.assert_close(loss(logits, data.train_y), right)
    # an evaluation is one of all examples, however many are computed together
    found = score(problem, model, data.train_x, data.train_y)["loss"]
    assert found == pytest.approx(right.item(), rel=1e-6)
    assert len(data.train_y) > EVAL_BATCH_DENSE


def test_losses_of_ones_own_are_given_as_they_are():
    assert losses.as_function(mean_of_everything) is mean_of_everything
    own = partial(losses.cross_entropy, label_smoothing=0.1)
    assert losses.as_function(own) is own


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, labels):
        return F.cross_entropy(logits, labels) * self.scale


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (partial(F.cross_entropy, reduction="sum"), "no average over the examples"),
        (partial(F.cross_entropy, reduction="none"), r"not a tensor of shape \(2,\)"),
        (partial(nn.CrossEntropyLoss, reduction="sum"), "no average over the examples"),
        (lambda o, t: F.cross_entropy(o, t).item(), "not a float"),
        (lambda o, t: F.cross_entropy(o, t) * 1j, "not a number of torch.complex64"),
        (lambda o, t: (o.argmax(1) == t).sum(), "not a number of torch.int64"),
        (lambda o, t: F.mse_loss(o, t.float()), "target size"),
        (lambda o, t: (F.cross_entropy(o, t), o), "not a tuple"),
        (lambda o, t: None, "not None"),
        (lambda o: 1, "positional argument"),
        (lambda o, t: {}["gone"], "KeyError: 'gone'"),
        (Scaled, r"parameters \(scale\)"),
        (nn.Flatten, "does not fit"),
    ],
)
def test_losses_that_are_no_mean_are_refused_in_words(make_problem, loss, named):
    with pytest.raises(UserError, match=named):
        build_model(make_problem(loss=losses.as_function(loss)), 0)


def test_targets_are_not_broadcast_where_there_are_two_classes(make_problem):
    """(2, 2) and (2,) would be, in a trial on two examples."""
    x, y = torch.rand(40, 5), torch.arange(40) % 2
    problem = replace(make_problem(), dataset=prepare((x, y, x, y)))
    with pytest.raises(UserError, match="target size"):
        build_model(replace(problem, loss=lambda o, t: F.mse_loss(o, t.float())), 0)


def test_losses_that_draw_or_are_not_finite_are_left_alone(make_problem):
    for loss in (
        lambda o, t: F.cross_entropy(o + torch.randn_like(o), t),
        lambda o, t: F.cross_entropy(o, t) * float("nan"),
    ):
        build_model(make_problem(loss=loss), 0)


@pytest.mark.parametrize("loss", [losses.mse, losses.bce])
def test_losses_to_one_hot_targets_take_the_classes_of_tokens_last(loss):
    """As many tokens as classes: taking the wrong axis would raise no error."""
    logits, labels = torch.randn(2, 3, 3, dtype=torch.float64), torch.randint(3, (2, 3))
    assert loss(logits, labels).item() == pytest.approx(
        loss(logits.flatten(0, 1), labels.flatten()).item()
    )

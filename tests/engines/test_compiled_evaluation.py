"""Compiled evaluations give the numbers of torch's within float32's rounding."""

from copy import deepcopy
from functools import partial
from itertools import pairwise
from math import isfinite

import pytest
import torch
from torch import nn

from optbench import losses, models
from optbench.engines.compiled_mlp import mlp
from optbench.training import evaluation
from optbench.training.loop import Training

ADAM = partial(torch.optim.Adam, lr=0.01)
# a problem that is large enough for tiles, where the CPU has them
LARGE = {"model": partial(models.mlp, hidden=[300, 230]), "batch_size": 70}
pytestmark = pytest.mark.skipif(not mlp.available(), reason="no C++ compiler")


def chain(widths, activation=nn.Tanh, bias=True) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    modules: list[nn.Module] = []
    for a, b in pairwise(widths):
        modules += [nn.Linear(a, b, bias=bias), activation()]
    with torch.no_grad():
        for module in modules[::2]:
            for p in module.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * widths[0] ** -0.5)
    return nn.Sequential(*modules[:-1])


def measured(model, x, y, loss=losses.cross_entropy, threads=1) -> torch.Tensor:
    """By tiles; skips the test where there are none."""
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = mlp.DenseSums(loss, model)(x, y)
    finally:
        torch.set_num_threads(usual)
    if found is None:
        pytest.skip("this CPU has no tiles")
    return found


def check_sums(found, plain, exact, y, loss) -> None:
    """Hold the sums to float64's logits, as near as plain float32's are (see `exact_runs`)."""
    right, usual = (loss(logits, y).item() * len(y) for logits in (exact, plain))
    assert abs(found[0] - right) <= 2 * abs(usual - right) + 1e-6 * right
    first, second = exact.topk(2, dim=1).values.unbind(dim=1)
    alike = (first - second < 1e-5 * exact.abs().max()).sum()  # a rounding decides
    assert abs(found[1] - (exact.argmax(dim=1) == y).sum()) <= alike
    assert found[2] == len(y)


@pytest.mark.parametrize("count", [64, 79, 511, 512, 513, 1100])
@pytest.mark.parametrize(
    ("widths", "activation", "bias", "smoothing"),
    [
        ((784, 300, 200, 10), nn.ReLU, True, 0.0),
        ((1500, 70, 10), nn.ELU, False, 0.1),
        ((70, 1000, 130), nn.Sigmoid, True, 0.0),
        ((700, 120), nn.Identity, True, 0.2),
    ],
)
def test_a_model_is_measured_as_by_torch(widths, activation, bias, smoothing, count):
    generator = torch.Generator().manual_seed(count)
    model = chain(widths, activation, bias)
    x = torch.randn(count, widths[0], generator=generator)
    y = torch.randint(widths[-1], (count,), generator=generator)
    loss = partial(losses.cross_entropy, label_smoothing=smoothing)
    exact = deepcopy(model).double()(x.double())
    found = measured(model, x, y, loss)
    check_sums(found, model(x).detach(), exact.detach(), y, loss)
    for threads in (2, 3):
        assert torch.equal(measured(model, x, y, loss, threads), found)


def test_the_first_largest_logit_counts():
    model = nn.Sequential(nn.Linear(700, 100))
    x, labels = torch.zeros(200, 700), torch.arange(200) % 100
    for places, winner in (((), 0), ((7, 30), 7)):
        with torch.no_grad():
            model[0].weight.zero_()
            model[0].bias.zero_()
            model[0].bias[list(places)] = 1.0
        assert measured(model, x, labels)[1] == 2
        assert measured(model, x, torch.full((200,), winner))[1] == 200


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_evaluation_that_is_not_finite_is_torchs(make_problem, value):
    problem = make_problem(**LARGE, n=200)
    training = Training(problem, ADAM)
    x, y = problem.dataset.train_x, problem.dataset.train_y
    measured(training.model, x, y)
    with torch.no_grad():
        next(iter(training.model.parameters()))[3, 1] = value
    assert training._sums(x, y) is None
    found = evaluation.score(problem, training.model, x, y, training._sums)
    assert not isfinite(found[0])
    assert str(found) == str(evaluation.score(problem, training.model, x, y))


def test_an_evaluation_of_something_else_is_left_to_torch():
    model = chain((700, 120, 4))
    x, y = torch.randn(200, 700), torch.arange(200) % 4
    measured(model, x, y)
    sums = mlp.DenseSums(losses.cross_entropy, model)
    for other in (
        (x[:, :600], y),
        (x.double(), y),
        (x.T.contiguous().T, y),
        (x, y + 1),
        (x, y[:9]),
    ):
        assert sums(*other) is None
    assert sums(x[:20], y[:20]) is None  # too few
    assert mlp.DenseSums(losses.cross_entropy, chain((70, 20, 4)))(x[:, :70].clone(), y) is None


@pytest.mark.parametrize("changes", [{}, {"drop_last": True}])
def test_epochs_are_those_of_plain_evaluations(make_problem, changes):
    problem = make_problem(**LARGE, n=400, epochs=3, **changes)
    rows = []
    for compiled_ones in (True, False):
        training = Training(problem, ADAM)
        assert training.compiled
        if not compiled_ones:
            training._sums = None
        rows.append([u.epoch for u in training.updates() if u.epoch])
    keys = [f"{part}_{what}" for part in ("train", "val", "test") for what in ("loss", "accuracy")]
    for own, usual in zip(*rows, strict=True):
        assert [own[k] for k in keys] == pytest.approx([usual[k] for k in keys], rel=1e-5)

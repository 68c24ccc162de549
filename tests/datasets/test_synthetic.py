"""Synthetic datasets: what they promise, and the known least loss of a deep linear network."""

from functools import partial

import pytest
import torch
from torch.optim import LBFGS

from optbench import losses
from optbench.common.errors import UserError
from optbench.datasets import associative_recall, linear_map, linear_optimum, modular_addition
from optbench.datasets.prepare import prepare
from optbench.initializers import initialize
from optbench.models import deep_linear, gpt, lstm
from optbench.problem import Problem, build_model
from optbench.tasks import IGNORED, Classes, Tokens
from optbench.training.evaluation import score
from optbench.training.loop import Training


def test_modular_addition_is_the_whole_table_in_two_parts():
    raw = modular_addition(7, train_size=0.4)
    x, y = torch.cat([raw.train_x, raw.test_x]), torch.cat([raw.train_y, raw.test_y])
    assert len(raw.train_y) == 20
    assert {tuple(pair) for pair in x[:, :2].tolist()} == {
        (a, b) for a in range(7) for b in range(7)
    }
    assert torch.equal(y, (x[:, 0] + x[:, 1]) % 7)
    assert (x[:, 2] == 7).all()
    data = prepare(raw, preprocessing="integers")
    assert data.task == Classes(7)
    assert data.vocabulary == 8


def test_associative_recall_asks_for_the_value_behind_each_key():
    raw = associative_recall(pairs=5, keys=9, values=6, train=40, test=10)
    assert raw.train_x.shape == raw.train_y.shape == (40, 15)
    for x, y in zip(raw.train_x.tolist(), raw.train_y.tolist(), strict=True):
        known = dict(zip(x[0:10:2], x[1:10:2], strict=True))
        assert len(known) == 5
        assert max(known) < 9 <= min(known.values())
        assert sorted(x[10:]) == sorted(known)
        assert y[:10] == [IGNORED] * 10
        assert y[10:] == [known[key] - 9 for key in x[10:]]
    data = prepare(raw, preprocessing="integers")
    assert data.task == Tokens(6)
    assert data.vocabulary == 15


@pytest.mark.parametrize("make", [modular_addition, associative_recall, linear_map])
def test_the_seed_alone_decides_what_is_drawn(make):
    torch.manual_seed(0)
    first = make(seed=3)
    torch.manual_seed(1)
    assert all(map(torch.equal, first, make(seed=3)))
    assert not torch.equal(first.train_x, make(seed=4).train_x)


def test_a_linear_map_has_the_promised_singular_values():
    raw = linear_map(features=12, outputs=5, condition=100.0, train=64, test=8)
    found = torch.linalg.svdvals(torch.linalg.lstsq(raw.train_x.double(), raw.train_y.double())[0])
    expected = 100.0 ** -torch.linspace(0, 1, 5).double()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert linear_optimum(raw.train_x, raw.train_y) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("width", [6, 3])
def test_a_deep_linear_network_ends_at_the_known_least_loss(width):
    raw = linear_map(features=6, outputs=6, noise=0.3, train=50, test=10, condition=3.0)
    data = prepare(raw, preprocessing="none", val_size=0)
    problem = Problem(data, partial(deep_linear, hidden=[8, width]), losses.mse, initialize)
    model = build_model(problem, 0).double()
    x, y = data.train_x.double(), data.train_y.double()
    ends = {"max_iter": 1500, "tolerance_change": 1e-14, "tolerance_grad": 1e-10}
    optimizer = LBFGS(model.parameters(), history_size=20, line_search_fn="strong_wolfe", **ends)

    def closure():
        optimizer.zero_grad()
        loss = losses.mse(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    least = linear_optimum(x, y, width)
    assert least > 0.01
    assert losses.mse(model(x), y).item() == pytest.approx(least, rel=1e-4)
    assert linear_optimum(x, y) <= least * (1 + 1e-12)
    assert score(problem, model.float(), data.train_x, data.train_y)["loss"] == pytest.approx(
        least, rel=1e-3
    )


@pytest.mark.parametrize(
    ("make", "factory"),
    [
        (partial(modular_addition, 5), gpt),
        (partial(modular_addition, 5), lstm),
        (partial(associative_recall, train=48, test=8), gpt),
        (partial(associative_recall, train=48, test=8), partial(lstm, bidirectional=True)),
    ],
)
def test_models_of_tokens_train_on_them(make, factory):
    small = partial(factory, width=16, heads=1) if factory is gpt else partial(factory, hidden=8)
    data = prepare(make(), preprocessing="integers", val_size=0)
    problem = Problem(data, small, losses.cross_entropy, initialize, batch_size=8, epochs=2)
    last = list(Training(problem, partial(torch.optim.Adam, lr=0.01)).updates())[-1]
    assert last.status == "completed"
    assert 0 <= last.epoch["train_accuracy"] <= 1


@pytest.mark.slow
def test_modular_addition_is_memorised_in_seconds():
    data = prepare(modular_addition(31), preprocessing="integers", val_size=0)
    small = partial(gpt, layers=1, width=128, heads=4)
    problem = Problem(data, small, losses.cross_entropy, initialize, batch_size=64, epochs=60)
    last = list(Training(problem, partial(torch.optim.Adam, lr=0.001)).updates())[-1]
    assert last.epoch["train_accuracy"] > 0.99


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (partial(modular_addition, 1), r"dataset\.modulus"),
        (partial(modular_addition, train_size=1.0), r"dataset\.train_size"),
        (partial(modular_addition, seed=-1), r"dataset\.seed"),
        (partial(associative_recall, pairs=9, keys=8), r"dataset\.keys must be .* at least 9"),
        (partial(associative_recall, pairs=0), r"dataset\.pairs"),
        (partial(linear_map, condition=0.5), r"dataset\.condition"),
        (partial(linear_map, features=2.0), r"dataset\.features"),
    ],
)
def test_wrong_settings_are_named(make, named):
    with pytest.raises(UserError, match=named):
        make()

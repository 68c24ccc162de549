"""The statistics of layers against formulas written out, and that looking changes nothing."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optbench import initializers, losses, models
from optbench.datasets.prepare import prepare
from optbench.formats.run import COLUMNS
from optbench.problem import Problem, build_model, stream
from optbench.streams import Stream
from optbench.training.layer_stats import (
    gradient_noise,
    saturated_fraction,
    step_with_layer_stats,
)
from optbench.training.loop import Training
from optbench.training.stepping import Stepper

SGD = partial(torch.optim.SGD, lr=0.1)


def rows_of(problem, optimizer=SGD, **arguments):
    updates = list(Training(problem, optimizer, layers=True, **arguments).updates())
    return [row for update in updates for row in update.layers]


def without_times(rows):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def test_the_first_step_has_the_numbers_of_the_formulas(make_problem):
    problem = make_problem(partial(models.mlp, hidden=[8, 6], activation="tanh"), epochs=1)
    rows = {row["layer"]: row for row in rows_of(problem, seed=3) if row["step"] == 1}
    assert [(row["kind"], row.get("depth")) for row in rows.values()] == [
        *[("linear", 1), ("tanh", 1), ("linear", 2), ("tanh", 2), ("linear", 3), ("all", None)]
    ]
    model, data = build_model(problem, 3), problem.dataset
    batch = torch.randperm(len(data.train_y), generator=stream(3, "order"))[:16]
    hidden = model[:3](data.train_x[batch])
    loss = F.cross_entropy(model[3:](hidden), data.train_y[batch])
    (to_hidden,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    loss.backward()
    row, weight = rows["2"], model[1].weight
    assert row["activation_mean"] == pytest.approx(hidden.mean().item(), rel=1e-5)
    assert row["activation_std"] == pytest.approx(hidden.std(correction=0).item(), rel=1e-5)
    for name, share in (("p15", 0.15), ("p50", 0.5), ("p85", 0.85)):
        expected = torch.quantile(hidden.detach(), share, interpolation="nearest").item()
        assert row[f"activation_{name}"] == pytest.approx(expected, rel=1e-5)
    assert row["dead_fraction"] == pytest.approx((hidden <= 0).all(0).float().mean().item())
    assert row["output_grad_std"] == pytest.approx(16 * to_hidden.std(correction=0).item(), 1e-4)
    row, bias = rows["1"], model[1].bias
    both = torch.cat([weight.grad.flatten(), bias.grad]).norm().item()
    assert row["grad_norm"] == pytest.approx(both, rel=1e-5)
    assert row["update_norm"] == pytest.approx(0.1 * both, rel=1e-4)
    size = torch.cat([weight.detach().flatten(), bias.detach()]).norm().item()
    assert row["weight_norm"] == pytest.approx(size, rel=1e-5)
    assert row["update_ratio"] == pytest.approx(0.1 * both / size, rel=1e-4)
    assert row["weight_rank"] == 5  # 8 units of 5 features
    total = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert rows["all"]["grad_norm"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("optimizer", [SGD, torch.optim.Adam, torch.optim.LBFGS])
def test_watching_changes_nothing(make_problem, optimizer):
    model = partial(models.mlp, hidden=[8], dropout=0.5, batch_norm=True)
    problem = make_problem(model, epochs=2)
    plain, watched = (
        list(Training(problem, optimizer, log_every=1, layers=layers, layers_every=2).updates())
        for layers in (False, True)
    )
    for a, b in zip(plain, watched, strict=True):
        assert without_times(a.steps) == without_times(b.steps)
        assert without_times([a.epoch]) == without_times([b.epoch])


def test_steps_are_watched_at_the_first_and_at_an_interval(make_problem):
    problem = make_problem(epochs=2)  # three steps an epoch
    assert sorted({row["step"] for row in rows_of(problem)}) == [1, 3, 6]
    assert sorted({row["step"] for row in rows_of(problem, layers_every=2)}) == [1, 2, 4, 6]
    assert set(rows_of(problem)[0]) <= set(COLUMNS["layers"])
    assert not [u for u in Training(problem, SGD).updates() if u.layers]


def test_equal_weights_have_rank_one(make_problem):
    constant = partial(
        initializers.initialize, weight=partial(nn.init.constant_, val=0.1), bias=0.0
    )
    rows = rows_of(make_problem(partial(models.mlp, hidden=[8]), initializer=constant))
    ranks = [row["weight_rank"] for row in rows if row["layer"] == "1"]
    assert ranks == [1] * len(ranks)


def test_convolutions_count_dead_channels_over_all_pixels():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Flatten())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
    x = torch.rand(4, 1, 3, 3) + 0.1

    def batch_loss(x, y):
        return model(x).square().mean()

    stepper = Stepper(SGD(model.parameters()), model, batch_loss, Stream(0, "optimizer"))
    rows, loss = step_with_layer_stats(model, stepper, batch_loss, x, x)
    assert loss == pytest.approx(x.square().mean().item() / 2)  # of x and 0, the two channels
    assert [row["dead_fraction"] for row in rows[:2]] == [0.5, 0.5]


def test_the_noise_scale_is_that_of_a_known_gradient():
    """Example i's gradient is theta - x_i: covariance 4 in each of d dimensions, mean theta."""
    model = nn.Linear(10, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    x = 2 * torch.randn(80000, 10, generator=torch.Generator().manual_seed(0))

    def batch_loss(x, y):
        return 0.5 * (model.weight - x).square().sum(dim=1).mean()

    found = gradient_noise(model, batch_loss, x, x)
    assert found.scale == pytest.approx(4 * 10 / 10, rel=0.5)
    assert gradient_noise(model, batch_loss, x[:8], x[:8]) == (None, None)
    # the variance of a batch's gradient falls with its size; of many batches it is the exact one
    for size in (16, 64):
        batches = x[: 200 * size].split(size)
        mean = sum(gradient_noise(model, batch_loss, b, b).variance for b in batches) / 200
        assert mean == pytest.approx(4 * 10 / size, rel=0.1)


def test_saturated_units_lie_in_the_flat_ends():
    sigmoid, tanh = nn.Sigmoid(), nn.Tanh()
    inputs = torch.tensor([[-4.0, -2.9, 0.0, 2.9, 4.0], [-3.0, -1.0, 1.0, 3.0, 30.0]])
    assert saturated_fraction(sigmoid, sigmoid(inputs)) == pytest.approx(5 / 10)
    flat = tanh(torch.tensor([-2.0, -1.8, 0.5, 1.8, 2.0]))  # tanh(1.8319) = 0.95
    assert saturated_fraction(tanh, flat) == pytest.approx(2 / 5)
    assert saturated_fraction(nn.ReLU(), torch.ones(3)) is None
    assert saturated_fraction(nn.Linear(2, 2), torch.ones(3)) is None


def test_large_weights_saturate_and_small_ones_do_not(make_problem):
    def share(scale, activation):
        weight = partial(nn.init.normal_, std=scale)
        problem = make_problem(
            partial(models.mlp, hidden=[8], activation=activation),
            initializer=partial(initializers.initialize, weight=weight, bias=0.0),
        )
        (row,) = [r for r in rows_of(problem) if r["kind"] == activation and r["step"] == 1]
        return row["saturated_fraction"]

    for activation in ("sigmoid", "tanh"):
        assert share(0.01, activation) == 0.0
        assert share(50.0, activation) > 0.9


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.hidden, self.relu, self.head = nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.relu(self.hidden(self.lstm(self.embedding(x))[0])))


def test_of_tokens_a_dead_unit_is_dead_at_all_places():
    x = torch.randint(7, (30, 9), generator=torch.Generator().manual_seed(0))
    data = prepare((x, x % 3, x[:8], x[:8] % 3), preprocessing="integers", val_size=0)

    def fill(model, generator):
        initializers.initialize(model, generator)
        model.hidden.bias.copy_(torch.tensor([-50.0, -50.0, 50.0, 50.0]))

    problem = Problem(data, lambda s, c: Tagger(), losses.cross_entropy, fill, batch_size=10)
    rows = {row["layer"]: row for row in rows_of(problem) if row["step"] == 1}
    assert [(row["kind"], row.get("depth")) for row in rows.values()] == [
        *[("embedding", 0), ("lstm", 1), ("linear", 2), ("relu", 2), ("linear", 3), ("all", None)]
    ]
    assert rows["relu"]["dead_fraction"] == 0.5
    for name in ("embedding", "lstm"):
        row = rows[name]
        assert row["activation_std"] > 0
        assert row["output_grad_std"] > 0
        assert row["update_norm"] > 0

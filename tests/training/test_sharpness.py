"""`diagnostics=sharpness`: the largest eigenvalue of the Hessian, and of the preconditioned one."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import optbench
from optbench import datasets, deepobs, initializers, losses, models, prepare
from optbench.training import sharpness
from optbench.training.loop import Training


@pytest.fixture(scope="module")
def quadratic():
    train = deepobs.quadratic(200, 20)
    data = prepare(train[:4], preprocessing="none", targets="inputs", val_size=0)
    return optbench.Problem(
        data, deepobs.quadratic_model, deepobs.mean_output, initializers.initialize, epochs=2
    )


def test_sharpness_of_quadratic_is_its_largest_eigenvalue(quadratic):
    (*_, last) = optbench.train(quadratic, partial(torch.optim.SGD, lr=1e-3), sharpness=True)
    expected = np.linalg.eigvalsh(deepobs.hessian(18, 2))[-1]
    assert last.epoch["sharpness"] == pytest.approx(expected, rel=1e-3)
    assert last.epoch["preconditioned_sharpness"] is None


@pytest.mark.parametrize("made", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_preconditioned_sharpness_is_that_of_dense_matrix(quadratic, made):
    training = Training(quadratic, partial(made, lr=1e-3), sharpness=True)
    (*_, last) = training.updates()
    (p,) = training.model.parameters()
    state, t = training.optimizer.state[p], training.step
    if made is torch.optim.RMSprop:
        diagonal = state["square_avg"].sqrt() + 1e-8
    else:
        diagonal = (1 - 0.9**t) * ((state["exp_avg_sq"] / (1 - 0.999**t)).sqrt() + 1e-8)
    root = diagonal.detach().double().rsqrt().numpy()
    expected = np.linalg.eigvalsh(root[:, None] * deepobs.hessian(18, 2) * root)[-1]
    assert last.epoch["preconditioned_sharpness"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "made",
    [partial(torch.optim.Adam, amsgrad=True), partial(torch.optim.RMSprop, centered=True)],
)
def test_sharpness_of_an_unknown_preconditioner_is_left_out(quadratic, made):
    (*_, last) = optbench.train(quadratic, partial(made, lr=1e-3), sharpness=True)
    assert last.epoch["sharpness"] > 0
    assert last.epoch["preconditioned_sharpness"] is None


class WithUnused(nn.Linear):
    def __init__(self, shape, classes):
        super().__init__(shape[0], classes)
        self.unused = nn.Parameter(torch.ones(3))


class WithoutUnused(WithUnused):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        del self.unused


def test_sharpness_of_a_model_with_an_unused_parameter(make_problem):
    found = []
    for model in (WithUnused, WithoutUnused):
        problem = make_problem(model, epochs=1)
        (*_, last) = optbench.train(problem, partial(torch.optim.SGD, lr=0.1), sharpness=True)
        found.append(last.epoch["sharpness"])
    assert found[0] == pytest.approx(found[1], rel=1e-3)  # its rows of the Hessian are zeros


def test_sharpness_changes_no_training():
    data = prepare(datasets.mnist_5k(), subset=300)
    model = partial(models.mlp, hidden=[20], dropout=0.5)
    problem = optbench.Problem(data, model, losses.cross_entropy, initializers.initialize, epochs=2)
    adam = partial(torch.optim.Adam, lr=1e-3)
    rows = {
        asked: [u.epoch for u in optbench.train(problem, adam, sharpness=asked) if u.epoch]
        for asked in (False, True)
    }
    for plain, watched in zip(rows[False], rows[True], strict=True):
        assert plain["train_loss"] == watched["train_loss"]
        assert watched["sharpness"] > 0
    plain = optbench.train(problem, adam, sharpness=True, engine="plain")
    (*_, last) = plain
    assert last.epoch["preconditioned_sharpness"] == pytest.approx(
        rows[True][-1]["preconditioned_sharpness"], rel=1e-2
    )


def test_sharpness_of_dense_hessian_by_chunks(monkeypatch):
    monkeypatch.setattr(sharpness, "CHUNK_EXAMPLES", 7)
    data = prepare(
        (torch.randn(30, 4), torch.randint(0, 3, (30,)), *[torch.randn(9, 4)], torch.arange(9) % 3)
    )
    problem = optbench.Problem(
        data, models.logreg, losses.cross_entropy, initializers.initialize, epochs=1,
        weight_penalty=0.1,
    )  # fmt: skip
    training = Training(problem, partial(torch.optim.SGD, lr=0.1))
    weights = dict(training.model.named_parameters())
    x, y = data.train_x, data.train_y

    def loss(flat: torch.Tensor) -> torch.Tensor:
        w, b = flat[:12].view(3, 4), flat[12:]
        return nn.functional.cross_entropy(x @ w.T + b, y) + 0.05 * w.square().sum()

    flat = torch.cat([p.detach().flatten() for p in weights.values()])
    dense = torch.autograd.functional.hessian(loss, flat)
    row = sharpness.sharpness(problem, training.model, training.optimizer, x, y)
    assert row["sharpness"] == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-3)


def test_sharpness_of_infinite_weights_is_no_number(quadratic):
    training = Training(quadratic, partial(torch.optim.SGD, lr=1e-3))
    with torch.no_grad():
        training.model.hessian.fill_(float("inf"))
    x, y = quadratic.dataset.train_x, quadratic.dataset.train_y
    row = sharpness.sharpness(quadratic, training.model, training.optimizer, x, y)
    assert row["sharpness"] is None

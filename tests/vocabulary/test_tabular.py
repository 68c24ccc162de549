"""The network for tables, and the least-squares line of linear models."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import nn
from torch.optim import SGD, Adam

from optbench import losses
from optbench.common.errors import UserError
from optbench.datasets.prepare import prepare
from optbench.datasets.tables.table import of_frames
from optbench.datasets.tables.treatment import Treatment
from optbench.initializers import initialize
from optbench.models import linear, mlp, tabular_mlp
from optbench.problem import Problem, build_model
from optbench.runner.reference import least_squares
from optbench.training.loop import Training

RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "size": RANDOM.normal(size=80),
        "city": RANDOM.choice(["a", "b", "c"], 80),
        "kind": RANDOM.choice(["x", "y"], 80),
        "price": RANDOM.normal(size=80) + 5,
    }
)


def table(nominal="embedding", **settings):
    return prepare(of_frames(FRAME, None, "price", Treatment(nominal=nominal)), **settings)


def problem(model, data=None, **settings):
    return Problem(
        table() if data is None else data, model, losses.mse, initialize,
        **{"batch_size": 16, "epochs": 2} | settings,
    )  # fmt: skip


def test_categories_become_vectors_beside_the_numbers():
    data = table()
    model = build_model(problem(partial(tabular_mlp, hidden=[7], embedding=5)), 0)
    lookup = model[1]
    assert [t.num_embeddings for t in lookup.tables] == [4, 3] == list(data.nominal)
    assert model[2].in_features == 1 + 2 * 5
    x = data.train_x[:9]
    seen = lookup(x)
    assert torch.equal(seen[:, :1], x[:, :1])
    for i, first in ((0, 1), (1, 6)):
        right = lookup.tables[i].weight[x[:, 1 + i].long()]
        assert torch.equal(seen[:, first : first + 5], right)
    unknown = x.clone()
    unknown[:, 1] = 0
    assert (lookup(unknown)[:, 1:6] == 0).all()


def test_an_embedding_of_identity_vectors_is_one_hot():
    model = build_model(problem(partial(tabular_mlp, hidden=[7], embedding=4, norm="none")), 0)
    for one in model[1].tables:
        one.weight.data = torch.eye(len(one.weight), 4)
    data, hot = table(), table("onehot")
    seen = model[1](data.test_x)
    assert torch.equal(seen[:, [0, 2, 3, 4, 6, 7]], hot.test_x)


@pytest.mark.parametrize("norm", ["batch", "layer", "none", None])
def test_norms_dropout_and_sizes(norm):
    model = tabular_mlp((6,), 2, (60, 200), hidden=[8, 8], norm=norm, dropout=0.2)
    kinds = [type(m).__name__ for m in model.modules()]
    assert kinds.count("Dropout") == 2
    assert kinds.count("BatchNorm1d") == 2 * (norm == "batch")
    assert kinds.count("LayerNorm") == 2 * (norm == "layer")
    assert [t.embedding_dim for t in model[1].tables] == [30, 50]
    assert model(torch.zeros(4, 6)).shape == (4, 2)
    assert type(tabular_mlp((6,), 2)[1]) is nn.Linear


def test_settings_and_other_models_are_refused_in_words():
    with pytest.raises(UserError, match=r"model\.norm must be one of batch, layer, none"):
        tabular_mlp((6,), 2, norm="group")
    with pytest.raises(UserError, match=r"model\.embedding must be a whole number"):
        tabular_mlp((6,), 2, (3,), embedding=0)
    with pytest.raises(UserError, match="has no parameter cardinalities: take model=tabular"):
        build_model(problem(partial(mlp, hidden=[4])), 0)


def test_a_run_with_embeddings_resumes_bit_for_bit():
    model = partial(tabular_mlp, hidden=[8], dropout=0.1)
    asked = (problem(model, epochs=4), partial(Adam, lr=0.01))
    whole = Training(*asked, seed=1)
    list(whole.updates())
    first = Training(*asked, seed=1)
    list(first.updates(stop=lambda: first.step >= 5))
    assert 0 < first.step < asked[0].total_steps
    rest = Training(*asked, seed=1)
    rest.load_state_dict(first.state_dict())
    list(rest.updates())
    for a, b in zip(rest.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("examples", [None, 20])
def test_the_line_is_the_loss_of_scikit_learns_least_squares(examples):
    data = table("onehot")  # its columns and the bias are collinear
    made = problem(linear, data)
    found = least_squares(made, build_model(made, 0), examples)
    x, y = data.train_x.double().numpy(), data.train_y.double().numpy()
    errors = (LinearRegression().fit(x, y).predict(x) - y)[:examples]
    assert found == pytest.approx((errors**2).mean(), rel=1e-9)


def test_training_ends_at_the_line_and_never_below():
    made = problem(linear, table("onehot"), batch_size="full", epochs=400)
    least = least_squares(made, build_model(made, 0), None)
    training = Training(made, partial(SGD, lr=0.2), seed=0, eval_every=100)
    found = [u.epoch["train_loss"] for u in training.updates() if u.epoch is not None]
    assert found[-1] == pytest.approx(least, rel=1e-4)
    assert min(found) > least * (1 - 1e-6)


class Scaled(nn.Linear):
    pass


@pytest.mark.parametrize(
    "changes",
    [
        {"model": partial(mlp, hidden=[3])},
        {"model": lambda s, c: Scaled(s[0], c)},
        {"loss": losses.mae},
        {"loss": losses.huber},
        {"weight_penalty": 0.1},
    ],
)
def test_other_problems_have_no_line(changes):
    settings = {"model": linear, "loss": losses.mse, "batch_size": 16} | changes
    made = Problem(table("onehot"), initializer=initialize, **settings)
    assert least_squares(made, build_model(made, 0), None) is None


def test_torchs_squared_error_and_a_layer_without_bias_have_the_line():
    data = table("onehot")
    for loss in (nn.functional.mse_loss, losses.ModuleLoss(nn.MSELoss())):
        made = Problem(data, lambda s, c: nn.Linear(s[0], c, bias=False), loss, initialize)
        x, y = data.train_x.double().numpy(), data.train_y.double().numpy()
        errors = LinearRegression(fit_intercept=False).fit(x, y).predict(x) - y
        found = least_squares(made, build_model(made, 0), None)
        assert found == pytest.approx((errors**2).mean(), rel=1e-9)

"""Data of a user's own: of pandas, NumPy, lists; served, or refused in words."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from optbench import losses
from optbench.common.errors import UserError
from optbench.datasets.prepare import prepare
from optbench.initializers import initialize
from optbench.problem import Problem, build_model

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.arange(40) % 2
PARTS = (X[:30], Y[:30], X[30:], Y[30:])


def parts(x, y=Y):
    return x[:30], y[:30], x[30:], y[30:]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: pd.DataFrame(p, index=range(5, 5 + len(p))) if p.ndim == 2 else pd.Series(p),
        lambda p: np.ma.masked_array(p, mask=False),
        lambda p: p.tolist(),
        lambda p: [torch.from_numpy(np.asarray(row)) for row in p],
        lambda p: p.astype(object),
        lambda p: np.flip(np.flip(p)),
        lambda p: torch.from_numpy(p).requires_grad_() if p.ndim == 2 else torch.from_numpy(p),
    ],
    ids=["pandas", "masked", "lists", "tensors", "objects", "strides", "grad"],
)
def test_arrays_of_other_makes_are_the_same_numbers(make):
    plain, other = prepare(PARTS), prepare(tuple(make(p) for p in PARTS))
    for name in ("train_x", "val_x", "test_x", "train_y", "test_y"):
        torch.testing.assert_close(getattr(other, name), getattr(plain, name))


def test_columns_of_several_kinds_are_numbers():
    x = pd.DataFrame({"a": X[:, 0], "b": np.arange(40), "c": Y == 1})
    data = prepare(parts(x), preprocessing="none", val_size=0)
    assert torch.equal(data.train_x[:, 2], torch.from_numpy(Y[:30]).float())


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.uint64, np.float16, np.bool_])
@pytest.mark.parametrize("preprocessing", ["scale", "standardize", "none"])
def test_images_of_other_widths_are_scaled_by_their_values(dtype, preprocessing):
    values = np.random.default_rng(1).integers(0, 60_000, (40, 1, 4, 4))
    if dtype == np.int16:
        values -= 30_000
    images = (values % 2 if dtype == np.bool_ else values).astype(dtype)
    data = prepare(parts(images), preprocessing=preprocessing, val_size=0)
    train = images[:30].astype(np.float64)
    shift, scale = 0.0, 1.0
    if preprocessing == "scale":
        shift, scale = train.min(), train.max() - train.min()
    if preprocessing == "standardize":
        shift, scale = train.mean(), train.std()
    np.testing.assert_allclose(data.train_x.numpy(), (train - shift) / scale, rtol=1e-5, atol=1e-6)


class Words(nn.Module):
    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(words, 4), nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.words(x).mean(1))


def of_words(input_shape, classes):
    return Words(2**24 + 8 if input_shape == (1,) else 50, classes)


def test_integers_stay_integers_where_asked():
    tokens = np.random.default_rng(2).integers(0, 50, (40, 6))
    data = prepare(parts(tokens), preprocessing="integers", val_size=0)
    assert data.train_x.dtype == data.test_x.dtype == torch.int64
    assert np.array_equal(data.train_x.numpy(), tokens[:30])

    def problem(preprocessing):
        ready = prepare(parts(tokens), preprocessing=preprocessing, val_size=0)
        return Problem(ready, of_words, losses.cross_entropy, initialize)

    build_model(problem("integers"), 0)
    with pytest.raises(UserError, match="preprocessing=integers"):
        build_model(problem("none"), 0)
    with pytest.raises(UserError, match="is for whole numbers"):
        prepare(PARTS, preprocessing="integers")
    with pytest.raises(UserError, match="float32 does not hold"):
        prepare(parts(tokens + 2**24), preprocessing="none")


class Examples(torch.utils.data.Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, i):
        return torch.from_numpy(X[i]), Y[i]


class Bunch(dict):
    """As scikit-learn's."""


class Sparse:
    shape = (30, 3)

    def toarray(self):
        return X[:30]


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (Bunch(data=X), "Bunch; it must be four"),
        ((X, Y, X), "tuple of 3; it must be four"),
        ((X, Y[:30]), r"examples of shape \(40, 3\) and labels of shape \(30,\)"),
        ((X[:, 0], Y), r"they must be \(n, features\)"),
        ((X[:30], X[30:], Y[:30], Y[30:]), "train_test_split"),
        ((Examples(), Y[:30], X, Y), "train_x is .*Examples, .*torch.stack"),
        ((torch.utils.data.Subset(Examples(), [0]), *PARTS[1:]), "train_x is torch's Subset"),
        ((Sparse(), *PARTS[1:]), "sparse matrix.*toarray"),
        ((torch.from_numpy(X[:30]).to_sparse(), *PARTS[1:]), "to_dense"),
        ((torch.empty(30, 3, device="meta"), *PARTS[1:]), "meta"),
        ((np.ma.masked_array(X[:30], mask=X[:30] > 0), *PARTS[1:]), "masked"),
        (parts(pd.DataFrame({"a": X[:, 0], "b": ["x"] * 40})), r"objects \(.*str"),
        (parts(pd.DataFrame({"a": pd.array([1, None] * 20, dtype="Int64")})), "NAType|NaN"),
        (parts(X, np.array(["cat", "dog"] * 20)), r"train_y holds objects \(str_\)"),
        (parts(X, pd.Series(["cat", "dog"] * 20)), r"train_y holds objects \(str\)"),
        (([[1.0, 2.0], [3.0]] * 15, *PARTS[1:]), "train_x"),
        ((3, *PARTS[1:]), "train_x is builtins's int"),
        ((None, *PARTS[1:]), "train_x is builtins's NoneType"),
        ((X[:30].astype("datetime64[s]"), *PARTS[1:]), "train_x holds datetime64"),
        (parts(X, Y.astype(np.uint64) << np.uint64(63)), "from 2"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_in_words(raw, named):
    with pytest.raises(UserError, match=named):
        prepare(raw)

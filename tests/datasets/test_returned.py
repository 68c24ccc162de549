"""What a dataset's function may return: pairs, bunches, torch datasets, frames."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_diabetes, load_iris
from torch.utils.data import Dataset, Subset, TensorDataset

from optbench import losses
from optbench.common.errors import UserError
from optbench.datasets.prepare import prepare
from optbench.datasets.preprocessing import shifted
from optbench.initializers import initialize
from optbench.models import logreg
from optbench.problem import Problem, build_model
from optbench.tasks import Binary, Classes, Values
from optbench.training.evaluation import score

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 3)).astype(np.float32)
Y = np.arange(50) % 3
PARTS = ("train_x", "train_y", "val_x", "val_y", "test_x", "test_y")


class Examples(Dataset):
    """Pairs as most torch datasets give them: a tensor and a plain number."""

    def __init__(self, x=X, y=Y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i]), int(self.y[i])


class Bunch(dict):
    """As scikit-learn's."""


def equal(a, b) -> bool:
    return all(torch.equal(getattr(a, part), getattr(b, part)) for part in PARTS)


@pytest.mark.parametrize(
    "raw",
    [
        (torch.from_numpy(X), torch.from_numpy(Y)),
        [X.tolist(), Y.tolist()],
        (X, pd.Series(Y)),
        (X, Y[:, None]),
        Bunch(data=X, target=Y),
        Examples(),
        TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
        Subset(Examples(), range(50)),
    ],
    ids=["tensors", "lists", "series", "column", "bunch", "dataset", "tensors2", "subset"],
)
def test_one_set_is_divided_by_the_split_seed(raw):
    data, plain = prepare(raw, split_seed=3), prepare((X, Y), split_seed=3)
    assert equal(data, plain)
    assert [len(data.train_y), len(data.val_y), len(data.test_y)] == [36, 4, 10]
    assert data.task == Classes(3)
    assert not equal(data, prepare(raw, split_seed=4))
    assert len(prepare(raw, test_size=20).test_y) == 20
    unscaled = prepare(raw, preprocessing="none", val_size=0)
    seen = torch.cat([unscaled.train_x, unscaled.test_x])
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, X.tolist()))


@pytest.mark.parametrize(
    "raw",
    [
        ((X[:30], Y[:30]), (X[30:], Y[30:])),
        (Bunch(data=X[:30], target=Y[:30]), Bunch(data=X[30:], target=Y[30:])),
        (Examples(X[:30], Y[:30]), Examples(X[30:], Y[30:])),
    ],
    ids=["pairs", "bunches", "datasets"],
)
def test_a_pair_is_training_and_test(raw):
    assert equal(prepare(raw), prepare((X[:30], Y[:30], X[30:], Y[30:])))


FRAME = pd.DataFrame(X, columns=list("abc")).assign(
    kind=[["red", "blue"][i % 2] for i in range(50)], target=Y
)


def test_a_frame_is_a_table_whose_target_is_named():
    data = prepare(FRAME)
    assert data.train_x.shape == (36, 5)
    assert data.task == Classes(3)
    assert isinstance(prepare(FRAME, target="a").task, Values)
    pair = prepare((FRAME[:30], FRAME[30:]), val_size=0)
    assert [len(pair.train_y), len(pair.test_y)] == [30, 20]
    assert pair.test_y.tolist() == Y[30:].tolist()
    x, y = FRAME.drop(columns="target"), FRAME["target"]
    assert equal(prepare((x, y)), data)
    assert equal(prepare((x, y.to_numpy())), data)
    assert equal(prepare((x, y.to_frame())), data)
    assert equal(prepare(Bunch(data=x, target=y)), data)
    assert equal(prepare(((x[:30], y[:30]), (x[30:], y[30:])), val_size=0), pair)


def test_bunches_of_scikit_learn_serve_as_they_are():
    for as_frame in (False, True):
        iris, diabetes = load_iris(as_frame=as_frame), load_diabetes(as_frame=as_frame)
        flowers = prepare(iris, preprocessing="standardize_features")
        assert flowers.task == Classes(3)
        assert flowers.train_x.shape == (108, 4)
        assert prepare(diabetes, preprocessing="standardize_features").task.classes == 1
    counts = iris.data.assign(petals=3)
    assert isinstance(prepare((counts, iris.target.astype(float))).task, Values)


def test_pictures_of_torchvision_have_their_channels_first():
    grey = [Image.fromarray(RANDOM.integers(0, 255, (8, 9), dtype=np.uint8)) for _ in range(10)]
    colour = [Image.fromarray(RANDOM.integers(0, 255, (8, 9, 3), dtype=np.uint8)) for _ in Y[:10]]
    for pictures, channels in ((grey, 1), (colour, 3)):
        data = prepare(Pictures(list(zip(pictures, Y[:10], strict=True))))
        assert data.input_shape == (channels, 8, 9)


class Pictures(Dataset):
    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        return self.pairs[i]


def test_channels_last_are_turned():
    images = RANDOM.integers(0, 255, (40, 5, 6, 3), dtype=np.uint8)
    turned = images.transpose(0, 3, 1, 2)
    labels = np.arange(40) % 2
    for parts in (
        lambda x: (x, labels),
        lambda x: (x[:30], labels[:30], x[30:], labels[30:]),
        lambda x: (x[:20], labels[:20], x[20:30], labels[20:30], x[30:], labels[30:]),
    ):
        data = prepare(parts(images), layout="channels_last")
        assert data.input_shape == (3, 5, 6)
        assert equal(data, prepare(parts(turned)))
    with pytest.raises(UserError, match=r"data.layout=channels_last is for images"):
        prepare((X, Y), layout="channels_last")


@pytest.mark.parametrize("preprocessing", ["none", "scale", "standardize", "standardize_features"])
@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_a_shift_is_in_deviations_of_the_training_part(preprocessing, shape):
    x = RANDOM.normal(3, 2, size=(60, *shape)).astype(np.float32)
    x[:, 0] = 1.0
    raw = (x[:40], np.arange(40) % 2, x[40:], np.arange(20) % 2)
    plain = prepare(raw, preprocessing=preprocessing, val_size=0)
    moved = prepare(raw, preprocessing=preprocessing, val_size=0, shift=-2)
    assert torch.equal(plain.train_x, moved.train_x)
    dims = (0, 2, 3) if len(shape) == 3 else (0,)
    std = plain.train_x.double().std(dim=dims, correction=0, keepdim=True)
    std[:, 0] = 0  # a constant one does not move
    right = plain.test_x.double() - 2 * std
    torch.testing.assert_close(moved.test_x.double(), right, atol=1e-5, rtol=1e-5)
    assert torch.equal(shifted(plain.test_x, plain.train_x, 0.0), plain.test_x)


def test_two_classes_by_one_output():
    raw = (X, np.arange(50) % 2)
    data, two = prepare(raw, targets="binary"), prepare(raw)
    assert data.task == Binary()
    assert data.classes == 1
    assert equal(data, two)
    problem = Problem(data, logreg, losses.bce, initialize, batch_size=8)
    model = build_model(problem, 0)
    logits = model(data.test_x)[:, 0]
    found = score(problem, model, data.test_x, data.test_y)
    y = data.test_y.float()
    right = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)
    assert found["loss"] == pytest.approx(right.item(), rel=1e-6)
    assert found["accuracy"] == pytest.approx(((logits > 0) == (y == 1)).float().mean().item())
    for loss in (losses.cross_entropy, losses.nll, losses.mse):
        with pytest.raises(UserError, match=r"the model has one output.*take loss=bce"):
            build_model(Problem(data, logreg, loss, initialize, batch_size=8), 0)
    with pytest.raises(UserError, match="binary is for two classes, and these targets are 3"):
        prepare((X, Y), targets="binary")
    with pytest.raises(UserError, match="these targets are others"):
        prepare((X, X[:, 0]), targets="binary")


@pytest.mark.parametrize(
    ("raw", "settings", "named"),
    [
        (FRAME.drop(columns="target"), {}, "target=COLUMN.; the columns are: a, b, c, kind"),
        (FRAME, {"target": "aa"}, "data.target names 'aa'"),
        ((X, Y), {"target": "a"}, "data.target=a names a column of a table"),
        ((X[:9], Y[:9], X, Y), {"test_size": 0.5}, "data.test_size=0.5 divides data without a"),
        ((FRAME, FRAME[["a", "target"]]), {}, "DataFrame names 'b'"),
        ((FRAME.drop(columns="target"), Y[:9]), {}, r"50 examples and targets of shape \(9,\)"),
        ((FRAME, FRAME[["a"]]), {}, "is that of a column as well"),
        (Pictures([]), {}, "it has no examples"),
        (Pictures([(1, 2, 3)]), {}, "must be pairs of an input and a label"),
        (Pictures([(X[0], 1), (X[0, :2], 1)]), {}, "several shapes"),
        ((Examples(), FRAME), {}, "a DataFrame beside another kind"),
        ((X, Y), {"layout": "nhwc"}, "data.layout='nhwc' is unknown"),
        ((X, Y), {"shift": True}, "data.shift must be a number"),
    ],
)
def test_what_does_not_serve_is_said(raw, settings, named):
    with pytest.raises(UserError, match=named):
        prepare(raw, **settings)

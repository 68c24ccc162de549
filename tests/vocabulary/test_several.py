"""Several inputs, outputs and targets: prepared, trained, judged, resumed and refused."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics
from torch import nn
from torch.optim import SGD, Adam

from optbench import compare, losses
from optbench.common.errors import UserError
from optbench.common.metrics import is_metric_column, metric_of
from optbench.datasets.prepare import Dataset, prepare
from optbench.initializers import initialize
from optbench.problem import Problem, build_model
from optbench.sweeps import shared_dataset
from optbench.tasks import Classes, Several, Values
from optbench.training.evaluation import score, scores
from optbench.training.loop import Training
from optbench.training.recipes import Recipe
from optbench.training.recipes.averaging import Averaging
from optbench.trees import Parts, cat, map_tensors

N = 60
G = torch.Generator().manual_seed(0)
IMAGES = torch.rand(N, 1, 4, 4, generator=G)
WORDS = torch.randint(7, (N, 3), generator=G)
KINDS = torch.arange(N) % 3
SIZES = 1e3 + 50 * IMAGES.mean((1, 2, 3)) + WORDS[:, 0]


def data(x, y, **settings) -> Dataset:
    """Prepare trees of arrays, of which the last 20 examples are the test part."""
    (train_x, test_x), (train_y, test_y) = (
        (map_tensors(lambda t: t[:40], tree), map_tensors(lambda t: t[40:], tree))
        for tree in (x, y)
    )
    return prepare((train_x, train_y, test_x, test_y), **{"val_size": 10} | settings)


BOTH = {"kind": KINDS, "size": SIZES}
INPUTS = {"image": IMAGES, "words": WORDS}


class Two(nn.Module):
    """Reads an image and words."""

    def __init__(self, image_shape, vocab_size, classes):
        super().__init__()
        self.words = nn.Embedding(vocab_size, 4)
        self.head = nn.Linear(image_shape[1] * image_shape[2] + 3 * 4, classes)

    def forward(self, image, words):
        return self.head(torch.cat([image.flatten(1), self.words(words).flatten(1)], dim=1))


class Wide(nn.Module):
    """Gives what a function makes of the outputs."""

    def __init__(self, shape, classes, function):
        super().__init__()
        self.layer, self.function = nn.Linear(16, classes), function

    def forward(self, x):
        return self.function(self.layer(x.flatten(1)))


def wide(function=lambda o: o):
    return lambda shape, classes: Wide(shape, classes, function)


def problem(dataset, model=None, loss=losses.several, **settings):
    settings = {"batch_size": 8, "epochs": 2} | settings
    return Problem(dataset, model or wide(), loss, initialize, **settings)


def test_each_part_is_prepared_as_a_dataset_of_its_own():
    made = data(INPUTS, BOTH)
    image, words = data(IMAGES, KINDS), data(WORDS, KINDS, preprocessing="integers")
    size = data(IMAGES, SIZES)
    for part in ("train", "val", "test"):
        x, y = getattr(made, f"{part}_x"), getattr(made, f"{part}_y")
        assert torch.equal(x.tensors["image"], getattr(image, f"{part}_x"))
        assert torch.equal(x.tensors["words"], getattr(words, f"{part}_x"))
        assert torch.equal(y.tensors["kind"], getattr(image, f"{part}_y"))
        assert torch.equal(y.tensors["size"], getattr(size, f"{part}_y"))
    assert made.input_shape == {"image": (1, 4, 4), "words": (3,)}
    assert made.vocabulary == 7
    assert made.task.parts == (("kind", Classes(3)), ("size", size.task))
    assert made.classes == 4
    other = data(INPUTS, {"kind": KINDS, "size": SIZES + 1})
    assert other.digest != made.digest
    assert data(INPUTS, BOTH).digest == made.digest


def test_a_split_and_a_subset_take_the_same_examples_of_each_part():
    numbers = torch.arange(N)
    x = {"a": numbers[:, None].float(), "b": numbers[:, None].float() * 2}
    made = data(x, {"c": numbers % 5, "d": numbers.float()}, preprocessing="none", subset=17)
    for part in ("train", "val", "test"):
        a, b = getattr(made, f"{part}_x").plain().values()
        c, d = getattr(made, f"{part}_y").plain().values()
        assert torch.equal(b, 2 * a)
        assert torch.equal(a[:, 0].long() % 5, c)
        assert torch.equal(a, d)
    assert len(made.train_y) == 7


@pytest.mark.parametrize("named", [True, False])
def test_tuples_are_parts_without_names(named):
    x, y = (INPUTS, BOTH) if named else (tuple(INPUTS.values()), tuple(BOTH.values()))
    made = data(x, y)
    assert made.train_x.named is named
    assert type(made.train_y.plain()) is (dict if named else tuple)
    assert list(made.task.metrics)[:2] == ["accuracy", f"{'kind' if named else 'part_1'}_accuracy"]

    class Read(Two):
        def forward(self, *args, **kwargs):
            assert len(args) == (0 if named else 2)
            return super().forward(*args, **kwargs)

    model = build_model(problem(made, lambda s, c: Read((1, 4, 4), 7, c)), 0)
    assert type(model(made.train_x[:2])) is torch.Tensor


def test_metrics_are_each_outputs_and_the_mean_accuracy():
    y = {"kind": KINDS, "parity": KINDS % 2, "size": SIZES}
    made = data(IMAGES, y)
    asked = problem(made)
    model = build_model(asked, 0)
    found = score(asked, model, made.test_x, made.test_y)
    outputs = dict(zip(y, model(made.test_x).split([3, 2, 1], dim=1), strict=True))
    rights = {name: (outputs[name].argmax(1) == y[name][40:]).float().mean().item()
              for name in ("kind", "parity")}  # fmt: skip
    for name, right in rights.items():
        assert found[f"{name}_accuracy"] == pytest.approx(right)
    assert found["accuracy"] == pytest.approx(sum(rights.values()) / 2)
    (mean,), (std,) = made.task.parts[2][1].mean, made.task.parts[2][1].std
    guess = (outputs["size"][:, 0].detach() * std + mean).numpy()
    assert found["size_rmse"] == pytest.approx(
        metrics.root_mean_squared_error(SIZES[40:].numpy(), guess), rel=1e-4
    )
    each = [
        F.cross_entropy(outputs["kind"], KINDS[40:]),
        F.cross_entropy(outputs["parity"], KINDS[40:] % 2),
        F.mse_loss(outputs["size"], made.test_y.tensors["size"]),
    ]
    assert found["loss"] == pytest.approx(torch.stack(each).mean().item(), rel=1e-6)
    assert set(found) == {"loss", *made.task.metrics}


def test_the_columns_of_outputs_are_metrics():
    assert is_metric_column("val_digit_accuracy")
    assert is_metric_column("averaged_test_size_rmse")
    assert not is_metric_column("val_loss")
    assert not is_metric_column("lr_accuracy")
    assert metric_of("val_size_rmse").smaller
    assert metric_of("val_digit_accuracy").percent


class Pair(NamedTuple):
    kind: torch.Tensor
    size: torch.Tensor


@pytest.mark.parametrize(
    "function",
    [
        lambda o: (o[:, :3], o[:, 3:]),
        lambda o: [o[:, :3], o[:, 3:]],
        lambda o: Pair(o[:, :3], o[:, 3:]),
        lambda o: {"size": o[:, 3:], "kind": o[:, :3]},
        lambda o: {"kind": o[:, :3], "size": o[:, 3:], "hidden": o},
    ],
)
def test_tuples_and_dictionaries_of_outputs_train_as_one_tensor_does(function):
    made = data(IMAGES, BOTH)
    runs = []
    for model in (wide(), wide(function)):
        training = Training(problem(made, model), partial(SGD, lr=0.1))
        runs.append([u.epoch for u in training.updates() if u.epoch])
    for a, b in zip(*runs, strict=True):
        assert {k: v for k, v in a.items() if "seconds" not in k} == {
            k: v for k, v in b.items() if "seconds" not in k
        }


@pytest.mark.parametrize("names", [["cross_entropy", "mae"], [losses.nll, losses.mae]])
def test_a_loss_for_each_output(names):
    made = data(IMAGES, BOTH)
    loss = losses.as_function(partial(losses.several, losses=names))
    outputs = {"kind": torch.randn(20, 3), "size": torch.randn(20, 1)}
    y = made.test_y.plain()
    each = F.cross_entropy(outputs["kind"], y["kind"]), F.l1_loss(outputs["size"], y["size"])
    right = sum(each) / 2
    assert loss(outputs, y).item() == pytest.approx(right.item(), rel=1e-6)
    assert losses.is_own(loss)


def test_a_torch_loss_among_several_is_evaluated_over_all_examples():
    made = data(IMAGES, BOTH)
    weighted = partial(nn.CrossEntropyLoss, weight=[1.0, 2.0, 3.0])
    loss = losses.as_function(partial(losses.several, losses=[weighted, "mse"]))
    assert not losses.is_own(loss)
    asked = problem(made, loss=loss)
    model = build_model(asked, 0)
    out, y = model(made.test_x), made.test_y.plain()
    right = F.cross_entropy(out[:, :3], y["kind"], weight=torch.tensor([1.0, 2.0, 3.0]))
    right = (right + F.mse_loss(out[:, 3:], y["size"])) / 2
    found = score(asked, model, made.test_x, made.test_y)["loss"]
    assert found == pytest.approx(right.item(), rel=1e-6)


def own_loss(outputs, targets):
    return F.cross_entropy(outputs["logits"], targets) + outputs["extra"].square().mean()


def test_a_loss_of_ones_own_is_given_the_whole_dictionary():
    asked = problem(
        data(IMAGES, KINDS), wide(lambda o: {"extra": o, "logits": o, "none": None}), own_loss
    )
    training = Training(asked, partial(SGD, lr=0.1))
    rows = [u.epoch for u in training.updates() if u.epoch]
    logits = training.model.layer(asked.dataset.test_x.flatten(1))
    y = asked.dataset.test_y
    right = F.cross_entropy(logits, y) + logits.square().mean()
    assert rows[-1]["test_loss"] == pytest.approx(right.item(), rel=1e-5)
    right = (logits.argmax(1) == y).double().mean().item()
    assert rows[-1]["test_accuracy"] == pytest.approx(right)


def both_of(outputs, targets):
    assert set(targets) == {"kind", "size"}
    return F.cross_entropy(outputs["kind"], targets["kind"]) + F.mse_loss(
        outputs["size"], targets["size"]
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_several_inputs_and_outputs_resume_bit_for_bit(precision):
    asked = problem(data(INPUTS, BOTH), Two, both_of, precision=precision, epochs=3)
    recipe = Recipe(averaging=Averaging("tail", start=0.3), accumulate=2, clip_norm=1.0)

    def make():
        return Training(asked, partial(Adam, lr=0.01), seed=1, recipe=recipe, layers=True)

    whole, first, second = make(), make(), make()
    rows = list(whole.updates())
    list(first.updates(stop=lambda: True))
    assert 0 < first.step < asked.total_steps
    second.load_state_dict(first.state_dict())
    rest = list(second.updates())
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    ends = [
        {k: v for k, v in part[-1].epoch.items() if "seconds" not in k} for part in (rows, rest)
    ]
    assert ends[0] == ends[1]
    assert ends[0]["averaged_test_size_rmse"] > 0
    assert any(row["layer"] == "model.head" for update in rows for row in update.layers)


def test_shared_memory_holds_parts():
    made = data(INPUTS, tuple(BOTH.values()))
    shared = shared_dataset.share(made)
    assert shared.task == made.task
    assert (shared.train_x.named, shared.train_y.named) == (True, False)
    assert torch.equal(shared.val_x.tensors["words"], made.val_x.tensors["words"])


def test_inputs_may_be_the_targets():
    made = data(INPUTS, KINDS, targets="inputs")

    def loss(outputs, targets):
        return F.mse_loss(outputs, targets["image"].flatten(1))

    asked = problem(made, lambda s, c: Two((1, 4, 4), 7, 16), loss)
    assert list(Training(asked, SGD).updates())[-1].status == "completed"


def test_an_optimizer_with_a_closure_trains_on_parts():
    asked = problem(data(INPUTS, BOTH), Two, batch_size="full")
    rows = list(Training(asked, torch.optim.LBFGS).updates())
    assert rows[-1].epoch["train_loss"] < rows[0].epoch["train_loss"]


def test_a_comparison_has_the_columns_of_each_output():
    asked = problem(data(IMAGES, BOTH), epochs=1)
    made = compare(asked, {"a": SGD, "b": Adam}, seeds=[0, 1], progress=False)
    assert made.table["test_kind_accuracy"].notna().all()
    assert "test_size_rmse_median" in made.summary("test_size_rmse")


def test_pandas_and_numpy_are_parts_too():
    x = {"a": pd.DataFrame(np.arange(120.0).reshape(60, 2)), "b": np.arange(60) % 7}
    x["b"] = x["b"][:, None]
    parts = ({k: v[:40] for k, v in x.items()}, {k: v[40:] for k, v in x.items()})
    made = prepare((parts[0], KINDS[:40], parts[1], KINDS[40:]), val_size=0)
    assert made.train_x.tensors["a"].mean().abs() < 1e-6
    assert made.train_x.tensors["b"].dtype is torch.int64


def test_a_tuple_of_single_examples_is_one_input():
    rows = tuple(torch.randn(5) for _ in range(30))
    made = prepare((rows, KINDS[:30], rows[:9], KINDS[:9]), val_size=0)
    assert made.input_shape == (5,)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ({"a": IMAGES, "b": WORDS[:50]}, KINDS, "differ in their rows: a 40, b 40|a 20, b 10"),
        ({"a b": IMAGES}, KINDS, "a part called 'a b'; names are words"),
        ({"image": IMAGES * float("nan")}, KINDS, "image: train_x holds NaN"),
        (IMAGES, {"kind": KINDS - 5}, "kind: train_y holds labels from -5"),
    ],
)
def test_wrong_parts_are_named(x, y, words):
    with pytest.raises(UserError, match=words):
        data(x, y)


def test_parts_that_differ_between_training_and_test_are_refused():
    with pytest.raises(UserError, match=r"must have the same parts.*'image', 'words'.*'image'"):
        prepare((INPUTS, KINDS, {"image": IMAGES}, KINDS))


@pytest.mark.parametrize(
    ("function", "loss", "words"),
    [
        (lambda o: o[:, :2], losses.several, r"one tensor of shape \(2, 2\).*kind 3, size 1.* 4"),
        (lambda o: (o,), losses.several, "gives 1 outputs, and the targets are kind, size"),
        (lambda o: {"kind": o}, losses.several, r"gives \['kind'\], and the targets are"),
        (lambda o: (o, o), losses.several, "the output for kind: .*one logit per class"),
        (lambda o: (o[:, :3], o), losses.several, "the output for size: .*one output for each"),
        (lambda o: (o[:, :3], o.mean()), losses.several, "must have a row for each example"),
        (lambda o: (o[:, :3], 3.0), losses.several, "gives a float"),
        (lambda o: o, losses.cross_entropy, "loss=cross_entropy is for other.*loss=several"),
        (lambda o: o, partial(losses.several, losses=["mse"]), "has 1 losses, and there are 2"),
        (lambda o: o, partial(losses.several, losses=["mse", "no"]), "loss.losses must be one of"),
    ],
)
def test_outputs_that_do_not_fit_the_targets_are_refused(function, loss, words):
    with pytest.raises(UserError, match=words):
        build_model(problem(data(IMAGES, BOTH), wide(function), loss), 0)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (wide(), r"image: real numbers \(n, 1, 4, 4\).*words: whole numbers \(n, 3\).*by name"),
        (lambda in_features: 0, "needs in_features"),
    ],
)
def test_models_of_one_input_are_told_of_several(model, words):
    with pytest.raises(UserError, match=words):
        build_model(problem(data(INPUTS, BOTH), model), 0)


def test_several_and_one_are_told_apart(make_problem):
    with pytest.raises(UserError, match="loss=several is for several targets"):
        build_model(make_problem(loss=losses.several), 0)


def test_augmentation_of_several_inputs_is_refused():
    from optbench.training.recipes.augmentation import Augmentation

    with pytest.raises(UserError, match="augment is for images"):
        Augmentation(flip=True).check(problem(data({"a": IMAGES, "b": IMAGES, "c": IMAGES}, KINDS)))


def test_trees_keep_their_form():
    tree = {"a": Pair(torch.ones(2), torch.zeros(2)), "b": [torch.ones(1), None]}
    twice = cat([tree, tree])
    assert type(twice["a"]) is Pair
    assert [len(t) for t in (*twice["a"], twice["b"][0])] == [4, 4, 2]
    assert twice["b"][1] is None
    parts = Parts({"x": torch.arange(6), "y": torch.arange(12).view(6, 2)})
    assert [len(p) for p in parts.split(4)] == [4, 2]
    assert torch.equal(cat(parts.split(4)).tensors["y"], parts.tensors["y"])
    assert parts.index_select(0, torch.tensor([3])).tensors["y"].tolist() == [[6, 7]]
    with pytest.raises(ValueError, match="one length"):
        Parts([torch.ones(2), torch.ones(3)])


def test_sums_are_split_by_their_number():
    task = Several(4, parts=(("a", Values(2)), ("b", Classes(2))))
    outputs = {"a": torch.randn(9, 2), "b": torch.randn(9, 2)}
    y = Parts({"a": torch.randn(9, 2), "b": torch.arange(9) % 2})
    sums = task.sums(outputs, y)
    assert len(sums) == task.sum_count
    found = task.values(sums.tolist(), 9)
    assert found["b_accuracy"] == found["accuracy"]
    right = Values(2).values(Values(2).sums(outputs["a"], y.tensors["a"]).tolist(), 9)
    assert {k.removeprefix("a_"): v for k, v in found.items() if k.startswith("a_")} == right


def test_rows_of_several_are_scored_in_batches(monkeypatch):
    made = data(INPUTS, BOTH)
    asked = problem(made, Two)
    model = build_model(asked, 0)
    whole = scores(asked, model, made, None, tested=True)
    monkeypatch.setattr("optbench.training.evaluation.EVAL_BATCH_DENSE", 7)
    parts = scores(asked, model, made, None, tested=True)
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-5), name

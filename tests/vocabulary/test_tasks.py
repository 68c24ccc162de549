"""Tasks: the metrics of real targets, of tokens and of windows of a text."""

from functools import partial
from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics
from torch import nn
from torch.optim import SGD

from optbench import losses, tasks
from optbench.common.errors import UserError
from optbench.common.metrics import TASK_METRICS, metric_of
from optbench.datasets.prepare import Dataset, prepare
from optbench.initializers import initialize
from optbench.models import mlp
from optbench.problem import Problem, build_model
from optbench.training.batches import Batches, examples_of
from optbench.training.evaluation import score, scores
from optbench.training.loop import Training


def regression(targets=1, n=90, **settings):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=generator)
    y = 1e4 + 300 * x[:, :targets] + 50 * torch.randn(n, targets, generator=generator)
    y = y[:, 0] if targets == 1 else y
    return prepare((x[20:], y[20:], x[:20], y[:20]), val_size=10, **settings)


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("preprocessing", ["standardize_features", "none"])
def test_metrics_of_real_targets_are_those_of_scikit_learn_in_their_own_unit(
    targets, preprocessing
):
    data = regression(targets, preprocessing=preprocessing)
    problem = Problem(data, partial(mlp, hidden=[4]), losses.mse, initialize, batch_size=8)
    model = build_model(problem, 0)
    found = score(problem, model, data.test_x, data.test_y)
    mean, std = np.array(data.task.mean), np.array(data.task.std)
    y = data.test_y.numpy().astype(float) * std + mean
    guess = model(data.test_x).detach().numpy().astype(float) * std + mean
    assert y.mean() == pytest.approx(1e4, rel=0.1)
    assert found["r2"] == pytest.approx(metrics.r2_score(y, guess), rel=1e-6)
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, guess), rel=1e-6)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, guess), rel=1e-6)
    assert found["accuracy"] is None


def test_real_targets_are_standardized_by_the_training_part():
    data = regression()
    assert data.train_y.shape == (60, 1)
    assert data.train_y.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.train_y.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert abs(data.test_y.mean().item()) > 1e-4


def test_a_constant_target_has_no_r2():
    x = torch.randn(30, 3)
    data = prepare((x, torch.full((30,), 2.5), x, torch.full((30,), 2.5)), val_size=0)
    problem = Problem(data, partial(mlp, hidden=[4]), losses.mse, initialize)
    found = score(problem, build_model(problem, 0), data.test_x, data.test_y)
    assert found["r2"] is None
    assert found["rmse"] > 0


def test_every_metric_of_a_task_has_a_direction():
    for task in tasks.KINDS.values():
        assert set(task.metrics) <= set(TASK_METRICS)
    assert not metric_of("val_r2").smaller
    assert metric_of("averaged_test_rmse").smaller
    assert metric_of("test_label_error_rate").percent


@pytest.mark.parametrize("loss", [losses.mae, losses.huber])
def test_losses_of_real_targets_are_torchs(loss):
    a, b = torch.randn(40, 2), 3 * torch.randn(40, 2)
    right = {"mae": F.l1_loss, "huber": F.huber_loss}[loss.__name__]
    assert torch.equal(loss(a, b), right(a, b))
    with pytest.raises(UserError, match="for real targets"):
        loss(a, torch.zeros(40, dtype=torch.int64))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.nll, losses.bce])
def test_losses_of_classes_refuse_real_targets(loss):
    data = regression()
    problem = Problem(data, partial(mlp, hidden=[4]), loss, initialize, batch_size=8)
    with pytest.raises(UserError, match="the targets are real numbers: take loss=mse"):
        build_model(problem, 0)


def test_a_model_of_flat_outputs_is_refused_for_real_targets():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 1)

        def forward(self, x):
            return self.linear(x)[:, 0]

    problem = Problem(regression(), lambda s, c: Flat(), losses.mse, initialize)
    with pytest.raises(UserError, match="one output for each target value"):
        build_model(problem, 0)


def text(length=200, context=8, classes=5):
    stream = torch.randint(classes, (length,), generator=torch.Generator().manual_seed(1))
    x, y = (part.unfold(0, context, 1) for part in (stream[:-1], stream[1:]))
    task = tasks.Characters(classes)
    return Dataset(x, y, x[:40:8], y[:40:8], x[:40:8], y[:40:8], task, "text", stride=context)


class Table(nn.Module):
    """Logits of the next token by the last one."""

    def __init__(self, vocabulary, classes):
        super().__init__()
        self.table = nn.Embedding(vocabulary, classes)

    def forward(self, x):
        return self.table(x)


def make_table(input_shape, vocab_size, num_classes):
    assert input_shape == (8,)
    return Table(vocab_size, num_classes)


def test_an_epoch_of_a_text_draws_as_many_windows_as_cover_it():
    data = text()
    problem = Problem(data, make_table, losses.cross_entropy, initialize, batch_size=4, epochs=2)
    assert data.epoch_examples == 24  # of 192 windows
    assert problem.steps_per_epoch == 6
    drawn = Batches(problem, seed=3)
    first, second = drawn.epoch(), drawn.epoch()
    places = torch.cat([*first, *second])
    assert len(places) == 48
    assert len(places.unique()) > 24  # in each epoch other places
    assert any(place % 8 for place in places)
    x, y = examples_of(data, first[0])
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert all(map(torch.equal, Batches(problem, seed=3).epoch(), first))


def test_scores_of_a_text_are_over_fixed_windows_in_bits_per_character():
    data = text()
    problem = Problem(data, make_table, losses.cross_entropy, initialize, batch_size=4, epochs=2)
    model = build_model(problem, 0)
    row = scores(problem, model, data, 10, tested=True)
    x, y = data.train_x[::8][:10], data.train_y[::8][:10]
    nats = F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
    assert row["train_loss"] == pytest.approx(nats, rel=1e-6)
    assert row["train_bits_per_character"] == pytest.approx(nats / log(2), rel=1e-6)
    hits = (model(x).argmax(-1) == y).float().mean().item()
    assert row["train_accuracy"] == pytest.approx(hits, rel=1e-6)


def test_windows_share_their_memory_after_a_move():
    data = text(5000)
    moved = data._with_tensors(torch.clone)
    assert torch.equal(moved.train_x, data.train_x)
    assert moved.train_x.untyped_storage().nbytes() == 8 * 4999
    again = Dataset.from_plain(data.to_plain())
    assert again.task == data.task
    assert again.stride == 8


def test_ignored_tokens_count_in_no_metric():
    task = tasks.Tokens(3)
    y = torch.tensor([[0, tasks.IGNORED, 2], [1, tasks.IGNORED, 1]])
    logits = F.one_hot(torch.tensor([[0, 1, 2], [0, 1, 0]]), 3).float()
    assert task.values(task.sums(logits, y).tolist(), 2) == {"accuracy": 0.5}
    loss = losses.cross_entropy(logits, y)
    kept = y != tasks.IGNORED
    assert loss == F.cross_entropy(logits[kept], y[kept])


def test_a_run_of_a_text_resumes_bit_for_bit():
    problem = Problem(text(), make_table, losses.cross_entropy, initialize, batch_size=4, epochs=3)
    whole = Training(problem, partial(SGD, lr=0.5), seed=1)
    list(whole.updates())
    first = Training(problem, partial(SGD, lr=0.5), seed=1)
    list(first.updates(stop=lambda: first.step >= 0))
    assert 0 < first.step < problem.total_steps
    rest = Training(problem, partial(SGD, lr=0.5), seed=1)
    rest.load_state_dict(first.state_dict())
    list(rest.updates())
    assert torch.equal(rest.model.table.weight, whole.model.table.weight)

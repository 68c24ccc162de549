"""Label sequences: CTC's loss, greedy decoding, the label error rate, and what is refused."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optbench import losses
from optbench.common.errors import UserError
from optbench.common.metrics import main_metric, metric_of
from optbench.datasets.prepare import Described, prepare
from optbench.initializers import initialize
from optbench.models import lstm
from optbench.problem import Problem, build_model
from optbench.tasks import LabelSequences, from_plain, to_plain
from optbench.tasks.edit_distance import edit_distances, greedy_decode
from optbench.tasks.label_sequences import needed_steps


def drawn(n=40, steps=12, classes=5, most=4, seed=0):
    """Logits, and label sequences padded by -1, of which some are empty."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, steps, classes, generator=generator)
    lengths = torch.randint(most + 1, (n, 1), generator=generator)
    labels = torch.randint(1, classes, (n, most), generator=generator)
    return logits, labels.masked_fill(torch.arange(most) >= lengths, -1)


def as_lists(labels):
    return [[label for label in row if label >= 0] for row in labels.tolist()]


def log_probability(logits, labels):
    """Graves et al. 2006, section 4.1: the forward variables, in float64."""
    p = np.exp(np.asarray(logits, dtype=np.float64))
    p /= p.sum(axis=1, keepdims=True)
    between = [0, *(symbol for label in labels for symbol in (label, 0))]
    alpha = np.zeros(len(between))
    alpha[:2] = [p[0, symbol] for symbol in between[:2]]
    for row in p[1:]:
        new = np.zeros_like(alpha)
        for s, symbol in enumerate(between):
            new[s] = alpha[max(0, s - 1) : s + 1].sum()
            if s > 1 and symbol != 0 and symbol != between[s - 2]:
                new[s] += alpha[s - 2]
            new[s] *= row[symbol]
        alpha = new
    return np.log(alpha[-2:].sum())


def test_the_loss_is_torchs_and_that_of_the_published_recursion():
    logits, labels = drawn()
    lengths = (labels >= 0).sum(dim=1)
    found = losses.ctc(logits, labels)
    steps = torch.full((len(labels),), logits.shape[1])
    joined = labels[labels >= 0]
    right = F.ctc_loss(logits.log_softmax(2).transpose(0, 1), joined, steps, lengths)
    assert found.item() == pytest.approx(right.item(), abs=1e-5)
    each = [-log_probability(row, own) / max(1, len(own))
            for row, own in zip(logits, as_lists(labels), strict=True)]  # fmt: skip
    assert found.item() == pytest.approx(np.mean(each), abs=1e-5)


def test_a_probability_is_the_sum_over_all_paths():
    logits = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(3))
    p = logits[0].softmax(dim=1).double()
    total = 0.0
    for path in product(range(3), repeat=4):
        one_hot = F.one_hot(torch.tensor([path]), 3)
        if as_lists(greedy_decode(one_hot)) == [[1, 2]]:
            total += float(torch.stack([p[t, symbol] for t, symbol in enumerate(path)]).prod())
    loss = losses.ctc(logits, torch.tensor([[1, 2]]))
    assert loss.item() == pytest.approx(-np.log(total) / 2, rel=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    logits, labels = drawn(n=2, steps=4, classes=3, most=2)
    torch.autograd.gradcheck(
        partial(losses.ctc, labels=labels), (logits.double().requires_grad_(),), atol=1e-6
    )


def test_the_best_path_without_repeats_and_blanks_is_decoded():
    path = torch.tensor([[1, 1, 0, 1, 2, 0, 0], [0, 0, 0, 0, 0, 0, 0], [3, 3, 3, 0, 3, 2, 1]])
    assert as_lists(greedy_decode(F.one_hot(path, 4))) == [[1, 1, 2], [], [3, 3, 2, 1]]


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


def test_edit_distances_are_those_of_the_plain_recursion():
    logits, labels = drawn(n=500, most=6, seed=4)
    found = greedy_decode(logits)
    pairs = zip(as_lists(found), as_lists(labels), strict=True)
    right = [levenshtein(a, b) for a, b in pairs]
    assert edit_distances(found, labels).tolist() == right
    assert edit_distances(labels, found).tolist() == right
    assert len(set(right)) > 4


def test_the_label_error_rate_is_all_edits_over_all_labels_in_any_batches():
    logits, labels = drawn(n=300, seed=5)
    task = LabelSequences(5)
    edits = [levenshtein(a, b) for a, b in
             zip(as_lists(greedy_decode(logits)), as_lists(labels), strict=True)]  # fmt: skip
    right = sum(edits) / sum(map(len, as_lists(labels)))
    for size in (300, 7):
        parts = zip(logits.split(size), labels.split(size), strict=True)
        sums = torch.stack([task.sums(*part) for part in parts]).sum(dim=0)
        assert task.values(sums.tolist(), 300)["label_error_rate"] == pytest.approx(right)
    assert len(task.sums(logits, labels)) == task.sum_count
    empty = torch.full_like(labels, -1)
    assert task.values(task.sums(logits, empty).tolist(), 300) == {"label_error_rate": None}


def test_a_task_of_label_sequences_is_a_plain_value():
    task = LabelSequences(5).fitted([torch.tensor([[1, 1, -1], [1, 2, 3]])])
    assert (task.steps, task.longest) == (3, (1, 1))
    assert from_plain(to_plain(task)) == task
    assert main_metric({"test_label_error_rate": [0.2], "test_accuracy": [0.5]}, "test").endswith(
        "label_error_rate"
    )
    assert metric_of("val_label_error_rate").smaller


def test_two_equal_labels_need_a_step_between_them():
    labels = torch.tensor([[1, 1, 1], [1, 2, 1], [2, 2, -1], [-1, -1, -1]])
    assert needed_steps(labels).tolist() == [5, 3, 3, 0]


def sequences(n=40, steps=6, **changes):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, steps, 3, generator=generator)
    y = torch.randint(1, 4, (n, 2), generator=generator)
    y[::3, 1] = -1
    arrays = {"x": x, "y": y, "test_x": x[:9], "test_y": y[:9]} | changes
    return Described(list(arrays.values()), LabelSequences(4))


def problem(data=None, model=None, loss=losses.ctc):
    data = data or prepare(sequences(), val_size=0)
    return Problem(data, model or partial(lstm, hidden=5), loss, initialize, batch_size=8, epochs=1)


class Reader(nn.Module):
    """Logits of every `stride`-th step."""

    def __init__(self, input_shape, classes, stride=1):
        super().__init__()
        self.stride, self.layer = stride, nn.Linear(input_shape[-1], classes)

    def forward(self, x):
        return self.layer(x[:, :: self.stride])


def test_longer_labels_than_outputs_are_refused_with_the_labels_and_the_steps():
    long = torch.tensor([[1, 1, 2, 2, 3, 3, 1]]).expand(40, 7)
    data = prepare(sequences(y=long), val_size=0)
    words = r"labels \[1, 1, 2, 2, 3, 3, 1\] are longer .* is 10 steps, and the outputs have 6"
    with pytest.raises(UserError, match=words):
        build_model(problem(data), 0)
    build_model(problem(), 0)
    with pytest.raises(UserError, match=r"longer.* is 3 steps, and the outputs have 1"):
        build_model(problem(model=partial(Reader, stride=6)), 0)


def test_the_longest_labels_count_wherever_they_are():
    y = torch.full((40, 9), -1)
    y[:, 0] = 1
    y[37, :7] = torch.tensor([1, 2, 3, 1, 2, 3, 1])  # no example of the trial
    with pytest.raises(UserError, match="is 7 steps, and the outputs have 6"):
        build_model(problem(prepare(sequences(y=y), val_size=5)), 0)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.zeros(40, 2, dtype=torch.int64), "from 0 to 0; with CTC's blank, which is class 0"),
        (torch.full((40, 2), 4), "labels are 1 to 3"),
        (torch.tensor([[-1, 1]]).expand(40, 2), "stands before a label"),
        (torch.ones(40, dtype=torch.int64), r"whole numbers \(n, most labels\).*shape \(40,\)"),
        (torch.ones(40, 2), "these are torch.float64"),
        (torch.full((40, 2), -2), "from -2"),
    ],
)
def test_wrong_label_sequences_are_refused_in_words(labels, words):
    with pytest.raises(UserError, match=words):
        prepare(sequences(y=labels, test_y=labels[:9]), val_size=0)


def of_images(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(18, classes))


@pytest.mark.parametrize(
    ("model", "loss", "words"),
    [
        (of_images, losses.ctc, r"outputs of shape \(2, 4\).*\(2, time, 4\) is needed"),
        (None, losses.cross_entropy, r"loss=cross_entropy is for other targets.*take loss=ctc"),
        (None, losses.several, "take loss=ctc"),
    ],
)
def test_models_and_losses_that_do_not_fit_are_refused(model, loss, words):
    with pytest.raises(UserError, match=words):
        build_model(problem(model=model, loss=loss), 0)


def test_ctc_of_classes_is_refused(make_problem):
    with pytest.raises(UserError, match="loss=ctc is for logits"):
        build_model(make_problem(loss=losses.ctc), 0)

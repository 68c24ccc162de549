"""cnn3d and line_reader: what they compute, what they take, and what they refuse."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from optbench import losses, models
from optbench.common.errors import UserError
from optbench.datasets.prepare import Described, prepare
from optbench.initializers import initialize
from optbench.problem import Problem, build_model
from optbench.tasks import LabelSequences
from optbench.training.batches import Batches, examples_of
from optbench.training.loop import Training

CLIPS, IMAGES, ROWS, TOKENS = (4, 2, 8, 10), (3, 16, 40), (7, 4), (9,)


def data(shape, classes=3, n=40, whole=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, *shape, generator=generator)
    x = torch.randint(5, x.shape, generator=generator) if whole else x
    y = torch.arange(n) % classes
    preprocessing = "integers" if whole else "standardize"
    return prepare((x, y, x[:9], y[:9]), preprocessing=preprocessing)


def problem(shape, model, loss=losses.cross_entropy, **settings):
    whole = settings.pop("whole", False)
    settings = {"batch_size": 8, "epochs": 2} | settings
    return Problem(data(shape, whole=whole), model, loss, initialize, **settings)


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_clip_gives_a_logit_for_each_class(classes, batch_norm):
    model = models.cnn3d(CLIPS, classes, channels=[3, 4, 5], batch_norm=batch_norm, dropout=0.1)
    assert model(torch.randn(2, *CLIPS)).shape == (2, classes)
    convolutions = [m for m in model if isinstance(m, nn.Conv3d)]
    assert [m.in_channels for m in convolutions] == [2, 3, 4]
    assert [m.bias is None for m in convolutions] == [batch_norm] * 3
    pools = [m.kernel_size for m in model if isinstance(m, nn.MaxPool3d)]
    assert pools == [(1, 2, 2), (2, 2, 2), (2, 2, 2)]


def test_cnn3d_is_the_plain_network_of_torch():
    model = models.cnn3d(CLIPS, 3, channels=[3], hidden=[])
    conv, head = (m for m in model if isinstance(m, nn.Conv3d | nn.Linear))
    x = torch.randn(5, *CLIPS)
    hidden = nn.functional.max_pool3d(conv(x.transpose(1, 2)).relu(), (1, 2, 2))
    torch.testing.assert_close(model(x), head(hidden.flatten(2).mean(2)))


def test_a_reader_gives_logits_for_each_step():
    model = models.line_reader(IMAGES, 6, channels=[4, 5], hidden=7)
    out = model(torch.randn(2, *IMAGES))
    assert out.shape == (2, 10, 6)
    assert models.line_reader((1, 1, 9), 4, channels=[2])(torch.randn(2, 1, 1, 9)).shape[1] == 4


def test_a_reader_reads_from_left_to_right():
    model = models.line_reader(IMAGES, 6, channels=[4, 5], kernel=1, bidirectional=False).eval()
    x = torch.randn(1, *IMAGES)
    before = model(x)
    x[..., 20:] += 1
    changed = (model(x) - before).abs().sum(dim=2)[0] > 0
    assert changed.tolist() == [False] * 5 + [True] * 5


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_layout_of_convolutions_changes_no_step(cell):
    model = partial(models.line_reader, channels=[4, 4], hidden=5, cell=cell)
    lines, labels = torch.randn(30, *IMAGES), torch.randint(1, 5, (30, 3))
    described = Described((lines, labels, lines[:9], labels[:9]), LabelSequences(5))
    asked = Problem(prepare(described), model, losses.ctc, initialize, batch_size=8, epochs=2)
    runs = [Training(asked, partial(Adam, lr=0.01), channels_last=last) for last in (True, False)]
    kernel = runs[0].model.stages[0].weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    ends = [list(run.updates())[-1].epoch["train_loss"] for run in runs]
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (models.cnn3d, IMAGES, r"cnn3d needs clips \(time, channels.*shape \(3, 16, 40\)"),
        (models.cnn3d, (3, 1, 8, 8), "at least 4 frames of 8x8 pixels, not 3 of 8x8"),
        (models.cnn3d, (4, 1, 8, 7), "not 4 of 8x7"),
        (partial(models.cnn3d, kernel=2), CLIPS, "model.kernel must be an odd"),
        (models.line_reader, ROWS, r"images of lines \(channels.*shape \(7, 4\)"),
        (models.line_reader, CLIPS, r"images of lines \(channels.*shape \(4, 2, 8, 10\)"),
        (partial(models.line_reader, kernel=0), IMAGES, "model.kernel must be an odd"),
        (partial(models.line_reader, cell="rnn"), IMAGES, "model.cell must be one of"),
        (partial(models.line_reader, hidden=0), IMAGES, "model.hidden"),
        (partial(models.line_reader, bidirectional=2), IMAGES, "must be true or false"),
        (models.lstm, IMAGES, r"lstm needs tokens \(time,\), or sequences.*\(3, 16, 40\)"),
        (models.lstm, CLIPS, r"lstm needs tokens.*shape \(4, 2, 8, 10\)"),
        (models.cnn, ROWS, r"cnn needs images \(channels.*shape \(7, 4\)"),
        (models.cnn, CLIPS, r"cnn needs images \(channels.*shape \(4, 2, 8, 10\)"),
    ],
)
def test_a_wrong_rank_names_what_the_model_takes_and_what_the_data_are(model, shape, words):
    with pytest.raises(UserError, match=words):
        build_model(problem(shape, model), 0)


class Recurrent(nn.Module):
    def __init__(self, input_size, classes, batch_first=True):
        super().__init__()
        self.layer = nn.GRU(input_size, 6, batch_first=batch_first)
        self.head = nn.Linear(6, classes)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def embedded(input_shape, classes):
    return nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.LazyLinear(classes))


def flat(layer):
    return lambda input_shape, classes: nn.Sequential(layer(), nn.Flatten(), nn.LazyLinear(classes))


@pytest.mark.parametrize(
    ("model", "shape", "whole", "words"),
    [
        (flat(lambda: nn.Conv2d(3, 4, 3)), CLIPS, False,
         r"first Conv2d takes real numbers \(n, 3, height, width\); the examples are real numbers "
         r"\(n, 4, 2, 8, 10\), torch.float32"),
        (flat(lambda: nn.Conv3d(5, 4, 3)), IMAGES, False,
         r"Conv3d takes real numbers \(n, 5, time, height, width\).*\(n, 3, 16, 40\)"),
        (flat(lambda: nn.Conv3d(2, 4, 3)), IMAGES, False,  # torch takes the two examples for one
         r"outputs of shape \(4, 3\) for 2 examples.*Conv3d takes real numbers \(n, 2, time"),
        (flat(lambda: nn.Conv1d(7, 4, 3)), IMAGES, False, r"\(n, 7, length\).*\(n, 3, 16, 40\)"),
        (flat(lambda: nn.Linear(9, 4)), ROWS, False, r"\(n, ..., 9\); .* \(n, 7, 4\)"),
        (lambda s, c: Recurrent(5, c), ROWS, False, r"GRU takes real numbers \(n, time, 5\)"),
        (lambda s, c: Recurrent(4, c), (28,), False, r"the examples are real numbers \(n, 28\)"),
        (lambda s, c: Recurrent(5, c, False), ROWS, False, r"\(time, n, 5\), without batch_first"),
        (Recurrent, TOKENS, True, r"the examples are whole numbers \(n, 9\), torch.int64. The ex"),
        (flat(lambda: nn.Linear(9, 4)), TOKENS, True, "preprocessing=none gives numbers"),
        (embedded, ROWS, False, r"Embedding takes whole numbers from 0 to 49; .*real .*=integers"),
    ],
)  # fmt: skip
def test_a_first_layer_that_does_not_fit_is_named_with_the_data(model, shape, whole, words):
    with pytest.raises(UserError, match=words):
        build_model(problem(shape, model, whole=whole), 0)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (partial(models.cnn3d, channels=[2, 3], hidden=[4], dropout=0.2, batch_norm=True), CLIPS),
        (partial(models.lstm, hidden=5, layers=2, dropout=0.2), ROWS),
    ],
)
def test_clips_and_sequences_resume_bit_for_bit(model, shape):
    asked = problem(shape, model, epochs=3)
    whole, first, second = (
        Training(asked, partial(SGD, lr=0.1, momentum=0.9), layers=True) for _ in range(3)
    )
    rows = list(whole.updates())
    list(first.updates(stop=lambda: True))
    assert 0 < first.step < asked.total_steps
    second.load_state_dict(first.state_dict())
    rest = list(second.updates())
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert rows[-1].epoch["test_loss"] == rest[-1].epoch["test_loss"]


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (partial(models.cnn3d, channels=[2, 3], hidden=[4]), CLIPS),
        (partial(models.lstm, hidden=5), ROWS),
    ],
)
def test_a_run_is_the_plain_loop_of_torch(model, shape):
    asked = problem(shape, model, epochs=2)
    training = Training(asked, partial(SGD, lr=0.1), seed=2)
    list(training.updates())
    plain, batches = build_model(asked, 2).train(), Batches(asked, 2)
    optimizer = SGD(plain.parameters(), lr=0.1)
    for _ in range(2):
        for batch in batches.epoch():
            x, y = examples_of(asked.dataset, batch)
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x), y).backward()
            optimizer.step()
    for a, b in zip(training.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)

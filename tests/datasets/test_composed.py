"""Lines, clips, rows, sums and pairs of labels: deterministic, and what their labels say."""

import numpy as np
import pytest
import torch

from optbench import datasets
from optbench.common.errors import UserError
from optbench.datasets.composed import DIRECTIONS
from optbench.datasets.prepare import prepare

SMALL = {
    "digit_lines": {"train": 60, "test": 20},
    "moving_digits": {"train": 48, "test": 16},
    "mnist_rows": {},
    "adding": {"train": 400, "test": 50},
    "digit_and_parity": {},
}
SHAPES = {
    "digit_lines": (1, 28, 156),
    "moving_digits": (8, 1, 32, 32),
    "mnist_rows": (28, 28),
    "adding": (40, 2),
    "digit_and_parity": (1, 28, 28),
}
DIGESTS = {  # of the data at their default sizes
    "digit_lines": "693aee585aa4dbfe",
    "moving_digits": "84529e3a559b8dc1",
    "mnist_rows": "7c5b247f9a1e4c02",
    "adding": "cf2f6d7538459cce",
    "digit_and_parity": "45963e84ebff954b",
}


def raw(name, **changes):
    return getattr(datasets, name)(**SMALL[name] | changes)


@pytest.mark.parametrize("name", SMALL)
def test_the_same_bytes_each_time_and_everywhere(name):
    made = prepare(getattr(datasets, name)())
    assert made.digest == DIGESTS[name]
    assert made.input_shape == SHAPES[name]
    assert made.train_x.isfinite().all()
    small, again = (prepare(raw(name)) for _ in range(2))
    assert small.digest == again.digest
    assert torch.equal(small.train_x, again.train_x)


def inks(line):
    """The columns of a line that are not black."""
    return (line[0].amax(dim=0) > 0).nonzero()[:, 0]


def test_lines_hold_as_many_digits_as_labels_from_left_to_right():
    described = raw("digit_lines")
    x, y = described.arrays[:2]
    lengths = (y > 0).sum(dim=1)
    assert set(lengths.tolist()) == {3, 4, 5, 6}
    assert y.min() == -1
    assert set(y.flatten().tolist()) == {-1, *range(1, 11)}
    for line, length in zip(x, lengths.tolist(), strict=True):
        assert 15 * (length - 1) < int(inks(line)[-1]) < 8 + 24 * (length - 1) + 28
        assert not line[..., 8 + 24 * (length - 1) + 28 :].any()


def test_one_digit_of_a_line_is_its_image():
    described = datasets.digit_lines(train=40, test=40, shortest=1, longest=1)
    mnist = datasets.mnist_5k()
    for k, images, digits in ((0, mnist.train_x, mnist.train_y), (2, mnist.test_x, mnist.test_y)):
        pairs = zip(images, digits.tolist(), strict=True)
        known = {bytes(image.numpy().tobytes()): digit for image, digit in pairs}
        for line, label in zip(*described.arrays[k : k + 2], strict=True):
            windows = [line[:, :, left : left + 28].contiguous() for left in range(9)]
            found = [known.get(bytes(w.numpy().tobytes())) for w in windows]
            assert label.item() - 1 in found


def test_training_and_test_images_are_different_ones():
    mnist = datasets.mnist_5k()
    train = {bytes(image.numpy().tobytes()) for image in mnist.train_x}
    assert not any(bytes(image.numpy().tobytes()) in train for image in mnist.test_x)


def test_digits_move_where_their_label_says_and_come_back():
    x, y, _, _ = raw("moving_digits")
    assert y.bincount().tolist() == [6] * 8
    for clip, label in zip(x[:, :, 0], y.tolist(), strict=True):
        down, right = DIRECTIONS[label]
        speeds = [torch.roll(clip[0], (k * down, k * right), (0, 1)) for k in (1, 2)]
        speed = 1 + [torch.equal(clip[1], moved) for moved in speeds].index(True)
        for frame in range(8):
            shift = (speed * frame * down, speed * frame * right)
            assert torch.equal(clip[frame], torch.roll(clip[0], shift, (0, 1)))


def test_rows_are_those_of_the_images():
    rows, mnist = datasets.mnist_rows(), datasets.mnist_5k()
    assert torch.equal(rows.train_x, mnist.train_x[:, 0])
    assert torch.equal(rows.test_y, mnist.test_y)


def test_sums_are_those_of_the_marked_numbers():
    x, y = raw("adding")[:2]
    for (values, marks), target in zip(x.transpose(1, 2), y, strict=True):
        places = (marks == 1).nonzero()[:, 0].tolist()
        assert len(places) == 2
        assert min(places) < 10
        assert max(places) < 20 - 1
        assert marks[-1] == -1
        assert marks[0] in (-1, 1)
        total = sum(float(values[k]) for k in places if k)
        assert target.item() == pytest.approx(0.5 + total / 4, abs=1e-6)
    assert values.abs().max() <= 1
    assert 0 <= y.min() < 0.2 < 0.8 < y.max() <= 1


def test_parity_is_that_of_the_digit():
    _, y, _, _ = datasets.digit_and_parity()
    assert torch.equal(y["parity"], y["digit"] % 2)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("digit_lines", {"shortest": 4, "longest": 3}, "dataset.shortest and dataset.longest"),
        ("digit_lines", {"shortest": 0}, "at least 1"),
        ("moving_digits", {"frames": 1}, "dataset.frames must be at least 2"),
        ("moving_digits", {"size": 13}, "dataset.size at least 14"),
        ("adding", {"length": 19}, "dataset.length must be at least 20"),
    ],
)
def test_wrong_sizes_are_refused(name, changes, words):
    with pytest.raises(UserError, match=words):
        raw(name, **changes)


@pytest.mark.parametrize(
    ("preprocessing", "shape", "axes"),
    [
        ("standardize", (50, 6, 3), (0, 1, 2)),
        ("standardize_features", (50, 6, 3), (0, 1)),
        ("standardize", (50, 4, 2, 5, 6), (0, 1, 3, 4)),
        ("standardize_features", (50, 4, 2, 5, 6), (0, 1)),
    ],
)
def test_sequences_and_clips_are_scaled_by_feature_or_channel_over_all_times(
    preprocessing, shape, axes
):
    x = np.random.default_rng(0).normal(3, 2, shape) * np.arange(1, shape[-1] + 1)
    y = np.arange(50) % 2
    made = prepare((x, y, x[:9], y[:9]), preprocessing=preprocessing, val_size=0)
    mean, std = x.mean(axes, keepdims=True), x.std(axes, keepdims=True)
    np.testing.assert_allclose(made.train_x.numpy(), (x - mean) / std, rtol=1e-5, atol=1e-6)


def test_bytes_of_clips_are_scaled_to_one():
    clips = torch.randint(0, 200, (9, 2, 1, 4, 4), dtype=torch.uint8)
    made = prepare((clips, torch.arange(9) % 2) * 2, preprocessing="scale", val_size=0)
    torch.testing.assert_close(made.train_x, clips.float() / 255)

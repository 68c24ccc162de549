"""Lines, clips and pairs of labels that are composed of the bundled digits.

Training examples hold training images, and test examples test images. Seeds are fixed, so that the
bytes are the same everywhere.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from optbench.common.errors import UserError
from optbench.datasets.loaders import mnist_5k
from optbench.datasets.raw import Described
from optbench.tasks import LabelSequences
from optbench.tasks.edit_distance import PADDING

DIGIT = 28  # pixels of a side of MNIST's images
STEPS = (15, 24)  # pixels from one digit of a line to the next, so that they overlap or have gaps
MARGIN = 8  # the most pixels before the first digit
# right, down right, down, ...: (down, right) pixels in a frame
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def digit_lines(
    train: int = 2000, test: int = 500, shortest: int = 3, longest: int = 6
) -> Described:
    """Return images of lines of digits, and the digits of each line in order.

    The images are 28 pixels high. A line has `shortest` to `longest` digits, and black behind the
    last. The label of a digit is the digit plus 1, since 0 is CTC's blank. The places behind the
    last label hold -1.
    """
    if not 0 < shortest <= longest:
        raise UserError(
            f"dataset.shortest and dataset.longest are the fewest and the most digits of a line, "
            f"at least 1, not {shortest!r} and {longest!r}"
        )
    raw = mnist_5k()
    sources = ((raw.train_x, raw.train_y, train), (raw.test_x, raw.test_y, test))
    arrays: list[Tensor] = []
    for seed, (images, digits, count) in enumerate(sources):
        arrays += _lines(images[:, 0], digits, count, (shortest, longest), seed)
    return Described(arrays, LabelSequences(11))


def _lines(
    images: Tensor, digits: Tensor, count: int, lengths: tuple[int, int], seed: int
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shortest, longest = lengths
    number = torch.randint(shortest, longest + 1, (count,), generator=generator)
    chosen = torch.randint(len(images), (count, longest), generator=generator)
    steps = torch.randint(STEPS[0], STEPS[1] + 1, (count, longest), generator=generator)
    steps[:, 0] = torch.randint(MARGIN + 1, (count,), generator=generator)
    left = steps.cumsum(dim=1)
    lines = torch.zeros(count, DIGIT, MARGIN + STEPS[1] * (longest - 1) + DIGIT, dtype=torch.uint8)
    pixels = torch.arange(DIGIT)
    for place in range(longest):
        there = (number > place).nonzero()  # (lines, 1)
        columns = left[there[:, 0], place, None] + pixels
        at = there[:, :, None], pixels[:, None], columns[:, None]
        lines[at] = torch.maximum(lines[at], images[chosen[there[:, 0], place]])
    labels = digits[chosen].long() + 1
    labels[torch.arange(longest) >= number[:, None]] = PADDING
    return lines[:, None], labels


def moving_digits(
    train: int = 1000, test: int = 300, frames: int = 8, size: int = 32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return clips of a moving digit; the label is the digit's direction.

    The clips have the shape (n, frames, 1, size, size). A digit of 14 x 14 pixels moves one or two
    pixels in a frame, in one of eight directions (right, down right, down, ...). The digit leaves
    the frame at one side and comes back at the other, so that no single frame tells the direction.
    """
    if frames < 2 or size < DIGIT // 2:
        raise UserError(
            f"dataset.frames must be at least 2 and dataset.size at least {DIGIT // 2}, not "
            f"{frames!r} and {size!r}"
        )
    raw = mnist_5k()
    train_x, train_y = _clips(raw.train_x, train, frames, size, seed=0)
    test_x, test_y = _clips(raw.test_x, test, frames, size, seed=1)
    return train_x, train_y, test_x, test_y


def _clips(images: Tensor, count: int, frames: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(images), (count,), generator=generator)
    small = F.avg_pool2d(images[chosen].float(), 2).to(torch.uint8)[:, 0]
    canvas = torch.zeros(count, size, size, dtype=torch.uint8)
    canvas[:, : DIGIT // 2, : DIGIT // 2] = small
    labels = torch.arange(count) % len(DIRECTIONS)
    speed = torch.randint(1, 3, (count, 1), generator=generator)
    start = torch.randint(size, (count, 2), generator=generator)
    moved = torch.tensor(DIRECTIONS)[labels] * speed
    clips = torch.empty(count, frames, 1, size, size, dtype=torch.uint8)
    examples, pixels = torch.arange(count)[:, None, None], torch.arange(size)
    for frame in range(frames):
        down, right = (start + frame * moved).unbind(dim=1)
        rows, columns = ((pixels - shift[:, None]) % size for shift in (down, right))
        clips[:, frame, 0] = canvas[examples, rows[:, :, None], columns[:, None, :]]
    return clips, labels


def digit_and_parity() -> tuple[Any, ...]:
    """Return the images of `mnist_5k` with two labels: the digit, and its parity."""
    raw = mnist_5k()
    train, test = ({"digit": y, "parity": y % 2} for y in (raw.train_y, raw.test_y))
    return raw.train_x, train, raw.test_x, test

"""Scaling of the examples, with statistics of the training part only.

All statistics are computed in float64, since float32 sums over millions of pixels lose digits, and
those of uint8 by exact sums. The examples are converted in chunks, so that no float64 copy of the
whole data is held.
"""

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.datasets.image_files.streamed import StreamedImages, integer_sums

PREPROCESSING = ("none", "scale", "binarize", "standardize", "standardize_features")
BUT_CHANNELS = {4: [0, 2, 3], 5: [0, 1, 3, 4]}  # of images and of clips, by their dimensions

# Up to this size torch uses one thread. Larger chunks save 0.2 s for MNIST on idle cores, but cost
# seconds beside other jobs, where each operation waits for its second thread.
_CHUNK_ELEMENTS = 2**15


def shift_and_scale(train_x: Tensor, preprocessing: str) -> tuple[Tensor, Tensor]:
    """Return shift and scale in float64, for `affine`; both broadcast to the examples."""
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    if preprocessing == "none":
        return zero, one
    if preprocessing in ("scale", "binarize"):
        if train_x.dtype == torch.uint8 and train_x.ndim in (4, 5):
            return zero, 255 * one
        dims = [0] if train_x.ndim == 2 else list(range(train_x.ndim))
        low, high = _extremes(train_x, dims)
        return low, torch.where(high > low, high - low, one)
    if preprocessing == "standardize_features":  # of sequences and clips over all times
        dims = [0, 1] if train_x.ndim in (3, 5) else [0]
    else:  # images and clips by channel, so grey ones by one scalar
        dims = BUT_CHANNELS.get(train_x.ndim, list(range(train_x.ndim)))
    if train_x.dtype == torch.uint8:
        return _of_integers(train_x, dims)
    low, high = _extremes(train_x, dims)
    count = train_x.numel() // low.numel()
    mean = sum((c.sum(dims, keepdim=True) for c in _chunks(train_x)), zero)[0] / count
    squares = ((c - mean).square_().sum(dims, keepdim=True) for c in _chunks(train_x))
    std = (sum(squares, zero)[0] / count).sqrt()
    # rounding can hide a std of 0, so the extremes tell; a std of 0 by underflow counts as well
    constant = (low == high) | (std == 0)
    return torch.where(constant, low, mean), torch.where(constant, one, std)


def _of_integers(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Return the mean and std of uint8 examples from exact sums.

    So the order of the examples changes nothing.
    """
    if isinstance(x, StreamedImages):
        sums, squares = x.integer_sums(dims)
    else:
        sums, squares = integer_sums(x.split(_chunk_size(x)), dims)
    n = x.numel() // sums.numel()
    # Python's integers do not overflow
    pairs = zip(sums.flatten().tolist(), squares.flatten().tolist(), strict=True)
    std = [math.sqrt(n * square - total * total) / n for total, square in pairs]
    scale = torch.tensor(std, dtype=torch.float64).view(sums.shape)
    return sums.to(torch.float64) / n, torch.where(scale == 0, 1.0, scale)


def _extremes(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
    return low[0].to(torch.float64), high[0].to(torch.float64)


def _chunks(x: Tensor) -> Iterator[Tensor]:
    """Yield the examples in float64, some at a time."""
    return (chunk.to(torch.float64) for chunk in x.split(_chunk_size(x)))


def _chunk_size(x: Tensor) -> int:
    return max(1, _CHUNK_ELEMENTS // math.prod(x.shape[1:]))


def affine(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return (x - shift) / scale in float32; images in files stay there."""
    if isinstance(x, StreamedImages):
        return cast(Tensor, x.scaled(shift, scale))
    out = torch.empty(x.shape, dtype=torch.float32)
    start = 0
    for chunk in _chunks(x):
        out[start : start + len(chunk)] = (chunk - shift).div_(scale)
        start += len(chunk)
    return out


def binarized(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return 1 where (x - shift) / scale is above one half, else 0, as `affine` does."""
    if isinstance(x, StreamedImages):
        raise UserError(
            "preprocessing=binarize is for data in memory: raise dataset.in_memory_mb, or use scale"
        )
    return affine(x, shift, scale).gt_(0.5)


def shifted(x: Tensor, train_x: Tensor, shift: float) -> Tensor:
    """Return examples moved by `shift` standard deviations of the training part.

    Each feature has its own deviation, and of images each channel. Constant features stay as they
    are.
    """
    kind = "standardize" if train_x.ndim == 4 else "standardize_features"
    _, std = shift_and_scale(train_x, kind)
    dims = [0, 2, 3] if train_x.ndim == 4 else [0]
    varies = train_x.amax(dims, keepdim=True) > train_x.amin(dims, keepdim=True)
    return x + (shift * std * varies[0]).to(x.dtype)

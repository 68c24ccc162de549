"""Folders of small images, written from MNIST's."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from optbench import datasets


def write_digits(folder: Path, train: int = 40, test: int = 20, classes: int = 3) -> Path:
    """Write images of the first classes of MNIST into folder/train and folder/test."""
    raw = datasets.mnist_5k()
    for part, count, x, y in (
        ("train", train, raw.train_x, raw.train_y),
        ("test", test, raw.test_x, raw.test_y),
    ):
        chosen = (y < classes).nonzero().flatten()[:count].tolist()
        for i in chosen:
            write(folder / part / f"digit{int(y[i])}" / f"{i:04d}.png", x[i, 0].numpy())
    return folder


def write(path: Path, pixels: np.ndarray | None = None, shape: tuple[int, ...] = (6, 5)) -> Path:
    """Write an image: these pixels, or random ones of a shape that the path's name draws."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        seed = zlib.crc32(path.name.encode())
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path

"""Image files as uint8 arrays, read one by one, or ahead by worker processes.

Every problem is a `UserError` with the file's path.
"""

import atexit
import hashlib
import io
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset

from optbench.common.errors import UserError
from optbench.datasets.files import damaged, read_bytes

GREY_MODES = ("1", "L", "LA", "La")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
CHANNELS = {"grey": 1, "rgb": 3}
MODES = {1: "L", 3: "RGB"}  # Pillow's, by channels
BATCHES_AHEAD = 2  # that each worker process reads before they are asked for


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Files that hold images, and the form in which they are read.

    names: paths below `root`, with slashes. fit: images are cut and scaled to the size; without it
    a file of another size is an error. sums: of the pixels and of their squares, for each image and
    channel, (n, channels, 2) int64. workers: processes that read ahead; 0: none.
    """

    root: str
    names: Sequence[str]
    channels: int
    height: int
    width: int
    fit: bool = False
    sums: torch.Tensor | None = None
    workers: int = 0

    def path(self, place: int) -> Path:
        """Return the path of the file at a place."""
        return Path(self.root) / self.names[place]

    def pixels(self, places: Sequence[int]) -> np.ndarray:
        """Return the images at these places, (n, channels, height, width) in uint8."""
        return np.stack([self.decode(place, read_bytes(self.path(place))) for place in places])

    def scan(self, places: Sequence[int]) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        """Return the SHA-256 of each file, its pixels, and `sums` of them."""
        contents = [read_bytes(self.path(place)) for place in places]
        pairs = zip(places, contents, strict=True)
        pixels = np.stack([self.decode(place, content) for place, content in pairs])
        flat = pixels.reshape(len(places), self.channels, -1).astype(np.int64)
        sums = np.stack([flat.sum(axis=2), (flat * flat).sum(axis=2)], axis=2)
        return [hashlib.sha256(content).digest() for content in contents], pixels, sums

    def summary(self, places: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Return `scan` without the pixels."""
        digests, _, sums = self.scan(places)
        return digests, sums

    def decode(self, place: int, content: bytes) -> np.ndarray:
        """Return a file's image, (channels, height, width) in uint8."""
        path, size = self.path(place), (self.width, self.height)
        with _blamed(path), Image.open(io.BytesIO(content)) as opened:
            image = opened.convert(MODES[self.channels])
        if self.fit:
            image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        if image.size != size:
            raise UserError(
                f"{path} has {image.width}x{image.height} pixels (width x height) now, and had "
                f"{self.width}x{self.height} at the start: the files must not change during a run."
            )
        pixels = np.asarray(image)
        return pixels[None] if self.channels == 1 else np.moveaxis(pixels, 2, 0)


def header(path: Path) -> tuple[str, int, int]:
    """Return an image file's mode, height and width, without decoding its pixels."""
    _check_readable(path)
    with _blamed(path), Image.open(path) as image:
        mode, (width, height) = image.mode, image.size
    if mode not in GREY_MODES + COLOUR_MODES:
        raise UserError(
            f"{path} has pixels of Pillow's mode {mode}, which 8 bits do not hold. Convert such "
            f"files to 8 bits, or read them in a dataset function of your own."
        )
    return mode, height, width


def _check_readable(path: Path) -> None:
    """Raise `UserError` for a file that is empty or cannot be opened."""
    try:
        with path.open("rb") as file:
            if file.read(1):
                return
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    raise damaged(path, "it is empty")


@contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Turn an error of Pillow's into a `UserError` that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, palettes and odd metadata
            yield
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        why = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            why = "no format that Pillow knows begins so"
        raise damaged(path, f"it does not decode as an image ({why})") from error


class _Reader(Dataset[Any]):
    """A function of places as a dataset, which gives errors of files as values.

    An error that is raised in a worker process arrives with the worker's traceback in its text.
    """

    def __init__(self, read: Callable[[Sequence[int]], Any]) -> None:
        self.read = read

    def __getitem__(self, places: Any) -> Any:
        try:
            return self.read(places)
        except UserError as error:
            return error


def read_ahead(
    read: Callable[[Sequence[int]], Any], batches: Sequence[Sequence[int]], workers: int
) -> Iterator[Any]:
    """Yield `read(batch)` of each batch in order; worker processes read ahead.

    The results are arrays of NumPy, which travel through a pipe, so that a small /dev/shm is no
    limit. Raises `UserError` for a file that cannot be read.
    """
    if not workers or len(batches) < 2:
        yield from map(read, batches)
        return
    loader = DataLoader(
        _Reader(read),
        batch_size=None,
        sampler=batches,
        num_workers=min(workers, len(batches)),
        collate_fn=_as_it_is,
        worker_init_fn=_begin,
        prefetch_factor=BATCHES_AHEAD,
        # A fork copies the whole state of Pillow and NumPy, which is all that these workers use. By
        # the method of a sweep's workers, each would import torch again, which takes seconds.
        multiprocessing_context="fork" if sys.platform == "linux" else None,
        generator=torch.Generator(),  # else the loader would draw from the run's global generator
    )
    others = set(active_children())
    reading = iter(loader)
    processes = [process for process in active_children() if process not in others]
    _reading.update(processes)
    try:
        for found in reading:
            if isinstance(found, UserError):
                raise found
            yield found
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a process that reads images ended ({' '.join(str(error).split())}); memory may be "
            f"short: lower dataset.workers (0: none), or batch_size"
        ) from error
    finally:  # also of a run that was stopped within an epoch
        _end(processes)


_reading: "WeakSet[BaseProcess]" = WeakSet()  # the processes that read ahead


@atexit.register  # before multiprocessing's own, which would wait for them for ever
def _end_all() -> None:
    with suppress(AssertionError):  # in a copy of the process, whose children these are not
        _end(_reading)


def _end(processes: Iterable[BaseProcess]) -> None:
    """Kill processes that still read ahead: they ignore other signals, and have nothing to save."""
    left = [process for process in processes if process.is_alive()]
    if not left:
        return
    in_main = current_thread() is main_thread() and hasattr(signal, "SIGCHLD")
    # torch's handler would raise an error for a worker that was killed
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main else None
    for process in left:
        process.kill()
        process.join()
    if in_main:
        signal.signal(signal.SIGCHLD, before)


def _as_it_is(found: Any) -> Any:
    return found


def _begin(number: int) -> None:
    """Ignore the signals that go to all processes; the run decides when to stop."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

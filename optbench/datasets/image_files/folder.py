"""A folder of images with a folder for each class, as torchvision lists it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from optbench.common.errors import UserError, check_choice
from optbench.common.files import expanded
from optbench.common.names import did_you_mean
from optbench.datasets.image_files.class_folders import LAYOUT, find_parts, split
from optbench.datasets.image_files.decoding import (
    CHANNELS,
    GREY_MODES,
    ImageFiles,
    header,
    read_ahead,
)
from optbench.datasets.image_files.streamed import StreamedImages
from optbench.datasets.raw import Described
from optbench.tasks import Classes

SCANNED_TOGETHER = 64  # images
MIN_FILES_FOR_WORKERS = 2000  # with fewer, the start of processes costs more than it saves


def image_folder(
    path: str | None,
    size: int | Sequence[int] | None = None,
    colors: str | None = None,
    test_size: float = 0.2,
    split_seed: int = 0,
    in_memory_mb: float = 1000,
    workers: int = 2,
) -> Described:
    """Return the images of a folder, with a class for each of its sub-folders.

    path: holds train/ and test/ (and val/), each with class folders; or class folders alone, of
    which a share `test_size` of each class, drawn by `split_seed`, is the test part.
    size: side of the images in pixels, or [height, width]. Each image is scaled, and cut about its
    centre, to this size. None: all files must have one size. colors: "grey" or "rgb"; None: grey if
    all files are grey.
    in_memory_mb: images that take more, in float32, stay in their files, and `workers` processes
    read them batch by batch. The batches are the same, bit for bit.

    Raises `UserError` for a folder without images, one class alone, mixed sizes or broken files.
    """
    _check_settings(test_size, in_memory_mb, workers)
    root = _folder(path)
    parts, classes = find_parts(root)
    if "test" not in parts:
        parts["train"], parts["test"] = split(parts["train"], classes, test_size, split_seed)
    order = [name for name in ("train", "test", "val") if name in parts]
    names = [name for part in order for name in parts[part].names]
    files = _files(root, names, size, colors, workers)
    pixels = files.channels * files.height * files.width
    fits = len(names) * pixels * 4 <= in_memory_mb * 1e6
    digest, images = _scanned(files, keep=fits)
    arrays: list[Any] = []
    start = 0
    for part in order:
        end = start + len(parts[part].names)
        arrays += [images[start:end], torch.tensor(parts[part].labels)]
        start = end
    return Described(arrays, Classes(len(classes)), digest)


def _folder(path: str | None) -> Path:
    """Return the folder of `data.path`. Raise `UserError` for what is none."""
    if not isinstance(path, str) or not path.strip():
        raise UserError(
            f"dataset=image_folder needs the folder of the images, as data.path=FOLDER, not "
            f"{path!r}. The folder holds {LAYOUT}"
        )
    root = Path(expanded(path)).absolute()
    if root.is_file():
        raise UserError(f"data.path={path} is a file, and a folder is needed that holds {LAYOUT}")
    if not root.is_dir():
        near = did_you_mean(root.name, [one.name for one in root.parent.glob("*/")])
        raise UserError(f"data.path={path}: there is no such folder{near}")
    return root


def _files(root: Path, names: list[str], size: Any, colors: str | None, workers: int) -> ImageFiles:
    """Return the files with one size and number of channels, by their headers."""
    if colors is not None:
        check_choice("dataset.colors", colors, CHANNELS)
    heads = [header(root / name) for name in names]
    if colors is None:
        colors = "grey" if all(mode in GREY_MODES for mode, *_ in heads) else "rgb"
    shape = _size(size)
    if shape is None:
        shape = heads[0][1:]
        for name, (_, *other) in zip(names, heads, strict=True):
            if tuple(other) != shape:
                raise UserError(
                    f"the images have different sizes: {root / names[0]} has "
                    f"{shape[1]}x{shape[0]} pixels (width x height), {root / name} "
                    f"{other[1]}x{other[0]}. dataset.size=32, for example, scales and cuts each to "
                    f"32x32"
                )
    fit = size is not None
    return ImageFiles(str(root), names, CHANNELS[colors], *shape, fit=fit, workers=workers)


def _scanned(files: ImageFiles, *, keep: bool) -> tuple[str, Any]:
    """Return the digest of all files, and their images.

    keep: return a tensor; False: the images stay in their files.
    """
    n = len(files.names)
    places = [list(range(i, min(i + SCANNED_TOGETHER, n))) for i in range(0, n, SCANNED_TOGETHER)]
    workers = files.workers if n >= MIN_FILES_FOR_WORKERS else 0
    contents: dict[str, bytes] = {}
    shape = (files.channels, files.height, files.width)
    pixels = torch.empty((n if keep else 0, *shape), dtype=torch.uint8)
    sums = torch.empty((n, files.channels, 2), dtype=torch.int64)
    read = files.scan if keep else files.summary
    for batch, found in zip(places, read_ahead(read, places, workers), strict=True):
        contents |= {files.names[i]: sha for i, sha in zip(batch, found[0], strict=True)}
        if keep:
            pixels[batch] = torch.from_numpy(found[1])
        sums[batch] = torch.from_numpy(found[-1])
    whole = hashlib.sha256()
    for name in sorted(contents):  # the digest must not depend on the split
        whole.update(f"{name}\n".encode("utf-8", "surrogateescape") + contents[name])
    digest = whole.hexdigest()[:16]
    if keep:
        return digest, pixels
    files = ImageFiles(**(vars(files) | {"sums": sums}))
    return digest, StreamedImages(files, torch.arange(n))


def _size(size: Any) -> tuple[int, int] | None:
    """Return height and width in pixels, or None."""
    if size is None:
        return None
    pair = [size, size] if isinstance(size, int) else list(size) if _is_list(size) else []
    if len(pair) != 2 or any(type(side) is not int or not 1 <= side <= 10_000 for side in pair):
        raise UserError(
            f"dataset.size must be a number of pixels, [height, width], or null for images of one "
            f"size, not {size!r}"
        )
    return pair[0], pair[1]


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _check_settings(test_size: Any, in_memory_mb: Any, workers: Any) -> None:
    if not isinstance(test_size, float) or not 0 < test_size < 1:
        raise UserError(f"dataset.test_size must be a share above 0 and below 1, not {test_size!r}")
    if isinstance(in_memory_mb, bool) or not isinstance(in_memory_mb, int | float):
        raise UserError(f"dataset.in_memory_mb must be a number of megabytes, not {in_memory_mb!r}")
    if type(workers) is not int or not 0 <= workers <= 64:
        raise UserError(
            f"dataset.workers must be a whole number of processes from 0 to 64, not {workers!r}"
        )

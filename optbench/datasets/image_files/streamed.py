"""Images that stay in their files, with the tensor operations that training needs."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from optbench.datasets.image_files.decoding import ImageFiles, read_ahead

SPLIT_IMAGES = 64  # read together for statistics


@dataclass(eq=False)
class StreamedImages:
    """Images (n, channels, height, width) that are decoded when a batch is asked for.

    Slices are views; batches are tensors, equal bit for bit to those of images in memory. rows: the
    places of the images in `files`. shift, scale: None for the raw uint8 values.
    """

    files: ImageFiles
    rows: Tensor
    shift: Tensor | None = None
    scale: Tensor | None = None
    dtype: torch.dtype = torch.uint8
    device: torch.device | str = "cpu"
    _coming: "deque[Tensor]" = field(default_factory=deque, repr=False)
    _ahead: Iterator[Any] | None = field(default=None, repr=False)
    _last: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    @property
    def shape(self) -> torch.Size:
        """The shape that a tensor of the images would have."""
        return torch.Size((len(self), self.files.channels, self.files.height, self.files.width))

    @property
    def ndim(self) -> int:
        """The number of dimensions, 4."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def numel(self) -> int:
        """Return the number of values."""
        return self.shape.numel()

    def is_floating_point(self) -> bool:
        """Return whether batches are of real numbers."""
        return self.dtype.is_floating_point

    def __getitem__(self, chosen: slice | Tensor) -> "StreamedImages":
        return self._with(rows=self.rows[chosen])

    def to(self, device: torch.device | str) -> "StreamedImages":
        """Return the same images, with batches on another device."""
        return self._with(device=device)

    def double(self) -> "StreamedImages":
        """Return the same images, with batches in float64 that hold float32 values."""
        return self._with(dtype=torch.float64)

    def scaled(self, shift: Tensor, scale: Tensor) -> "StreamedImages":
        """Return the same images, with batches of (x - shift) / scale in float32."""
        return self._with(shift=shift, scale=scale, dtype=torch.float32)

    def load(self) -> Tensor:
        """Return all images as a tensor."""
        if not len(self):
            return torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        return torch.cat(list(self.split(len(self))))

    def cpu(self) -> Tensor:
        """Return all images as a tensor on the CPU."""
        return self.load().cpu()

    def split(self, size: int | Sequence[int]) -> Iterator[Tensor]:
        """Yield batches of `size` images in order, read ahead; or batches of these sizes."""
        if isinstance(size, int):
            whole, rest = divmod(len(self), size)
            size = [size] * whole + [rest] * bool(rest)
        ends = [0, *accumulate(size)]
        batches = [self.rows[start:end].tolist() for start, end in pairwise(ends)]
        return map(self._finished, read_ahead(self.files.pixels, batches, self.files.workers))

    def expect(self, batches: Sequence[Tensor]) -> None:
        """Read the images of these batches ahead.

        `index_select` must then be called with the same tensors, in order.
        """
        self._coming = deque(batches)
        places = [self._places(batch) for batch in batches]
        self._ahead = read_ahead(self.files.pixels, places, self.files.workers)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the images at these indices as a tensor. dim: 0."""
        if self._last is not None and index is self._last[0]:  # the targets of an autoencoder
            return self._last[1]
        if self._ahead is not None and self._coming and index is self._coming[0]:
            self._coming.popleft()
            pixels = next(self._ahead)
            if not self._coming:
                self._ahead = None  # ends the processes that read ahead
        else:
            pixels = self.files.pixels(self._places(index))
        self._last = index, self._finished(pixels)
        return self._last[1]

    def integer_sums(self, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the sums of raw values and of their squares over `dims`.

        The results have no dimension 0.
        """
        if list(dims) == [0, 2, 3] and self.files.sums is not None:
            sums = self.files.sums[self.rows].sum(dim=0)  # (channels, 2)
            return sums[:, 0, None, None], sums[:, 1, None, None]
        return integer_sums(self._with(shift=None, dtype=torch.uint8).split(SPLIT_IMAGES), dims)

    def to_plain(self) -> dict[str, Any]:
        """Return tensors and plain values, for `from_plain` in another process."""
        files = {name: getattr(self.files, name) for name in self.files.__dataclass_fields__}
        return {"files": files, "rows": self.rows, "shift": self.shift, "scale": self.scale}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "StreamedImages":
        """Return the images of `to_plain`, which were scaled."""
        files = ImageFiles(**plain["files"])
        return cls(files, plain["rows"]).scaled(plain["shift"], plain["scale"])

    def _with(self, **changes: Any) -> "StreamedImages":
        return replace(self, _coming=deque(), _ahead=None, _last=None, **changes)

    def _places(self, index: Tensor) -> list[int]:
        places: list[int] = self.rows[index.cpu()].tolist()
        return places

    def _finished(self, pixels: Any) -> Tensor:
        x = torch.from_numpy(pixels)
        if self.shift is not None and self.scale is not None:
            # as `preprocessing.affine`
            x = (x.to(torch.float64) - self.shift).div_(self.scale).to(torch.float32)
        return x.to(self.device, self.dtype)


def tensor_of(x: Tensor) -> Tensor:
    """Return examples as a tensor, also those that lie in files."""
    return x.load() if isinstance(x, StreamedImages) else x


def integer_sums(chunks: Iterable[Tensor], dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the exact sums of integers and of their squares over `dims`.

    The results have no dimension 0.

    chunks: of the examples, along dimension 0, which is one of `dims`.
    """
    total = partial(torch.sum, dim=list(dims), keepdim=True)
    first: Tensor | None = None
    for chunk in chunks:
        x = chunk.to(torch.int64)
        sums = torch.stack([total(x)[0], total(x * x)[0]])
        first = sums if first is None else first + sums
    assert first is not None
    return first[0], first[1]

"""Augment images on the training's device, from a random stream of its own."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from optbench.common.errors import UserError
from optbench.problem import Problem
from optbench.streams import stream
from optbench.training.recipes.checks import is_count


@dataclass(frozen=True)
class Augmentation:
    """How the images of each batch are changed; the defaults leave them as they are.

    crop: pad an image with so many pixels of zeros, then cut out a random window of its old size.
    flip: mirror half of the images left to right. cutout: the side in pixels of a square of zeros
    with a random centre, of which parts may lie outside (DeVries & Taylor 2017). Zeros are those of
    the preprocessed images.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for key in ("crop", "cutout"):
            if not is_count(getattr(self, key), 0):
                raise UserError(
                    f"augment.{key} must be a whole number of pixels, 0 for none, not "
                    f"{getattr(self, key)!r}"
                )
        if not isinstance(self.flip, bool):
            raise UserError(f"augment.flip must be true or false, not {self.flip!r}")

    def __bool__(self) -> bool:
        return bool(self.crop or self.flip or self.cutout)

    def check(self, problem: Problem) -> None:
        """Raise `UserError` where the examples are no images."""
        if not self:
            return
        shape = problem.dataset.input_shape
        if isinstance(shape, dict) or len(shape) != 3:
            raise UserError(
                f"augment is for images (channels, height, width), and the examples have the shape "
                f"{shape}: leave augment out, or choose a dataset of images"
            )
        if problem.dataset.train_y.shape[1:] == problem.dataset.train_x.shape[1:]:
            raise UserError(
                "augment would change the inputs and not the targets of data.targets=inputs: "
                "leave one of the two out"
            )
        side = min(shape[1:])
        for key in ("crop", "cutout"):
            if getattr(self, key) > side:
                raise UserError(
                    f"augment.{key} must be at most the images' side of {side} pixels, not "
                    f"{getattr(self, key)}"
                )


class Augmenter:
    """The augmentation of one training, whose stream only the seed sets.

    All optimizers of a seed see the same augmented batches, and dropout's masks stay the same.
    """

    def __init__(self, settings: Augmentation, seed: int, device: torch.device) -> None:
        self.settings = settings
        self.generator = stream(seed, "augmentation", device)

    def __call__(self, x: Tensor) -> Tensor:
        """Return a batch of augmented images, (n, channels, height, width).

        Each image always draws five numbers, so that switching flips on, for example, does not
        change the crops.
        """
        draws = torch.rand(5, len(x), generator=self.generator, device=x.device)
        n, _, height, width = x.shape
        rows, columns = (
            torch.arange(side, device=x.device).expand(n, side) for side in (height, width)
        )
        if self.settings.flip:
            columns = torch.where((draws[0] < 0.5)[:, None], columns.flip(1), columns)
        if pad := self.settings.crop:
            x = F.pad(x, (pad, pad, pad, pad))
            rows, columns = (
                places + _whole(draw, 2 * pad + 1)[:, None]
                for places, draw in ((rows, draws[1]), (columns, draws[2]))
            )
        if pad or self.settings.flip:
            examples = torch.arange(n, device=x.device)[:, None, None]
            x = x[examples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if side := self.settings.cutout:
            down = _outside(_whole(draws[3], height), side, height)
            across = _outside(_whole(draws[4], width), side, width)
            x = x * (down[:, None, :, None] | across[:, None, None, :]).to(x.dtype)
        return x.contiguous()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stream."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of the stream."""
        self.generator.set_state(state["generator"])


def _whole(draw: Tensor, count: int) -> Tensor:
    """Return whole numbers from 0 to count - 1, from uniform numbers in [0, 1)."""
    return (draw * count).long().clamp_(max=count - 1)


def _outside(centres: Tensor, side: int, length: int) -> Tensor:
    """Return which places lie outside of the windows around the centres, (n, length)."""
    first = centres - side // 2
    places = torch.arange(length, device=centres.device)
    return (places < first[:, None]) | (places >= (first + side)[:, None])

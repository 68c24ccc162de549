"""Pictures with a palette, which have a third of the size."""

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = 256  # of a palette, at most


def save_small(picture: Path, out: Path) -> None:
    """Write a picture with its most frequent colours, which stay exact; others take the nearest.

    A line keeps the colour of its optimizer. Shades at its edges are the ones that change.
    """
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    colors, place, counts = np.unique(
        pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True
    )
    kept = colors[np.argsort(-counts, kind="stable")[:COLORS]]
    gaps = colors[:, None].astype(int) - kept  # (colours, kept, 3)
    nearest = (gaps**2).sum(axis=2).argmin(axis=1).astype(np.uint8)
    small = Image.fromarray(nearest[place.ravel()].reshape(pixels.shape[:2]))
    small.putpalette(kept.ravel().tolist())
    small.save(out, optimize=True)

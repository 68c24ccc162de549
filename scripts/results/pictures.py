"""Pictures with a palette, which have a third of the size."""

from pathlib import Path
from typing import Any

from PIL import Image

COLORS = 256  # of a palette, at most


def save_small(picture: Path, out: Path) -> None:
    """Write a picture with its most frequent colours, which stay exact; others take the nearest.

    A line keeps the colour of its optimizer. Shades at its edges are the ones that change.
    """
    image = Image.open(picture).convert("RGB")
    counts: list[Any] = image.getcolors(image.width * image.height) or []
    frequent = [color for _, color in sorted(counts, reverse=True)[:COLORS]]
    palette = Image.new("P", (1, 1))
    flat = [part for color in frequent for part in color]
    palette.putpalette(flat + flat[:3] * (COLORS - len(frequent)))
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(out, optimize=True)

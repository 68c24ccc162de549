"""Committed pictures: small, and with the colours of the figures."""

import numpy as np
from PIL import Image

from scripts.results.pictures import COLORS, save_small


def test_frequent_colours_stay_exact_and_others_take_the_nearest(tmp_path):
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[10:20] = (230, 159, 0)  # momentum's
    pixels[20:30] = (213, 94, 0)  # adam's
    shades = np.random.default_rng(0).integers(0, 256, (600, 3))
    pixels[40:].reshape(-1, 3)[:600] = shades
    Image.fromarray(pixels).save(tmp_path / "a.png")
    save_small(tmp_path / "a.png", tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as small:
        assert small.mode == "P"
        found = np.asarray(small.convert("RGB"))
    assert len(np.unique(found.reshape(-1, 3), axis=0)) <= COLORS
    assert (found[:30] == pixels[:30]).all()
    assert np.abs(found.astype(int) - pixels).max() < 150

"""What a figure shows in words, from the caption beside it: the text alternative on pages."""

import re
from pathlib import Path


def words_of(picture: Path, otherwise: str) -> str:
    """Return the caption of a picture without its warnings, or other words if it has none."""
    caption = picture.with_suffix(".txt")
    if not caption.exists():
        return otherwise
    lines = caption.read_text("utf-8").splitlines()
    text = " ".join(line for line in lines if not line.startswith("Warning: "))
    return re.sub(r"[][$]", "", text)

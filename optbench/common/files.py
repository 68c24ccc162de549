"""Text files and paths: read strictly, replaced as a whole."""

import os
import stat
from contextlib import suppress
from pathlib import Path


def expanded(path: str) -> str:
    """Return a path with its `~`, `~USER` and `$NAME` as a shell would read them.

    A shell itself leaves those of KEY=~/x alone, and nobody reads those of a variable's value.
    """
    return os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111


def read_text(path: Path) -> str:
    """A text file in UTF-8. Raises OSError, or ValueError for what is none."""
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise ValueError("is no ordinary file")  # a pipe would be waited for
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte-order mark: another program has saved it anew")
    return text


def replace_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 as `replace_bytes` does."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, data: bytes) -> None:
    """Write a file as a whole: a reader sees the old one or the new one, never half of it.

    A link in its place is replaced, and not followed: the folder may come from others.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power failure may leave the new name and no text
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise

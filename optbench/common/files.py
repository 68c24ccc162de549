"""Read text files strictly, and replace them as a whole."""

import os
import stat
from contextlib import suppress
from pathlib import Path


def expanded(path: str) -> str:
    """Return a path with `~`, `~USER` and `$NAME` expanded as a shell does.

    A shell itself expands neither the `~` in KEY=~/x nor a variable's value.
    """
    return os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111


def read_text(path: Path) -> str:
    """Return the content of a text file. Raises OSError, and ValueError if not UTF-8."""
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise ValueError("is no ordinary file")  # reading a pipe may never end
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
    """Write a file as a whole: a reader sees the old or the new file, never a part.

    A link in its place is replaced, not followed: the folder may come from others.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave an empty file
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise

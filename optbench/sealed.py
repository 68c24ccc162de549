"""JSON files that carry a digest of their own content: a flipped digit is noticed, not believed.

Nothing secret is in it: it tells what was damaged or changed by hand, not who did it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"  # the key; a file without it (of an older version, or by hand) is taken as it is


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its seal, as a whole. Raises OSError, and ValueError for a NaN."""
    sealed = {**content, SEAL: _digest(content)}
    replace_text(path, json.dumps(sealed, indent=1, allow_nan=False) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """The object, less its seal.

    Raises OSError or ValueError, the latter with the end of a sentence that begins with the file's
    name.
    """
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError("is not a JSON object")
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _digest(content):
        raise ValueError(
            f"was changed after it was written: its content has not the digest that it names. "
            f"Get the file back; if the change was meant, remove its {SEAL!r}"
        )
    return content


def _digest(content: Mapping[str, Any]) -> str:
    # by way of JSON, for what it does not keep apart, such as tuples and lists
    plain = json.loads(json.dumps(content))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_text(path: Path) -> str:
    """The text of a file. Raises OSError, and ValueError where it is no UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def replace_text(path: Path, text: str) -> None:
    """Write a file as a whole: a reader sees the old one or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)

"""JSON objects with a checksum of their content, which reveals damage and edits.

The checksum holds no secret, so it does not tell who changed an object.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

CHECKSUM_KEY = "sha256"  # optional: older objects, and those written by hand, have none


def add_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object with its checksum, instead of any old one."""
    plain = {key: value for key, value in content.items() if key != CHECKSUM_KEY}
    return plain | {CHECKSUM_KEY: _digest(plain)}


def remove_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object without its checksum.

    Raises ValueError where the checksum is wrong. The message continues a sentence that begins with
    the file's name.
    """
    plain = {key: value for key, value in content.items() if key != CHECKSUM_KEY}
    last = [None, *content.values()][-1]  # the checksum stands last, even if its key is damaged
    has_one = CHECKSUM_KEY in content or re.fullmatch(r"[0-9a-f]{64}", str(last))
    if has_one and content.get(CHECKSUM_KEY) != _digest(plain):
        raise ValueError(
            "was changed after it was written: its content has not the digest that it names. "
            f"Get the file back; if the change was meant, remove its {CHECKSUM_KEY!r}"
        )
    return plain


def _digest(content: Mapping[str, Any]) -> str:
    # through JSON first, which makes equal what a file cannot tell apart, such as tuples and lists
    plain = json.loads(json.dumps(content))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

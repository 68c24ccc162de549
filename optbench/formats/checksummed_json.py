"""JSON objects that carry a digest of their own content: a flipped digit is noticed, not believed.

Nothing secret is in it: it tells what was damaged or changed by hand, not who did it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

CHECKSUM_KEY = "sha256"  # an object without it (an older one, or by hand) is taken as it is


def add_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object with its checksum, in the place of one that it may have."""
    plain = {key: value for key, value in content.items() if key != CHECKSUM_KEY}
    return plain | {CHECKSUM_KEY: _digest(plain)}


def remove_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object less its checksum.

    Raises ValueError, with the end of a sentence that begins with a file's name, where the checksum
    is that of another content.
    """
    plain = {key: value for key, value in content.items() if key != CHECKSUM_KEY}
    last = [None, *content.values()][-1]  # a checksum whose key is damaged is one, too
    has_one = CHECKSUM_KEY in content or re.fullmatch(r"[0-9a-f]{64}", str(last))
    if has_one and content.get(CHECKSUM_KEY) != _digest(plain):
        raise ValueError(
            "was changed after it was written: its content has not the digest that it names. "
            f"Get the file back; if the change was meant, remove its {CHECKSUM_KEY!r}"
        )
    return plain


def _digest(content: Mapping[str, Any]) -> str:
    # by way of JSON, for what it does not keep apart, such as tuples and lists
    plain = json.loads(json.dumps(content))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

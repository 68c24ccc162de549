"""JSON objects that carry a digest of their own content: a flipped digit is noticed, not believed.

Nothing secret is in it: it tells what was damaged or changed by hand, not who did it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"  # the key; an object without it (of an older version, or by hand) is taken as it is


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The object with its seal, in the place of one that it may have."""
    plain = {key: value for key, value in content.items() if key != SEAL}
    return plain | {SEAL: _digest(plain)}


def unseal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The object less its seal.

    Raises ValueError, with the end of a sentence that begins with a file's name, where the seal is
    that of another content.
    """
    plain = {key: value for key, value in content.items() if key != SEAL}
    last = [None, *content.values()][-1]  # a seal whose name is damaged is one, too
    sealed = SEAL in content or re.fullmatch(r"[0-9a-f]{64}", str(last))
    if sealed and content.get(SEAL) != _digest(plain):
        raise ValueError(
            "was changed after it was written: its content has not the digest that it names. "
            f"Get the file back; if the change was meant, remove its {SEAL!r}"
        )
    return plain


def _digest(content: Mapping[str, Any]) -> str:
    # by way of JSON, for what it does not keep apart, such as tuples and lists
    plain = json.loads(json.dumps(content))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

"""The kinds of damage that `fuzz_files` does to a file."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path


def cut(rng: random.Random, data: bytes) -> bytes:
    """Return a file's beginning: nothing, a few bytes, whole lines, or nearly all."""
    ends = [0, 1, 2, len(data) // 4, len(data) // 2, len(data) - 1, len(data) - 2]
    ends += [rng.randrange(len(data) + 1) for _ in range(5)]
    ends += [rng.choice([i + 1 for i, byte in enumerate(data) if byte == 10] or [0])] * 3
    return data[: max(0, rng.choice(ends))]


def flip(rng: random.Random, data: bytes) -> bytes:
    """Return the data with one to three bits flipped."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def digit(rng: random.Random, data: bytes) -> bytes:
    """Return the data with another digit, so that the file stays well-formed."""
    places = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    changed = bytearray(data)
    if places:
        place = rng.choice(places)
        changed[place] = rng.choice([d for d in range(48, 58) if d != changed[place]])
    return bytes(changed)


def lines(rng: random.Random, data: bytes) -> bytes:
    """Return the data with a line lost, doubled, or swapped with another."""
    parts = data.splitlines(keepends=True)
    a, b = rng.randrange(len(parts)), rng.randrange(len(parts))
    how = rng.randrange(3)
    if how == 0:
        del parts[a]
    elif how == 1:
        parts.insert(b, parts[a])
    else:
        parts[a], parts[b] = parts[b], parts[a]
    return b"".join(parts)


def encoding(rng: random.Random, data: bytes) -> bytes:
    """Return the text in another encoding, or with other line ends."""
    text = data.decode("latin-1")
    return rng.choice(
        [
            text.encode("utf-16"),
            text.encode("utf-8-sig"),
            text.encode("utf-32-le"),
            data.replace(b"\n", b"\r\n"),
            data.replace(b"\n", b"\r"),
            data.replace(b"e", b"\xe9", 1),
        ]
    )


def noise(rng: random.Random, data: bytes) -> bytes:
    """Return the data with a block of zeros or random bytes, as a crash leaves it."""
    start = rng.randrange(len(data))
    size = rng.randrange(1, len(data) - start + 1)
    block = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
    return data[:start] + block + data[start + size :]


def types(rng: random.Random, data: bytes) -> bytes:
    """Return a JSON file without checksum in which one value is another, well-formed."""
    try:
        content = json.loads(data)
    except ValueError:
        return noise(rng, data)
    if isinstance(content, dict):
        content.pop("sha256", None)
    node, key = content, None
    while isinstance(node, dict | list) and node:
        holder, key = node, rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = holder[key]
        if rng.random() < 0.3:
            break
    if key is None:
        return data
    if rng.random() < 0.3:
        del holder[key]
    else:
        holder[key] = rng.choice([None, True, 0, -1, 1.5, 1e300, "", "x", "../../x", [], {}, [[1]]])
    return json.dumps(content).encode()


BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "cut": cut,
    "bits flipped": flip,
    "digit changed": digit,
    "lines moved": lines,
    "encoding": encoding,
    "noise": noise,
    "other values": types,
}
PLACES = ("emptied", "folder", "gone", "swapped", "link to nothing", "link to itself")


class Damage:
    """A damaged file. Calling `undo` restores it."""

    def __init__(self, rng: random.Random, path: Path, others: list[Path], how: str) -> None:
        self.path, self.before = path, path.read_bytes()
        self.how = how
        if how in BYTES:
            self.after: bytes | None = BYTES[how](rng, self.before)
        elif how == "emptied":
            self.after = b""
        elif how == "swapped":
            self.after = rng.choice([p for p in others if p != path]).read_bytes()
        else:
            self.after = None
        self.undone = self.after == self.before
        path.unlink()
        if self.after is not None:
            path.write_bytes(self.after)
        elif how == "folder":
            path.mkdir()
        elif how == "link to nothing":
            path.symlink_to(path.parent / "nothing")
        elif how == "link to itself":
            path.symlink_to(path.name)

    def undo(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(self.before)

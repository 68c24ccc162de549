"""Make the bundled austen.tar.xz from Debian's package r-cran-janeaustenr.

    apt-get download r-cran-janeaustenr
    dpkg-deb -x r-cran-janeaustenr_*.deb FOLDER
    python -m scripts.results.make_austen FOLDER

The package has each novel as an R vector of lines. The lines are kept as they are; an editor's note
behind the end of Northanger Abbey, which is not Jane Austen's, is left out.
"""

import argparse
import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from optbench.datasets.text_files import BUNDLED_AUSTEN, NOVELS

DATA = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
EDITORS_NOTE = "\n\n\n\n\nA NOTE ON THE TEXT\n"
STRINGS, STRING = 16, 9  # types in R's serialization
FIRST_INTEGERS = 3  # version of the format, of the writer, and the least of a reader


def vectors(database: bytes) -> Iterator[list[str]]:
    """Yield the character vectors of an R lazy-load database, in the order of the file.

    Each is a big-endian length and a zlib stream of R's XDR serialization ("R Internals", 1.8).
    """
    place = 0
    while place < len(database):
        unpack = zlib.decompressobj()
        content = unpack.decompress(database[place + 4 :])
        place = len(database) - len(unpack.unused_data)
        yield strings(content)


def strings(content: bytes) -> list[str]:
    """Return the serialized character vector as texts."""
    if content[:2] != b"X\n":
        raise ValueError("this is no R object in XDR format")
    file = io.BytesIO(content[2:])

    def integer() -> int:
        return struct.unpack(">i", file.read(4))[0]

    version, *_ = [integer() for _ in range(FIRST_INTEGERS)]
    if version == 3:
        file.read(integer())  # the name of the encoding
    if integer() & 0xFF != STRINGS:
        raise ValueError("this is no character vector")
    found = []
    for _ in range(integer()):
        if integer() & 0xFF != STRING:
            raise ValueError("this is no character string")
        found.append(file.read(integer()).decode("utf-8"))
    return found


def archive(texts: dict[str, str]) -> bytes:
    """Return a .tar.xz with fixed times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name, text in texts.items():
            entry = tarfile.TarInfo(name)
            content = text.encode()
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the package was unpacked")
    parser.add_argument("--out", type=Path, default=BUNDLED_AUSTEN, help="where to (%(default)s)")
    options = parser.parse_args()
    texts: dict[str, str] = {}
    for lines in vectors((options.folder / DATA).read_bytes()):
        name = f"{lines[0].lower().replace(' ', '_')}.txt"  # the first line is the title
        texts[name] = "\n".join(lines).split(EDITORS_NOTE)[0].rstrip("\n") + "\n"
    content = archive({name: texts[name] for name in NOVELS})
    temporary = options.out.with_name(options.out.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(options.out)
    characters = sum(map(len, texts.values()))
    print(f"{options.out}: {len(content):,} bytes, {characters:,} characters")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

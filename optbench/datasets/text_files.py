"""Reading of texts: UTF-8 files of the user's, and the bundled novels."""

import io
import lzma
import tarfile
from pathlib import Path

from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.datasets.files import check_hash, damaged, read_bytes

BUNDLED_AUSTEN = Path(__file__).parent / "bundled" / "austen.tar.xz"
BUNDLED_AUSTEN_SHA256 = "8c111b807a7b48f7b93da21d83bfcf4a97681141dbfbd458b238127d21a79e8d"
NOVELS = (  # by the year of publication
    "sense_and_sensibility.txt", "pride_and_prejudice.txt", "mansfield_park.txt", "emma.txt",
    "northanger_abbey.txt", "persuasion.txt",
)  # fmt: skip


def read_novels() -> list[str]:
    """Return the texts of `NOVELS`. Raises `UserError` if the bundle is damaged."""
    try:
        content = read_bytes(BUNDLED_AUSTEN)
        check_hash(BUNDLED_AUSTEN, content, BUNDLED_AUSTEN_SHA256)
    except UserError as error:
        raise UserError(f"{error} It comes with optbench: reinstall the package.") from error
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            files = [archive.extractfile(name) for name in NOVELS]
            return [file.read().decode("utf-8") for file in files if file is not None]
    except (tarfile.TarError, KeyError, lzma.LZMAError) as error:
        raise damaged(BUNDLED_AUSTEN, f"it does not hold the novels ({error})") from error


def read_texts(path: str | None) -> str:
    """Return the text of a file, or of all files of a folder, one after another.

    Files are in the order of their paths; hidden ones are left out, as is a byte-order mark.
    """
    if not isinstance(path, str) or not path.strip():
        raise UserError(
            "dataset=text needs a text: data.path=FILE, of UTF-8, or data.path=FOLDER of such files"
        )
    place = Path(expanded(path))
    try:
        texts = [_read(file) for file in _files(place)]
    except OSError as error:
        raise UserError(f"data.path={path} cannot be read: {error.strerror or error}") from error
    content = "".join(text if text.endswith("\n") else f"{text}\n" for text in texts[:-1])
    content += texts[-1]
    if not content.strip():
        raise UserError(f"data.path={path} has no text: it is empty. Give a file with a text")
    return content


def _files(place: Path) -> list[Path]:
    if not place.exists():
        raise UserError(
            f"data.path={place}: there is no such file or folder (the current folder is "
            f"{Path.cwd()})"
        )
    if not place.is_dir():
        return [place]
    files = [
        file
        for file in sorted(place.rglob("*"))
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(place).parts)
    ]
    if not files:
        raise UserError(f"data.path={place} is a folder without files: put texts in UTF-8 there")
    return files


def _read(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"data.path={file} is no ordinary file, which could be read twice")
    content = file.read_bytes()
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{file} is not UTF-8 text: byte 0x{content[error.start]:02x} in line {line} (at "
            f"position {error.start}) belongs to no character. Convert the file, as with `iconv "
            f"-f LATIN1 -t UTF-8`, or take it out of the folder if it is no text"
        ) from None

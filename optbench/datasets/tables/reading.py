"""Read a table's file strictly: refuse a damaged file, and name the line."""

import csv
import gzip
import io
import zlib
from collections import Counter
from pathlib import Path

import pandas as pd

from optbench.common.console import warn
from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.common.names import did_you_mean
from optbench.common.text import is_number
from optbench.datasets.tables.columns import Column, of_texts

SEPARATORS = (",", ";", "\t", "|")
PARQUET = (".parquet", ".pq")


def read_file(path: str) -> tuple[Path, bytes]:
    """Return the path and the bytes of a table's file; a .gz file is unpacked."""
    file = Path(expanded(path))
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        there = [entry.name for entry in file.parent.glob("*")] if file.parent.is_dir() else []
        raise UserError(
            f"data.path={path}: there is no file {file.absolute()}{did_you_mean(file.name, there)}"
        ) from None
    except IsADirectoryError:
        raise UserError(f"data.path={path} is a folder, and a table is one file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"data.path={path} cannot be read: {error}") from None
    if file.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{file} does not unpack ({error}): get it again") from None
    if not content.strip():
        raise UserError(f"{file} is empty")
    return file, content


def is_parquet(file: Path, content: bytes) -> bool:
    """Return whether a file is Parquet by its name, or by its first bytes."""
    return file.suffix in PARQUET or content[:4] == b"PAR1"


def parquet_frame(file: Path, content: bytes) -> pd.DataFrame:
    """Return the table of a Parquet file."""
    try:
        return pd.read_parquet(io.BytesIO(content))
    except ImportError:
        raise UserError(
            f"{file} is Parquet, and pyarrow reads it: pip install 'optbench[parquet]'"
        ) from None
    except Exception as error:  # of pyarrow's own kinds
        raise UserError(f"{file} is no Parquet that can be read: {error}") from None


def csv_columns(
    file: Path, content: bytes, separator: str | None = None, encoding: str = "utf-8"
) -> dict[str, Column]:
    """Return the columns of a CSV or TSV file with a header, as texts.

    separator: None for a tab in .tsv, else the one that the header has most often. Raises
    `UserError` with the line of what is wrong.
    """
    text = _decoded(file, content, encoding)
    separator = _separator(file, text, separator)
    lines: list[list[str]] = []
    numbers: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for row in reader:
            if row:
                lines.append([cell.strip() for cell in row])
                numbers.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}") from None
    header, *rows = lines
    for row, number in zip(rows, numbers[1:], strict=True):
        if len(row) != len(header):
            raise UserError(
                f"{file}, line {number} has {len(row)} fields, and the header has {len(header)} "
                f"(separated by {separator!r}; dataset.separator sets another)"
            )
    _check_header(file, header, separator)
    if not rows:
        raise UserError(f"{file} has a header and no rows")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    if columns.pop("", None) is not None:
        warn(f"the first column of {file.name} has no name (a row's number?), and is left out")
    return {name: of_texts(name, texts) for name, texts in columns.items()}


def _decoded(file: Path, content: bytes, encoding: str) -> str:
    try:
        text = content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except LookupError:
        raise UserError(f"dataset.encoding={encoding} is unknown; such as utf-8, latin-1") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{file}, line {line} is not {encoding} (byte {content[error.start]:#04x}): save the "
            f"file as UTF-8, or name its encoding, as in dataset.encoding=latin-1"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{file}, line {line} holds a NUL byte, so that it is no text file")
    return text


def _separator(file: Path, text: str, given: str | None) -> str:
    if given is not None:
        given = {"tab": "\t", "\\t": "\t"}.get(given, given)
        if len(given) != 1:
            raise UserError(f"dataset.separator must be one character, or tab, not {given!r}")
        return given
    if file.name.removesuffix(".gz").endswith((".tsv", ".tab")):
        return "\t"
    header = text.lstrip().partition("\n")[0]
    return max(SEPARATORS, key=header.count)


def _check_header(file: Path, header: list[str], separator: str) -> None:
    if twice := [name for name, many in Counter(header).items() if many > 1]:
        raise UserError(f"{file} has {twice[0] or 'an empty name'!r} twice among its columns")
    if "" in header[1:]:
        raise UserError(f"{file}: column {header.index('') + 1} of the header has no name")
    if all(map(is_number, header)):
        raise UserError(
            f"{file} begins with numbers ({separator.join(header[:3])}): its first line must name "
            f"the columns"
        )

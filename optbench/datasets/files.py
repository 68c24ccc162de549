"""Reading and downloading of dataset files; a damaged file is never trained on.

Every problem is a `UserError` with the file's path. Downloads go through torchvision.
"""

import gzip
import hashlib
import http.client
import io
import math
import socket
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.datasets.torchvision_shim import import_torchvision

# for each connection and each read, so that a start without network ends after seconds
NETWORK_TIMEOUT_SECONDS = 10.0
FMNIST_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
FETCHABLE = ("mnist", "fashion_mnist")  # the datasets that scripts/fetch-data knows


def damaged(path: Path, why: str) -> UserError:
    """Return the error for a file with wrong content."""
    return UserError(
        f"{path} is damaged: {why}. Nothing was trained on it. Delete it and get it again."
    )


def read_bytes(path: Path) -> bytes:
    """Return the content of a file that must not be empty."""
    if path.is_dir():
        raise UserError(f"{path} is a folder where a file is expected; move or delete it.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not content:
        raise damaged(path, "it is empty")
    return content


def check_hash(path: Path, content: bytes, expected: str) -> None:
    """Raise `UserError` unless the content has the expected SHA-256 or, if short, MD5."""
    if len(expected) == 32:
        name, actual = "MD5", hashlib.md5(content, usedforsecurity=False).hexdigest()
    else:
        name, actual = "SHA-256", hashlib.sha256(content).hexdigest()
    if actual != expected:
        size = f"{len(content)} bytes"
        raise damaged(path, f"the {name} of its {size} is {actual}, and should be {expected}")


def idx_source(path: Path) -> Path | None:
    """Return the file with these IDX data: `path` itself, else `path`.gz, else None."""
    packed = path.with_name(path.name + ".gz")
    return next((p for p in (path, packed) if p.exists() or p.is_symlink()), None)


def read_idx(path: Path, dims: int, sha256: str | None = None) -> Tensor:
    """Return a uint8 tensor from an IDX file, or from `path`.gz if only that exists.

    An IDX file (http://yann.lecun.com/exdb/mnist/) has two zero bytes, the type, the number of
    dimensions, each dimension as a big-endian uint32, and the values.
    sha256: the digest of the unpacked file.
    """
    source = idx_source(path) or path
    content = read_bytes(source)
    if source != path:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(source, f"it does not unpack ({error})") from error
    if sha256 is not None:
        check_hash(source, content, sha256)
    start = 4 + 4 * dims
    if len(content) < start or content[:4] != bytes((0, 0, 8, dims)):
        raise damaged(source, f"it does not start as an IDX file of bytes in {dims} dimension(s)")
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) != start + math.prod(shape) or 0 in shape:
        raise damaged(
            source,
            f"its header promises {start + math.prod(shape)} bytes for shape {tuple(shape)}, and "
            f"it has {len(content)}",
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


def require_files(
    name: str,
    root: Path,
    files: Sequence[str],
    *,
    download: bool,
    torchvision_class: str,
    calls: Sequence[dict[str, Any]],
    archive: tuple[str, str] | None = None,
) -> None:
    """Download the files that are missing in `root`; FILE.gz counts as FILE.

    archive: torchvision's archive and its MD5. If the archive is in place, it is unpacked without
    using the network, even with download=False.
    calls: the keyword arguments of each call of torchvision's class that downloads.
    """
    try:
        if root.exists() and not root.is_dir():
            raise UserError(f"dataset={name}: data.root is {root}, which is no folder")
        missing = [f for f in files if idx_source(root / f) is None]
    except PermissionError as error:
        raise UserError(
            f"dataset={name}: {error.filename} may not be read ({error.strerror}); change the "
            "folder's permissions, or set data.root to another folder."
        ) from error
    if not missing:
        return
    packed = root / archive[0] if archive and (root / archive[0]).exists() else None
    if archive and packed:
        check_hash(packed, read_bytes(packed), archive[1])
    elif not download:
        raise _missing_error(name, root, missing, "Downloading is off (data.download=false).")
    cls = with_https_urls(getattr(import_torchvision().datasets, torchvision_class))
    tried = f"Unpacking {packed}" if packed else f"Downloading from {_url(cls)}"
    # one line instead of torchvision's progress bars, which are thousands of lines in a log file
    print(f"dataset={name}: {tried[0].lower()}{tried[1:]} to {root} ...", file=sys.stderr)
    try:
        _download(cls, calls, root, packed)
    except (
        OSError,  # URLError, time-outs, a full disk and BadGzipFile are all OSError
        RuntimeError,  # torchvision's own errors
        EOFError,
        zlib.error,
        tarfile.TarError,
        zipfile.BadZipFile,
        http.client.HTTPException,
    ) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise _missing_error(name, root, missing, f"{tried} failed: {reason}.") from error
    still = [f for f in missing if idx_source(root / f) is None]
    if still:
        raise _missing_error(name, root, still, f"{tried} did not bring them.")


def _missing_error(name: str, root: Path, missing: Sequence[str], tried: str) -> UserError:
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    fetch = f"in a checkout of optbench `scripts/fetch-data {name} --root {root}`; "
    return UserError(
        f"dataset={name}: not found in {root}: {shown}. {tried} What helps: "
        f"{fetch if name in FETCHABLE else ''}put the files there, or set data.root to the folder "
        "that has them; or take dataset=mnist_5k, which is bundled and needs no network."
    )


def with_https_urls(cls: Any) -> Any:
    """Return torchvision's class with HTTPS addresses.

    Three of torchvision's addresses are without TLS; its checksums are kept. Fashion-MNIST's server
    has no TLS, so its files come from its authors' repository.
    """

    def secure(url: str) -> str:
        url = url.replace("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", FMNIST_URL)
        return url.replace("http://", "https://")

    changes: dict[str, Any] = {}
    if hasattr(cls, "mirrors"):
        changes["mirrors"] = [secure(url) for url in cls.mirrors]
    if hasattr(cls, "split_list"):  # SVHN
        changes["split_list"] = {
            split: [secure(url), *rest] for split, (url, *rest) in cls.split_list.items()
        }
    return type(cls.__name__, (cls,), changes)  # torchvision names its folder after the class


def _url(cls: Any) -> str:
    """Return the address that torchvision's class downloads from."""
    if hasattr(cls, "split_list"):  # SVHN
        return str(cls.split_list["train"][0])
    return str(getattr(cls, "url", None) or " and ".join(cls.mirrors))


def _download(cls: Any, calls: Sequence[dict[str, Any]], root: Path, packed: Path | None) -> None:
    """Download into a scratch folder, then move the files, so that none is partial."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
        scratch = Path(folder)
        if packed:  # torchvision uses an archive that it finds, and then needs no network
            link = scratch / packed.relative_to(root)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(packed.resolve())
        bars = io.StringIO()  # swallows torchvision's progress bars
        with redirect_stdout(bars), redirect_stderr(bars), _socket_timeout(NETWORK_TIMEOUT_SECONDS):
            for arguments in calls:
                cls(str(scratch), download=True, **arguments)
        for file in sorted(scratch.rglob("*")):
            if file.is_file() and file.suffix not in (".gz", ".zip"):
                target = root / file.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

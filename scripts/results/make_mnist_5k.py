"""Make the bundled mnist_5k.npz from the original MNIST, byte for byte.

MNIST comes from two groups of writers. The training set alternates between them (even and odd
places: mean pixel 31.2 and 35.4), so every 12th image alone would take one group only; the test set
has one group in each half, so the first 1,000 would too. Taken are training images 0, 13, 24, 37,
48, ... (every 12th, every other time the next one) and every 10th test image.
"""

import argparse
import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

from optbench.common.errors import UserError
from optbench.datasets.loaders import BUNDLED_MNIST, BUNDLED_MNIST_SHA256, mnist


def archive(arrays: dict[str, np.ndarray]) -> bytes:
    """Return an .npz with fixed times and attributes, unlike np.savez_compressed's."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, also on Windows
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            file.writestr(entry, member.getvalue(), compresslevel=9)
    return buffer.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("OPTBENCH_DATA") or "~/.cache/optbench"
    parser.add_argument("--root", default=default, help="folder with MNIST/raw (%(default)s)")
    parser.add_argument("--out", type=Path, default=BUNDLED_MNIST, help="where to (%(default)s)")
    options = parser.parse_args()
    try:
        raw = mnist(options.root, download=False)
    except UserError as error:
        print(f"make_mnist_5k: {error}", file=sys.stderr)
        return 1
    every = np.arange(5000)
    kept = 12 * every + every % 2
    content = archive(
        {
            "train_x": raw.train_x[kept].numpy(),
            "train_y": raw.train_y[kept].numpy().astype(np.uint8),
            "test_x": raw.test_x[::10].numpy(),
            "test_y": raw.test_y[::10].numpy().astype(np.uint8),
        }
    )
    temporary = options.out.with_name(options.out.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(options.out)
    sha256 = hashlib.sha256(content).hexdigest()
    print(f"{options.out}: {len(content)} bytes, SHA-256 {sha256}")
    if sha256 != BUNDLED_MNIST_SHA256:
        # Another zlib compresses the same arrays to other bytes.
        print("this is not BUNDLED_MNIST_SHA256 of optbench/datasets/loaders.py: update it")
    return 0


if __name__ == "__main__":
    sys.exit(main())

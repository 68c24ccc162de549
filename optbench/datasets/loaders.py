"""The dataset loaders: functions that return raw data, each named by one YAML.

Your own loader is a function that returns four tensors or arrays (see `RawDataset`), and a YAML
in conf/dataset with its `_target_`. A loader needs no registration and no change here.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optbench.common.errors import UserError, check_choice
from optbench.datasets.files import check_hash, damaged, read_bytes, read_idx, require_files
from optbench.datasets.raw import RawDataset
from optbench.datasets.torchvision_shim import import_torchvision

BUNDLED_MNIST = Path(__file__).parent / "bundled" / "mnist_5k.npz"
EMNIST_SPLITS = ("digits", "letters", "balanced")
BUNDLED_MNIST_SHA256 = "e92a523de6dc1443d79c46c1f66ad2230151ec34d33003b40b32574a0d33ad98"

# SHA256 holds the digests of the unpacked IDX files in this order; scripts/fetch-data, which must
# run without torch, has the same table
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
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


def mnist_5k() -> RawDataset:
    """Return a twelfth of MNIST's training images and a tenth of its test images: 5,000 + 1,000.

    The images are uint8, (n, 1, 28, 28).
    """
    try:
        content = read_bytes(BUNDLED_MNIST)
        check_hash(BUNDLED_MNIST, content, BUNDLED_MNIST_SHA256)
    except UserError as error:
        raise UserError(f"{error} It comes with optbench: reinstall the package.") from error
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            parts = [torch.from_numpy(arrays[name]) for name in RawDataset._fields]
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise damaged(BUNDLED_MNIST, f"it does not hold the four arrays ({error})") from error
    return RawDataset(*parts)


def mnist(root: str | Path, download: bool = True) -> RawDataset:
    """Return MNIST: 60,000 + 10,000 grey images of handwritten digits, 28 x 28 (LeCun et al. 1998).

    Raises `UserError` where files are missing and may not be downloaded, or are damaged.
    """
    return _idx("mnist", "MNIST", root, download)


def fashion_mnist(root: str | Path, download: bool = True) -> RawDataset:
    """Return Fashion-MNIST: 60,000 + 10,000 grey images of clothes, 28 x 28 (Xiao et al. 2017).

    Raises `UserError` where files are missing and may not be downloaded, or are damaged.
    """
    return _idx("fashion_mnist", "FashionMNIST", root, download)


def kmnist(root: str | Path, download: bool = True) -> RawDataset:
    """Return Kuzushiji-MNIST: 60,000 + 10,000 Japanese characters, 28 x 28 (Clanuwat et al. 2018).

    Raises `UserError` where files are missing and may not be downloaded, or are damaged.
    """
    return _idx("kmnist", "KMNIST", root, download)


def emnist(split: str, root: str | Path, download: bool = True) -> RawDataset:
    """Return EMNIST: grey images of handwritten characters, 28 x 28 (Cohen et al. 2017).

    split: "digits" (240,000 + 40,000, 10 classes), "letters" (124,800 + 20,800, 26 classes, upper
    and lower case merged) or "balanced" (112,800 + 18,800 digits and letters, 47 classes).
    Raises `UserError` for another split, and where files are missing and may not be downloaded, or
    are damaged.
    """
    check_choice("dataset.split", split, EMNIST_SPLITS)
    # one archive holds all splits; the MD5 is torchvision's
    raw = _idx(
        f"emnist_{split}",
        "EMNIST",
        root,
        download,
        names=[f"emnist-{split}-{f.replace('t10k', 'test')}" for f in IDX_FILES],
        calls=[{"split": split}],
        archive=("EMNIST/raw/gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e"),
    )
    if split != "letters":
        return raw
    if min(raw.train_y.min(), raw.test_y.min()) < 1:
        file = Path(root).expanduser() / "EMNIST/raw/emnist-letters-train-labels-idx1-ubyte"
        raise damaged(file, "EMNIST Letters has labels from 1 to 26, and a 0 was found")
    return raw._replace(train_y=raw.train_y - 1, test_y=raw.test_y - 1)


def cifar10(root: str | Path, download: bool = True) -> RawDataset:
    """Return CIFAR-10: 50,000 + 10,000 colour photographs, 32 x 32 (Krizhevsky 2009).

    Raises `UserError` where files are missing and may not be downloaded, or are damaged.
    """
    return _cifar("cifar10", "CIFAR10", root, download)


def cifar100(root: str | Path, download: bool = True) -> RawDataset:
    """Return CIFAR-100: 50,000 + 10,000 photographs, 32 x 32, fine labels (Krizhevsky 2009).

    Raises `UserError` where files are missing and may not be downloaded, or are damaged.
    """
    return _cifar("cifar100", "CIFAR100", root, download)


def svhn(root: str | Path, download: bool = True) -> RawDataset:
    """Return cropped SVHN: 73,257 + 26,032 images of house numbers, 32 x 32 (Netzer et al. 2011).

    Raises `UserError` where files are missing and may not be downloaded, or are damaged.
    """
    try:
        import scipy.io  # noqa: F401  (torchvision reads the .mat files with it)
    except ImportError as error:
        raise _extra_error("svhn", "scipy") from error
    folder = Path(root).expanduser()
    cls = import_torchvision().datasets.SVHN
    files = {file: md5 for _, file, md5 in (cls.split_list["train"], cls.split_list["test"])}
    calls = [{"split": "train"}, {"split": "test"}]
    _require("svhn", folder, files, download, torchvision_class="SVHN", calls=calls)
    train, test = (cls(str(folder), split=split) for split in ("train", "test"))
    return RawDataset(
        torch.from_numpy(train.data).contiguous(),
        torch.from_numpy(train.labels),
        torch.from_numpy(test.data).contiguous(),
        torch.from_numpy(test.labels),
    )


def digits() -> RawDataset:
    """Return scikit-learn's digits: 1,797 grey images, 8 x 8, values 0 to 16.

    Every fifth example is for the test (Alpaydin & Kaynak 1998, UCI).
    """
    x, y = _sklearn("digits")
    return _every_fifth_for_test(x.to(torch.float32).view(-1, 1, 8, 8), y)


def wine() -> RawDataset:
    """Return scikit-learn's wine: 178 examples, 13 features, 3 classes.

    Every fifth example is for the test (Aeberhard & Forina 1992, UCI).
    """
    return _every_fifth_for_test(*_sklearn("wine"))


def breast_cancer() -> RawDataset:
    """Return scikit-learn's breast cancer: 569 examples, 30 features, 2 classes.

    Every fifth example is for the test (Wolberg et al. 1993, UCI).
    """
    return _every_fifth_for_test(*_sklearn("breast_cancer"))


def _idx(
    name: str,
    torchvision_class: str,
    root: str | Path,
    download: bool,
    names: Sequence[str] = IDX_FILES,
    **require: Any,
) -> RawDataset:
    """Return the data of four IDX files in <root>/<class>/raw, torchvision's folder.

    The files are read without torchvision, so that the checked bytes are the bytes in use, and
    that runs whose files are in place do not import torchvision.
    """
    folder = Path(root).expanduser()
    raw = f"{torchvision_class}/raw"
    hashes = SHA256.get(torchvision_class, (None,) * 4)
    require_files(
        name,
        folder,
        [f"{raw}/{n}" for n in names],
        download=download,
        torchvision_class=torchvision_class,
        **({"calls": [{}]} | require),
    )
    parts: list[Tensor] = []
    for i in (0, 2):
        images, labels = names[i], names[i + 1]
        x = read_idx(folder / raw / images, 3, hashes[i])
        y = read_idx(folder / raw / labels, 1, hashes[i + 1])
        if len(x) != len(y):
            reason = f"it has {len(y)} labels for the {len(x)} images in {images}"
            raise damaged(folder / raw / labels, reason)
        parts += [x.unsqueeze(1), y.to(torch.int64)]
    return RawDataset(*parts)


def _cifar(name: str, torchvision_class: str, root: str | Path, download: bool) -> RawDataset:
    """Return CIFAR data, after checking each file by torchvision's MD5 sums."""
    folder = Path(root).expanduser()
    cls = getattr(import_torchvision().datasets, torchvision_class)
    meta = (cls.meta["filename"], cls.meta["md5"])
    hashes = {f"{cls.base_folder}/{f}": md5 for f, md5 in [*cls.train_list, *cls.test_list, meta]}
    archive = (cls.filename, cls.tgz_md5)
    given = {"torchvision_class": torchvision_class, "calls": [{}], "archive": archive}
    _require(name, folder, hashes, download, **given)
    parts: list[Tensor] = []
    for train in (True, False):
        data = cls(str(folder), train=train)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        parts += [images, torch.tensor(data.targets)]
    return RawDataset(*parts)


def _require(
    name: str, folder: Path, hashes: Mapping[str, str], download: bool, **given: Any
) -> None:
    """Get files by `require_files`, and check their bytes. hashes: MD5 sums by file."""
    require_files(name, folder, list(hashes), download=download, **given)
    for file, md5 in hashes.items():
        check_hash(folder / file, read_bytes(folder / file), md5)


def _extra_error(name: str, package: str) -> UserError:
    return UserError(
        f"dataset={name} needs {package}, which is not installed: "
        "pip install 'optbench[datasets]'; or take dataset=mnist_5k, which is bundled."
    )


def _sklearn(name: str) -> tuple[Tensor, Tensor]:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise _extra_error(name, "scikit-learn") from error
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return torch.tensor(x), torch.tensor(y)


def _every_fifth_for_test(x: Tensor, y: Tensor) -> RawDataset:
    """Return data with every fifth example of each class as the test part."""
    test = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        test[(y == label).nonzero().flatten()[4::5]] = True
    return RawDataset(x[~test], y[~test], x[test], y[test])

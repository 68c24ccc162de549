"""The datasets: what the loaders read, and damaged, missing and downloaded files."""

import gzip
import hashlib
import inspect
import io
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from optbench import datasets, deepobs
from optbench.common.errors import UserError
from optbench.datasets import loaders
from optbench.datasets.prepare import PREPROCESSING_CHOICES, prepare
from optbench.datasets.torchvision_shim import import_torchvision

REPOSITORY = Path(__file__).resolve().parents[2]


# ---- the bundled set


def test_bundled_mnist_is_whole():
    raw = loaders.mnist_5k()
    assert [tuple(t.shape) for t in raw] == [(5000, 1, 28, 28), (5000,), (1000, 1, 28, 28), (1000,)]
    for y, n in ((raw.train_y, 5000), (raw.test_y, 1000)):
        counts = torch.bincount(y.long(), minlength=10)
        assert len(counts) == 10
        assert counts.min() > 0.08 * n
        assert counts.max() < 0.13 * n
    # Both groups of writers, in all of MNIST 33.3: a plain every-12th had 31.2 and one group.
    for x in (raw.train_x, raw.test_x):
        assert x.double().mean() == pytest.approx(33.5, abs=0.5)
    assert prepare(raw).digest == "e7f4559101ea3d5f"
    assert loaders.BUNDLED_MNIST.stat().st_size < 2**20


def flip_byte(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-100])


def lengthen(path: Path):
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path):
    path.write_bytes(b"")


def folder_instead(path: Path):
    path.unlink()
    path.mkdir()


DAMAGE = [flip_byte, truncate, lengthen, empty, folder_instead]


@pytest.mark.parametrize("damage", [*DAMAGE, Path.unlink])
def test_damaged_bundled_file_is_named(damage, tmp_path, monkeypatch):
    copy = Path(shutil.copy(loaders.BUNDLED_MNIST, tmp_path))
    monkeypatch.setattr(loaders, "BUNDLED_MNIST", copy)
    damage(copy)
    with pytest.raises(UserError) as caught:
        loaders.mnist_5k()
    assert str(copy) in str(caught.value)
    assert "reinstall" in str(caught.value)


# ---- IDX families


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, names=loaders.IDX_FILES, low=0) -> list[Path]:
    """Tiny files in the place of the originals: 30 training and 10 test images of 4 x 4."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i, n in ((0, 30), (2, 10)):
        (folder / names[i]).write_bytes(idx_bytes(rng.integers(0, 256, (n, 4, 4))))
        (folder / names[i + 1]).write_bytes(idx_bytes(np.arange(n) % 5 + low))
    return [folder / name for name in names]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def mnist_files(tmp_path, monkeypatch, no_network):
    files = write_idx(tmp_path / "MNIST" / "raw")
    hashes = tuple(sha256(file) for file in files)
    monkeypatch.setattr(loaders, "SHA256", {"MNIST": hashes})
    return files


def test_idx_files_in_place_are_read_without_network(tmp_path, mnist_files):
    raw = loaders.mnist(tmp_path, download=False)
    assert raw.train_x.shape == (30, 1, 4, 4)
    assert raw.test_x.shape == (10, 1, 4, 4)
    assert raw.train_y.tolist() == [i % 5 for i in range(30)]
    torchvision = import_torchvision()
    same = torchvision.datasets.MNIST(str(tmp_path), train=False)
    assert torch.equal(same.data, raw.test_x[:, 0])
    assert torch.equal(same.targets, raw.test_y)
    assert loaders.mnist(str(tmp_path), download=True).train_x.shape == raw.train_x.shape


def pack(file: Path) -> Path:
    packed = file.with_name(file.name + ".gz")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    return packed


@pytest.mark.parametrize("download", [True, False])
def test_gz_in_place_is_unpacked_without_network(tmp_path, mnist_files, download):
    before = loaders.mnist(tmp_path, download=False)
    for file in mnist_files:
        pack(file)
    after = loaders.mnist(tmp_path, download=download)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("which", [0, 3])
def test_damaged_idx_file_is_named(tmp_path, mnist_files, damage, which, packed):
    file = pack(mnist_files[which]) if packed else mnist_files[which]
    damage(file) if damage is not truncate else file.write_bytes(file.read_bytes()[:-5])
    if packed and damage is lengthen:  # gzip allows zero padding, and the content is whole
        loaders.mnist(tmp_path, download=False)
        return
    for download in (False, True):
        with pytest.raises(UserError) as caught:
            loaders.mnist(tmp_path, download=download)
        assert str(file) in str(caught.value)


@pytest.mark.parametrize("damage", [truncate, lengthen, empty, folder_instead])
def test_idx_without_known_hash_is_checked_by_its_header(tmp_path, no_network, damage):
    files = write_idx(tmp_path / "KMNIST" / "raw")
    assert len(loaders.kmnist(tmp_path).test_y) == 10
    damage(files[2])
    with pytest.raises(UserError) as caught:
        loaders.kmnist(tmp_path)
    assert str(files[2]) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>not found</html>", "does not start as an IDX file"),
        (idx_bytes(np.zeros((10, 4))), "does not start as an IDX file"),
        (idx_bytes(np.zeros((0,))), "its header promises"),
        (idx_bytes(np.zeros((9,))), "9 labels for the 10 images"),
        (b"\0\0", "does not start as an IDX file"),
    ],
)
def test_wrong_idx_content_is_named(tmp_path, no_network, content, reason):
    file = write_idx(tmp_path / "KMNIST" / "raw")[3]
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        loaders.kmnist(tmp_path)
    assert str(file) in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("split", ["digits", "letters", "balanced"])
def test_emnist_labels_start_at_zero(tmp_path, no_network, split):
    names = [f"emnist-{split}-{f.replace('t10k', 'test')}" for f in loaders.IDX_FILES]
    write_idx(tmp_path / "EMNIST" / "raw", names, low=int(split == "letters"))
    raw = loaders.emnist(split, tmp_path, download=False)
    assert raw.train_y.unique().tolist() == [0, 1, 2, 3, 4]
    assert raw.test_y.unique().tolist() == [0, 1, 2, 3, 4]


def test_emnist_letters_with_a_zero_label_is_refused(tmp_path, no_network):
    names = [f"emnist-letters-{f.replace('t10k', 'test')}" for f in loaders.IDX_FILES]
    write_idx(tmp_path / "EMNIST" / "raw", names)
    with pytest.raises(UserError, match="emnist-letters-train-labels"):
        loaders.emnist("letters", tmp_path)


# ---- missing files and downloads


def test_missing_without_download_says_what_helps(tmp_path, no_network):
    with pytest.raises(UserError) as caught:
        loaders.mnist(tmp_path / "absent", download=False)
    for text in ("absent", "data.download=false", "scripts/fetch-data mnist", "dataset=mnist_5k"):
        assert text in str(caught.value)
    assert not (tmp_path / "absent").exists()


LOADERS = ["mnist", "fashion_mnist", "kmnist", "emnist", "cifar10", "cifar100", "svhn"]


@pytest.mark.parametrize("name", LOADERS)
def test_failing_download_is_told_in_one_message(name, tmp_path, monkeypatch, capfd):
    timeouts = []

    def fail(*args, **kwargs):
        timeouts.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    split = {"split": "letters"} if name == "emnist" else {}
    with pytest.raises(UserError) as caught:
        getattr(loaders, name)(root=tmp_path, download=True, **split)
    message = str(caught.value)
    for text in (f"dataset={name}", str(tmp_path), "http", "no route to host", "dataset=mnist_5k"):
        assert text in message
    assert "\n" not in message
    assert ("scripts/fetch-data" in message) == (name in ("mnist", "fashion_mnist"))
    assert timeouts
    assert None not in timeouts
    assert socket.getdefaulttimeout() is None
    assert list(tmp_path.iterdir()) == []  # nothing half-downloaded is left
    assert len(capfd.readouterr().err.splitlines()) <= 1


class FakeResponse(io.BytesIO):
    def __init__(self, content: bytes, url: str):
        super().__init__(content)
        self.url, self.length = url, len(content)


def serve(monkeypatch, files: dict[str, bytes]) -> list[str]:
    asked: list[str] = []

    def urlopen(request, *args, **kwargs):
        asked.append(request.full_url)
        return FakeResponse(files[request.full_url.rsplit("/", 1)[1]], request.full_url)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_download_puts_whole_files_in_place(tmp_path, monkeypatch, mnist_files, capfd):
    expected = loaders.mnist(tmp_path, download=False)
    packed = {f"{f.name}.gz": gzip.compress(f.read_bytes()) for f in mnist_files}
    cls = import_torchvision().datasets.MNIST
    resources = [(n, hashlib.md5(c).hexdigest()) for n, c in packed.items()]
    monkeypatch.setattr(cls, "resources", resources)
    asked = serve(monkeypatch, packed)
    root = tmp_path / "new" / "root"
    got = loaders.mnist(root, download=True)
    assert asked
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert sorted(p.name for p in root.rglob("*") if p.is_file()) == sorted(loaders.IDX_FILES)
    assert len(capfd.readouterr().err.splitlines()) == 1  # and no progress bars

    serve(monkeypatch, packed | {"t10k-labels-idx1-ubyte.gz": b"cut off"})
    with pytest.raises(UserError, match="corrupted"):
        loaders.mnist(tmp_path / "cut", download=True)
    assert list((tmp_path / "cut").iterdir()) == []


def test_root_that_is_a_file_is_told(tmp_path):
    root = tmp_path / "file"
    root.write_text("not a folder")
    with pytest.raises(UserError, match="file"):
        loaders.mnist(root, download=True)


def test_root_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "exists", refuse)  # a mode would not stop root
    with pytest.raises(UserError, match="may not be read"):
        loaders.mnist(tmp_path, download=False)


# ---- CIFAR and SVHN


@pytest.fixture
def cifar_files(tmp_path, monkeypatch, no_network):
    cls = import_torchvision().datasets.CIFAR10
    folder = tmp_path / cls.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(name: str, content: dict) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(n: int) -> dict:
        pixels = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        return {"data": pixels, "labels": list(range(n))}

    train = [write(f"data_batch_{i}", batch(4)) for i in range(1, 6)]
    monkeypatch.setattr(cls, "train_list", train)
    monkeypatch.setattr(cls, "test_list", [write("test_batch", batch(3))])
    meta = write("batches.meta", {"label_names": list("abcd")})
    monkeypatch.setattr(cls, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return sorted(folder.iterdir())


def test_cifar_is_read_channels_first(tmp_path, cifar_files):
    raw = loaders.cifar10(tmp_path, download=False)
    batch = pickle.loads((tmp_path / "cifar-10-batches-py" / "data_batch_1").read_bytes())
    assert raw.train_x.shape == (20, 3, 32, 32)
    assert torch.equal(raw.train_x[0], torch.from_numpy(batch["data"][0]).view(3, 32, 32))
    assert raw.test_y.tolist() == [0, 1, 2]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("which", range(7))
def test_damaged_cifar_file_is_named(tmp_path, cifar_files, damage, which):
    damage(cifar_files[which])
    with pytest.raises(UserError) as caught:
        loaders.cifar10(tmp_path)
    assert str(cifar_files[which]) in str(caught.value)


def test_cifar_archive_in_place_is_unpacked_or_named(tmp_path, cifar_files, monkeypatch):
    cls = import_torchvision().datasets.CIFAR10
    archive = tmp_path / cls.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / cls.base_folder, cls.base_folder)
    monkeypatch.setattr(cls, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    before = loaders.cifar10(tmp_path)
    shutil.rmtree(tmp_path / cls.base_folder)
    after = loaders.cifar10(tmp_path, download=False)
    assert torch.equal(before.train_x, after.train_x)
    shutil.rmtree(tmp_path / cls.base_folder)
    truncate(archive)
    with pytest.raises(UserError) as caught:
        loaders.cifar10(tmp_path)
    assert str(archive) in str(caught.value)


@pytest.fixture
def svhn_files(tmp_path, monkeypatch, no_network):
    io_ = pytest.importorskip("scipy.io")
    rng = np.random.default_rng(0)
    table = {}
    for split, n in (("train", 12), ("test", 11)):
        file = tmp_path / f"{split}_32x32.mat"
        x = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        io_.savemat(file, {"X": x, "y": np.arange(1, n + 1)[:, None] % 10 + 1})
        md5 = hashlib.md5(file.read_bytes()).hexdigest()
        table[split] = [f"http://example.org/{file.name}", file.name, md5]
    monkeypatch.setattr(import_torchvision().datasets.SVHN, "split_list", table)
    return sorted(tmp_path.iterdir())


def test_svhn_is_read(tmp_path, svhn_files):
    raw = loaders.svhn(tmp_path, download=False)
    assert raw.train_x.shape == (12, 3, 32, 32)
    assert raw.train_y.tolist()[:9] == [2, 3, 4, 5, 6, 7, 8, 9, 0]
    prepare(raw, val_size=2)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("which", [0, 1])
def test_damaged_svhn_file_is_named(tmp_path, svhn_files, damage, which):
    damage(svhn_files[which])
    with pytest.raises(UserError) as caught:
        loaders.svhn(tmp_path)
    assert str(svhn_files[which]) in str(caught.value)


# ---- scikit-learn and imports


@pytest.mark.parametrize(
    ("name", "shape", "classes", "sizes"),
    [
        ("digits", (1, 8, 8), 10, (1442, 355)),
        ("wine", (13,), 3, (144, 34)),
        ("breast_cancer", (30,), 2, (456, 113)),
    ],
)
def test_sklearn_sets_are_split_by_class(name, shape, classes, sizes):
    pytest.importorskip("sklearn")
    raw = getattr(loaders, name)()
    out = prepare(raw)
    assert (out.input_shape, out.classes) == (shape, classes)
    assert (len(raw.train_y), len(raw.test_y)) == sizes
    train, test = (torch.bincount(y).double() / len(y) for y in (raw.train_y, raw.test_y))
    assert (train - test).abs().max() < 0.02  # stratified


@pytest.mark.parametrize(
    ("name", "arguments", "module"),
    [("wine", (), "sklearn"), ("svhn", ("absent",), "scipy.io")],
)
def test_missing_extra_says_how_to_install_it(name, arguments, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'optbench\[datasets\]'"):
        getattr(loaders, name)(*arguments)


def test_importing_the_loaders_imports_no_heavy_package():
    code = (
        "import sys, optbench.datasets as d; d.mnist_5k()\n"
        "print([m for m in ('torchvision', 'sklearn', 'pandas', 'scipy') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_every_dataset_yaml_names_its_loader():
    yaml = pytest.importorskip("omegaconf").OmegaConf
    files = {file.stem: yaml.load(file) for file in (REPOSITORY / "conf/dataset").glob("*.yaml")}
    assert {*LOADERS, "mnist_5k", "digits", "wine", "breast_cancer"} <= set(files)
    for name in files:
        config = dict(yaml.to_container(files[name], resolve=False))
        assert config["name"] == name
        loader = name.split("_")[0] if name.startswith("emnist") else name
        home = datasets
        if name == "deepobs_quadratic":
            home, loader = deepobs, "quadratic"
        assert config["_target_"] == f"{home.__name__}.{loader}"
        assert config["preprocessing"] in PREPROCESSING_CHOICES
        arguments = set(config) - {"name", "_target_", "preprocessing"}
        taken = set(inspect.signature(getattr(home, loader)).parameters)
        assert arguments == taken - {"texts"}  # a function, which no YAML names


def test_zip_of_bundled_set_has_fixed_times():
    with zipfile.ZipFile(loaders.BUNDLED_MNIST) as archive:
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}

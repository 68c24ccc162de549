"""Folders of images: their parts, classes, colours and sizes, and clear refusals."""

import numpy as np
import pytest
import torch
from image_files import write, write_digits
from PIL import Image

from optbench import datasets
from optbench.common.errors import UserError
from optbench.datasets.prepare import prepare
from optbench.datasets.torchvision_shim import import_torchvision


def folder_of(path, classes=("cat", "dog"), count=6, **image):
    for name in classes:
        for number in range(count):
            write(path / name / f"{name}{number}.png", **image)
    return path


def test_images_are_those_of_torchvisions_image_folder(tmp_path):
    root = write_digits(tmp_path)
    raw = datasets.image_folder(str(root))
    train_x, train_y, test_x, test_y = raw.arrays
    for part, x, y in (("train", train_x, train_y), ("test", test_x, test_y)):
        listed = import_torchvision().datasets.ImageFolder(str(root / part))
        pixels = [np.asarray(image.convert("L")) for image, _ in listed]
        assert torch.equal(x, torch.from_numpy(np.stack(pixels))[:, None])
        assert y.tolist() == listed.targets
    assert x.dtype == torch.uint8
    assert prepare(raw).classes == 3


def test_a_class_that_the_test_part_lacks_moves_no_label(tmp_path):
    folder_of(tmp_path / "train", classes=("a", "b", "c"))
    folder_of(tmp_path / "test", classes=("a", "c"))
    *_, test_y = datasets.image_folder(str(tmp_path)).arrays
    assert sorted(set(test_y.tolist())) == [0, 2]


def test_validation_images_of_their_own_are_used_whole(tmp_path):
    for part in ("train", "test", "valid"):
        folder_of(tmp_path / part)
    raw = datasets.image_folder(str(tmp_path))
    assert len(raw.arrays) == 6
    assert torch.equal(prepare(raw, preprocessing="none").val_x, raw.arrays[4].float())


@pytest.mark.parametrize("under", ["", "train"])
def test_class_folders_alone_are_split_by_the_split_seed(tmp_path, under):
    folder_of(tmp_path / under, count=10)
    first, again, other = (
        datasets.image_folder(str(tmp_path), test_size=0.3, split_seed=seed) for seed in (0, 0, 1)
    )
    assert [len(part) for part in first.arrays] == [14, 14, 6, 6]
    assert first.arrays[3].tolist() == [0, 0, 0, 1, 1, 1]  # of each class as large a share
    assert all(map(torch.equal, first.arrays, again.arrays))
    assert not torch.equal(first.arrays[2], other.arrays[2])
    # no image is in both parts
    both = torch.cat([first.arrays[0], first.arrays[2]]).flatten(1)
    assert len(both.unique(dim=0)) == 20
    assert first.digest == other.digest


def test_the_digest_covers_bytes_and_names(tmp_path):
    folder_of(tmp_path)
    digest = datasets.image_folder(str(tmp_path)).digest
    (tmp_path / "cat" / "cat0.png").rename(tmp_path / "cat" / "cat9.png")
    renamed = datasets.image_folder(str(tmp_path)).digest
    write(tmp_path / "cat" / "cat9.png", np.zeros((6, 5), np.uint8))
    assert len({digest, renamed, datasets.image_folder(str(tmp_path)).digest}) == 3


def test_colours_are_kept_unless_all_images_are_grey(tmp_path):
    folder_of(tmp_path)
    assert datasets.image_folder(str(tmp_path)).arrays[0].shape == (10, 1, 6, 5)
    write(tmp_path / "cat" / "red.png", shape=(6, 5, 3))
    assert datasets.image_folder(str(tmp_path)).arrays[0].shape[1] == 3
    assert datasets.image_folder(str(tmp_path), colors="grey").arrays[0].shape[1] == 1
    with pytest.raises(UserError, match=r"dataset\.colors must be one of grey, rgb"):
        datasets.image_folder(str(tmp_path), colors="blue")


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "CMYK"])
def test_modes_of_eight_bits_are_read(tmp_path, mode):
    folder_of(tmp_path)
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new(mode, (5, 6)).save(tmp_path / "cat" / f"x.{suffix}")
    channels = datasets.image_folder(str(tmp_path)).arrays[0].shape[1]
    assert channels == (1 if mode in ("1", "LA") else 3)


def test_a_size_scales_and_cuts_about_the_centre(tmp_path):
    folder_of(tmp_path)
    wide = np.zeros((10, 20), np.uint8)
    wide[:, 5:15] = 200
    write(tmp_path / "cat" / "a.png", wide)
    write(tmp_path / "cat" / "b.png", wide.T.copy())
    raw = datasets.image_folder(str(tmp_path), size=8, test_size=0.1)
    x = torch.cat([raw.arrays[0], raw.arrays[2]])
    assert x.shape[1:] == (1, 8, 8)
    assert sum((image[:, 1:-1, 1:-1] == 200).all().item() for image in x) == 2
    raw = datasets.image_folder(str(tmp_path), size=[4, 8])
    assert raw.arrays[0].shape[1:] == (1, 4, 8)


def test_hidden_files_and_folders_are_no_images(tmp_path):
    folder_of(tmp_path)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "cat" / "._cat0.png").write_bytes(b"resource fork")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    assert len(datasets.image_folder(str(tmp_path)).arrays[0]) == 10


def missing(path):
    return path / "nothing"


def file(path):
    return write(path / "a.png")


def empty(path):
    return path


def loose(path):
    write(path / "a.png")
    return path


def no_images(path):
    (path / "cat").mkdir()
    (path / "dog").mkdir()
    return path


def one_class(path):
    return folder_of(path, classes=("cat",))


def empty_class(path):
    folder_of(path)
    (path / "bird").mkdir()
    return path


def mixed_sizes(path):
    folder_of(path)
    write(path / "dog" / "z.png", shape=(7, 9))
    return path


def truncated(path):
    folder_of(path, shape=(60, 50))
    broken = path / "dog" / "dog1.png"
    broken.write_bytes(broken.read_bytes()[:600])
    return path


def no_format(path):
    folder_of(path)
    (path / "dog" / "dog1.png").write_bytes(b"not an image at all")
    return path


def empty_file(path):
    folder_of(path)
    (path / "dog" / "dog1.png").write_bytes(b"")
    return path


def sixteen_bits(path):
    folder_of(path)
    Image.new("I;16", (5, 6)).save(path / "cat" / "x.png")
    return path


def unknown_class(path):
    folder_of(path / "train")
    folder_of(path / "test", classes=("cat", "bird"))
    return path


def empty_test(path):
    folder_of(path / "train")
    (path / "test" / "cat").mkdir(parents=True)
    return path


def one_image(path):
    folder_of(path)
    write(path / "rare" / "r.png")
    return path


@pytest.mark.parametrize("in_memory_mb", [1000, 0])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing, "there is no such folder"),
        (file, "is a file, and a folder is needed"),
        (empty, r"has no images in folders of classes \(it is empty\)"),
        (loose, r"has no images in folders of classes \(it holds a\.png\)"),
        (no_images, r"has no images in folders of classes \(it holds"),
        (one_class, r"has one class alone \(cat\)"),
        (empty_class, "bird holds no image, and each folder within"),
        (mixed_sizes, r"different sizes: .*cat0\.png has 5x6 .*z\.png 9x7.*dataset\.size=32"),
        (truncated, r"dog1\.png is damaged: it does not decode as an image \(.+\)\. Nothing was"),
        (no_format, r"dog1\.png is damaged: .*no format that Pillow knows begins so"),
        (empty_file, r"dog1\.png is damaged: it is empty"),
        (sixteen_bits, r"x\.png has pixels of Pillow's mode I;16"),
        (unknown_class, "has the class bird, which train/ does not have: .* cat, dog"),
        (empty_test, "test holds no image: put images in, or delete the folder"),
        (one_image, "the class rare has one image, and a test part needs another"),
    ],
)
def test_bad_folders_are_refused_in_words(tmp_path, make, words, in_memory_mb):
    path = make(tmp_path)
    with pytest.raises(UserError, match=words):
        datasets.image_folder(str(path), in_memory_mb=in_memory_mb)


def test_a_misspelt_folder_is_told_the_nearest(tmp_path):
    folder_of(tmp_path / "pictures")
    with pytest.raises(UserError, match=r"Did you mean pictures\?"):
        datasets.image_folder(str(tmp_path / "picture"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": None}, r"needs the folder of the images, as data\.path=FOLDER"),
        ({"size": 0}, r"dataset\.size must be a number of pixels"),
        ({"size": [3, 4, 5]}, r"dataset\.size"),
        ({"size": "big"}, r"dataset\.size"),
        ({"test_size": 1.0}, r"dataset\.test_size must be a share"),
        ({"test_size": 3}, r"dataset\.test_size"),
        ({"workers": -1}, r"dataset\.workers must be a whole number"),
        ({"in_memory_mb": "all"}, r"dataset\.in_memory_mb must be a number"),
    ],
)
def test_bad_settings_are_refused_in_words(tmp_path, settings, words):
    folder_of(tmp_path)
    with pytest.raises(UserError, match=words):
        datasets.image_folder(**({"path": str(tmp_path)} | settings))

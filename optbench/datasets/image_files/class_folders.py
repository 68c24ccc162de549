"""The class folders of a folder of images, listed by torchvision, and its parts."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from optbench.common.errors import UserError
from optbench.datasets.torchvision_shim import import_torchvision

PART_FOLDERS = {"train": ("train",), "test": ("test",), "val": ("val", "valid", "validation")}
LAYOUT = (
    "FOLDER/CLASS/IMAGE.png, or FOLDER/train/CLASS/IMAGE.png with test/ and, if there is one, val/ "
    "beside train/"
)


class Part(NamedTuple):
    """The images of one part: paths below the root, and numbers of classes."""

    names: list[str]
    labels: list[int]


def find_parts(root: Path) -> tuple[dict[str, Part], list[str]]:
    """Return the parts that a folder has, and the names of the classes in order."""
    folders = {
        part: root / name
        for part, names in PART_FOLDERS.items()
        for name in names[::-1]
        if (root / name).is_dir()
    }
    if "train" not in folders:
        folders = {"train": root}
    classes = class_folders(folders["train"])
    parts = {part: _list(root, folder, part, classes) for part, folder in folders.items()}
    counts = torch.tensor(parts["train"].labels, dtype=torch.int64).bincount(minlength=len(classes))
    if not parts["train"].names:
        raise UserError(_none_found(folders["train"]))
    empty = [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]
    if empty:
        raise UserError(
            f"{folders['train'] / empty[0]} holds no image, and each folder within "
            f"{folders['train']} is a class: name the right folder, or leave only folders of "
            f"images in it"
        )
    if len(classes) < 2:
        raise UserError(
            f"{folders['train']} has one class alone ({classes[0]}), and there is nothing to tell "
            f"apart: a folder for each of two classes or more is needed, as {LAYOUT}"
        )
    for part, found in parts.items():
        if not found.names:
            raise UserError(f"{folders[part]} holds no image: put images in, or delete the folder")
    return parts, classes


def class_folders(folder: Path) -> list[str]:
    """Return the sorted names of class folders.

    Hidden folders, and `__MACOSX` from a zip archive, are no classes.
    """
    try:
        found = [path.name for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}") from error
    return sorted(name for name in found if not name.startswith((".", "__MACOSX")))


def split(part: Part, classes: list[str], share: float, seed: int) -> tuple[Part, Part]:
    """Return a training and a test part, which gets `share` of each class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(part.labels)
    tested = torch.zeros(len(labels), dtype=torch.bool)
    for label, name in enumerate(classes):
        places = (labels == label).nonzero().flatten()
        if len(places) < 2:
            raise UserError(
                f"the class {name} has one image, and a test part needs another: add images, or "
                f"give test/ beside train/"
            )
        count = min(max(1, round(share * len(places))), len(places) - 1)
        order = torch.randperm(len(places), generator=generator)
        tested[places[order[:count]]] = True

    def chosen(mask: Tensor) -> Part:
        places = mask.nonzero().flatten().tolist()
        return Part([part.names[i] for i in places], [part.labels[i] for i in places])

    return chosen(~tested), chosen(tested)


def _list(root: Path, folder: Path, part: str, classes: list[str]) -> Part:
    """Return the images of a part, as torchvision's ImageFolder lists them."""
    if unknown := set(class_folders(folder)) - set(classes):
        raise UserError(
            f"{folder} has the class {sorted(unknown)[0]}, which train/ does not have: its classes "
            f"are {', '.join(classes)}"
        )
    datasets = import_torchvision().datasets
    endings = tuple(datasets.folder.IMG_EXTENSIONS)

    class Listed(datasets.ImageFolder):  # type: ignore[name-defined]
        def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
            # the training part's: a class that the test part lacks must not shift the labels
            return classes, {name: number for number, name in enumerate(classes)}

    def is_image(file: str) -> bool:
        name = Path(file).name
        return name.lower().endswith(endings) and not name.startswith(".")

    if not classes:
        raise UserError(_none_found(folder))
    listed = Listed(str(folder), is_valid_file=is_image, allow_empty=True)
    names = [Path(file).relative_to(root).as_posix() for file, _ in listed.samples]
    return Part(names, [label for _, label in listed.samples])


def _none_found(folder: Path) -> str:
    inside = [path.name for path in folder.iterdir()][:3]
    held = f"it holds {', '.join(inside)}" if inside else "it is empty"
    return f"{folder} has no images in folders of classes ({held}). What is needed is {LAYOUT}"

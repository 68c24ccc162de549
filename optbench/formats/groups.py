"""The folders of the configuration files, and the choices in them."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from optbench.common.files import expanded

FOLDER_FLAG = re.compile(r"(?:--config-dir|--config-path)=(.+)")
own_folders: list[Path] = []  # the user's configuration folders, given on the command line


def own_places() -> list[str]:
    """Return where classes of the user's may lie: each folder of `own_folders`, and beside it."""
    folders = [folder.resolve() for folder in own_folders]
    return [str(place) for folder in folders for place in (folder, folder.parent)]


def config_folder() -> Path:
    """Return the folder `conf/`: beside the package in a checkout, else inside it."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def config_folders(words: Sequence[str]) -> Iterator[Path]:
    """Yield the configuration folders that a command line gives."""
    for word in words:
        if match := FOLDER_FLAG.fullmatch(word):
            yield Path(expanded(match[1]))
        elif word.lstrip("+").startswith("hydra.searchpath="):
            yield from map(Path, re.findall(r"file://([^,\]'\"]+)", word))


def choices(group: str, *, own: bool = True) -> dict[str, Path]:
    """Return the files of a group by their names in `GROUP=NAME`.

    own: return the user's files, too.
    """
    found: dict[str, Path] = {}
    for place in (config_folder(), *(own_folders if own else ())):
        folder = place / group
        for path in sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


@cache
def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of one of optbench's own configuration files."""
    return yaml.safe_load(path.read_text("utf-8"))

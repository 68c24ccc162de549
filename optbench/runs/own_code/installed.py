"""Tell which distribution installed a module, and which modules are Python's."""

import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

FOLDER_NAMES = ("site-packages", "dist-packages")


def install_folder(path: str) -> str | None:
    """Return the folder of installed packages that a file lies in, or None.

    Such folders are those of `site` and `sysconfig`, and folders of the usual names on the module
    path. Elsewhere, a folder with a usual name may hold a user's project.
    """
    for each in _names_of(path):
        for folder in _install_folders(tuple(sys.path)):
            if each.startswith(folder + os.sep):
                return folder
    return None


@cache
def _install_folders(module_path: tuple[str, ...]) -> list[str]:
    usual = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    usual |= {*site.getsitepackages(), *filter(None, [site.USER_SITE])}
    usual |= {entry for entry in module_path if Path(entry).name in FOLDER_NAMES}
    found = {name for entry in usual for name in _names_of(entry)}
    return sorted(found, key=len, reverse=True)  # inner folders first


def _names_of(path: str) -> tuple[str, str]:
    """Return a path as it is given, and with its links followed."""
    return os.path.abspath(path), os.path.realpath(path)  # noqa: PTH100


def is_standard(path: str) -> bool:
    """Return whether a file belongs to Python's standard library."""
    folders = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    real = os.path.realpath(path)
    inside = any(real.startswith(os.path.realpath(folder) + os.sep) for folder in folders)
    return inside and install_folder(path) is None


@cache
def distribution_of(path: str) -> tuple[str, str] | None:
    """Return name and version of the distribution that installed a module's file.

    None for a file that no distribution installed, and for a distribution in editable mode, whose
    version stays the same when its code changes.
    """
    folder = install_folder(path)
    if folder is None:
        return None
    inside = next(each for each in _names_of(path) if each.startswith(folder + os.sep))
    relative = Path(os.path.relpath(inside, folder)).as_posix()
    top = relative.split("/")[0].split(".")[0]
    for found in _candidates(top):
        if _holds(found, relative, top) and not _is_editable(found):
            return found.metadata["Name"].lower().replace("_", "-"), found.version
    return None


def _candidates(top: str) -> Iterator[metadata.Distribution]:
    """Yield distributions that may hold a top-level module, first the one of its name."""
    with suppress(metadata.PackageNotFoundError, ValueError):
        yield metadata.distribution(top)
    for name in _distributions().get(top, ()):
        with suppress(metadata.PackageNotFoundError, ValueError):
            yield metadata.distribution(name)


@cache
def _distributions() -> dict[str, list[str]]:
    """Return distributions by top-level module; this takes 0.3 s with many packages."""
    return {top: list(names) for top, names in metadata.packages_distributions().items()}


def _holds(found: metadata.Distribution, relative: str, top: str) -> bool:
    """Return whether a distribution lists the file or, without a list, the module."""
    files = found.files
    if files is None:
        return top in (found.read_text("top_level.txt") or top).split()
    return any(file.as_posix() == relative for file in files)


def _is_editable(found: metadata.Distribution) -> bool:
    """Return whether a distribution was installed in editable mode (PEP 610)."""
    try:
        told = json.loads(found.read_text("direct_url.json") or "{}")
        return bool(told.get("dir_info", {}).get("editable"))
    except (ValueError, AttributeError):
        return False

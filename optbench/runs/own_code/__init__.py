"""Digests of the user's own code in a run, so that edited code makes a new run.

Own code is every class or function that a configuration names and whose file lies outside
site-packages, or in a package that is installed in editable mode. Modules outside site-packages
that own code imports, directly or in turn, count as well, with the packages around them. The
identity of own code is a digest of its files' syntax trees (`syntax_trees.digest`), or of the cells
of a notebook. Other distributions count by name and version. torch, NumPy, Hydra and optbench do
not count: run.json has their versions, and earlier runs keep their identity.
"""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from uuid import uuid4

from optbench.common.console import warn
from optbench.common.errors import UserError
from optbench.datasets.torchvision_shim import with_torchvision
from optbench.formats.keys import PROBLEM_GROUPS
from optbench.formats.older_code import UNKNOWN, Code, changes, code_in, join, sourceless, targets
from optbench.runs.own_code.installed import distribution_of
from optbench.runs.own_code.search import NO_SOURCE, NOTEBOOK, Search, is_by_version

Files = dict[str, str]


class Known(NamedTuple):
    """The files of a target, and the objects and modules loaded at the time."""

    loaded: list[Any]
    modules: list[str]
    files: Files


_known: dict[str, Known] = {}  # by target, for the life of the process
_told: set[str] = set()  # targets without source


def code_of(groups: Mapping[str, Any]) -> Code:
    """Return the files and distributions of each target in a part of a configuration.

    Files have digests, distributions have versions. A target that is torch's or optbench's alone
    has no entry. The targets are imported.
    """
    found = {target: _files_of(target) for target in dict.fromkeys(targets(groups))}
    return {target: files for target, files in found.items() if files}


def of_problem(config: Mapping[str, Any]) -> Code:
    """Return the code of the problem, which all compared optimizers share."""
    return code_of({key: config.get(key) for key in PROBLEM_GROUPS})


def folder_of(code: Code) -> str | None:
    """Return the folder of own code, relative to the current folder.

    None for the current folder, and for several folders.
    """
    found = set()
    for name in {target.split(".")[0] for target in code} - {"__main__"}:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and distribution_of(file) is None:
            found.add(Path(file).resolve().parents[Path(file).name == "__init__.py"])
    found -= {Path.cwd().resolve()}
    return os.path.relpath(found.pop()) if len(found) == 1 else None


def tell(code: Code) -> None:
    """Warn once of targets without source.

    A target that cannot be imported is left out: building it raises a better error.
    """
    for target in sourceless(code):
        if target not in _told and target not in code[target]:
            _told.add(target)
            end = f" ({NO_SOURCE})"
            names = join([n.removesuffix(end) for n in code[target] if n.endswith(end)])
            warn(
                f"{target} is made by code without source ({names}), of which no change "
                f"can be seen: its runs are recorded, and never reused or resumed"
            )


def check_unchanged(code: Code, record: Mapping[str, Any]) -> None:
    """Raise `UserError` where this process has loaded other code than the plan's."""
    planned = code_in(record)
    unknown = {*sourceless(code), *sourceless(planned)}
    for target in sorted({*code, *planned} - unknown):
        if code.get(target) != planned.get(target):
            names = changes(planned.get(target, {}), code.get(target, {}))
            raise UserError(
                f"{join(names)} changed while the sweep was running, and its runs would be of "
                f"different code: give the same command again"
            )


def _files_of(target: str) -> Files:
    if is_by_version(target):
        return {}
    if found := _distribution(target):
        return {found[0]: found[1]}
    located = _locate(target)
    if located is None:
        return {target: f"{UNKNOWN}{uuid4().hex[:12]}"}
    known = _known.get(target)
    # the loaded objects are the same as before, so a later edit of the file would not run
    if known and _same(known.loaded, [located[0], *_loaded(known.modules)]):
        return known.files
    search = Search(*located)
    files = {
        name: f"{UNKNOWN}{uuid4().hex[:12]}" if digest == NO_SOURCE else digest
        for name, digest in sorted(search.files.items())
    }
    modules = sorted(search.origins)
    if NOTEBOOK not in files:  # the cells of a notebook may change at any time
        _known[target] = Known([located[0], *_loaded(modules)], modules, files)
    return files


def _loaded(modules: list[str]) -> list[Any]:
    """Return the loaded modules and their specs, of which a reload makes new ones."""
    found = [sys.modules.get(name) for name in modules]
    return [*found, *(getattr(module, "__spec__", None) for module in found)]


def _same(before: list[Any], now: list[Any]) -> bool:
    return len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))


def _distribution(target: str) -> tuple[str, str] | None:
    """Return name and version of a target's distribution, without an import."""
    try:
        spec = find_spec(target.split(".")[0])
    except (ImportError, ValueError):
        return None
    found = spec and spec.has_location and spec.origin and distribution_of(spec.origin)
    return found or None


def _locate(target: str) -> tuple[Any, str] | None:
    """Return the object that Hydra would call, and its module; None if not importable."""
    try:
        return with_torchvision(lambda: _walk(target.split(".")))
    except Exception:  # the module's own code may raise anything
        return None


def _walk(parts: list[str]) -> tuple[Any, str]:
    found: Any = import_module(parts[0])
    home = parts[0]
    for number, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part) and isinstance(found, ModuleType):
            import_module(".".join(parts[:number]))
        found = getattr(found, part)
        if isinstance(found, ModuleType):
            home = found.__name__
    return found, home

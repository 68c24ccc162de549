"""Walk from a class or function through its module and all its imports."""

import linecache
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

from optbench.runs.own_code import syntax_trees
from optbench.runs.own_code.installed import distribution_of, install_folder, is_standard

# packages without digests, since every run.json has their versions
VERSIONED_PACKAGES = ("torch", "numpy", "hydra", "omegaconf", "optbench")
PLAIN_TYPES = (bool, int, float, complex, str, bytes, tuple, frozenset, type(None))
NO_SOURCE = "no source"
NOTEBOOK = "notebook"  # stands for a file's name
MAX_AROUND = 500  # Python files
Import = tuple[str, str | None]  # a module, and the folder of the file that imports it


class Search:
    """One walk, which finds modules without importing them and runs no code.

    files: the digest of each own module's file (or NO_SOURCE), and the version of each
    distribution. origins: the paths of the own modules that were read.
    """

    def __init__(self, found: Any, home: str) -> None:
        """Walk from `found`, the object of a target, in the module `home`."""
        self.files: dict[str, str] = {}
        self.origins: dict[str, str] = {}  # by module
        self.defined: dict[str, set[str]] = {}  # names, by the path of a source
        self.seen: set[str] = set()
        self._specs: dict[str, ModuleSpec | None] = {}
        self._cells: dict[str, str] = {}
        self._constants: dict[str, str] = {}
        self._around: set[Path] = set()  # folders of which all sources count
        pieces = list(pieces_of(found))
        self.follow((name, None) for name in [home, *(p.__module__ or "" for p in pieces)])
        for piece in pieces:
            if not self.stands_in_source(piece):
                self.files[f"{piece.__qualname__} ({NO_SOURCE})"] = NO_SOURCE
        if self._cells:
            text = repr((sorted(self._cells.values()), sorted(self._constants.items())))
            self.files[NOTEBOOK] = syntax_trees.digest(text)

    def follow(self, modules: Iterable[Import]) -> None:
        """Read the user's own modules, and the modules that they import."""
        left = list(modules)
        while left:
            name, folder = left.pop()
            if not name or name in self.seen or is_by_version(name):
                continue
            self.seen.add(name)
            left.append((name.rpartition(".")[0], folder))  # a package is imported first
            spec = self._spec(name, folder)
            if name == "__main__":
                path = getattr(sys.modules[name], "__file__", None)
                if path and Path(path).is_file():
                    left += self._read_file(name, path)
            elif spec and spec.has_location and spec.origin and not self._is_installed(spec.origin):
                package = spec.name.rpartition(".")[0]
                label = f"{name.replace('.', '/')}.py"
                if spec.submodule_search_locations is not None:
                    package, label = spec.name, f"{name.replace('.', '/')}/__init__.py"
                self.origins[name] = spec.origin
                left += self._read(label, spec.origin, _source(spec), package)
                left += _modules_within(name)

    def _read_file(self, name: str, path: str) -> list[Import]:
        """Read a script or an executed file, which cannot be imported by name."""
        self.origins[name] = path
        if path in self.defined or self._is_installed(path):
            return []
        try:
            text = Path(path).read_bytes()
        except OSError:
            text = None
        return self._read(Path(path).name, path, text, "")

    def _read(self, label: str, path: str, text: str | bytes | None, package: str) -> list[Import]:
        """Note the digest of one source, and return the modules that the source imports."""
        self.defined[path] = set()
        if text is None:
            self.files[f"{label.removesuffix('.py')} ({NO_SOURCE})"] = NO_SOURCE
            return []
        self.files[label] = syntax_trees.digest(text)
        tree = syntax_trees.parse(text)
        if tree is None:
            return []
        self.defined[path] = syntax_trees.defined(tree)
        if syntax_trees.loads_unnamed(tree):
            self._read_around(Path(path))
        return [(name, str(Path(path).parent)) for name in syntax_trees.imports(tree, package)]

    def _read_around(self, path: Path) -> None:
        """Note the digests of all sources below a module's folder or outermost package.

        The module makes up the names of files that it loads, so any of these may be loaded. With
        more than `MAX_AROUND` files, the module counts as without source.
        """
        path = path.resolve()
        above = path.parent  # of the outermost package
        while (above / "__init__.py").is_file() and above.parent != above:
            above = above.parent
        home = above / path.relative_to(above).parts[0] if above != path.parent else above
        if home in self._around:
            return
        self._around.add(home)
        found = list(islice(_sources_below(home), MAX_AROUND + 1))
        if len(found) > MAX_AROUND:
            self.files[f"{path.stem} ({NO_SOURCE})"] = NO_SOURCE
            return
        for each in found:
            with suppress(OSError):
                label = each.relative_to(above).as_posix()
                self.files.setdefault(label, syntax_trees.digest(each.read_bytes()))

    def _is_installed(self, path: str) -> bool:
        """Return whether a file is Python's or a distribution's; note the latter."""
        folder = install_folder(path)
        if folder is None:
            return is_standard(path)
        found = distribution_of(path)
        if found is not None and not is_by_version(found[0]):
            self.files[found[0]] = found[1]
        return found is not None

    def _spec(self, name: str, folder: str | None) -> ModuleSpec | None:
        """Return a module's spec, as loaded if it is. folder: another place to search."""
        if name not in self._specs:
            loaded = getattr(sys.modules.get(name), "__spec__", None)
            try:
                self._specs[name] = loaded or self._find(name, folder)
            except Exception:  # another package's finder may raise anything
                self._specs[name] = None
        return self._specs[name]

    def _find(self, name: str, folder: str | None) -> ModuleSpec | None:
        parent = name.rpartition(".")[0]
        if not parent:
            return find_spec(name) or (PathFinder.find_spec(name, [folder]) if folder else None)
        # not by `find_spec`, which would import the package
        places = getattr(self._spec(parent, folder), "submodule_search_locations", None)
        if places is None:
            return None
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        return next(filter(None, (finder.find_spec(name, places) for finder in finders)), None)

    def stands_in_source(self, piece: Any) -> bool:
        """Return whether the source of a class or function was read; `exec` leaves none."""
        module = piece.__module__ or "builtins"
        functions = list(functions_of(piece))
        path = self.origins.get(module)
        if path is None:
            foreign = is_by_version(module) or self._spec(module, None) is not None
            if module == "builtins":
                foreign = not functions
            if foreign and module != "__main__":
                return True
        elif isinstance(piece, type) and piece.__name__ in self.defined[path]:
            return True
        if not functions:
            return self._has_cell(piece)
        read = [self._has_code(function, path) for function in functions]  # no short cut: reads all
        return any(read)

    def _has_cell(self, piece: type) -> bool:
        """Return whether exactly one cell defines a class that has no functions."""
        module = sys.modules.get(piece.__module__)
        if module is None or hasattr(module, "__file__"):
            return False
        cells = {}
        for name, entry in list(linecache.cache.items()):
            text = "".join(entry[2]) if len(entry) == 4 and not Path(name).is_file() else ""
            tree = syntax_trees.parse(text) if f"class {piece.__name__}" in text else None
            if tree and piece.__name__ in syntax_trees.defined(tree):
                cells[syntax_trees.digest(text)] = name, text
        for name, text in cells.values() if len(cells) == 1 else ():
            self._read_cell(name, text, vars(module))
        return len(cells) == 1

    def _has_code(self, function: FunctionType, path: str | None) -> bool:
        """Return whether a function has source in its module, another file or a cell."""
        name = function.__code__.co_filename
        if path and os.path.realpath(name) == os.path.realpath(path):
            return True
        if Path(name).is_file():
            self.follow(self._read_file(name, name))
            return True
        lines = linecache.getlines(name, function.__globals__)
        if lines:
            self._read_cell(name, "".join(lines), function.__globals__)
        return bool(lines)

    def _read_cell(self, name: str, text: str, content: Mapping[str, Any]) -> None:
        """Note a cell and the cells that it uses. content: the notebook's variables."""
        if name in self._cells:
            return
        self._cells[name] = syntax_trees.digest(text)
        tree = syntax_trees.parse(text)
        if tree is None:
            return
        self.follow((each, str(Path.cwd())) for each in syntax_trees.imports(tree, ""))
        for used in sorted(syntax_trees.names(tree) & set(content)):
            value = content[used]
            if isinstance(value, PLAIN_TYPES):
                self._constants[used] = repr(value)
            elif isinstance(value, ModuleType):
                self.follow([(value.__name__, None)])
            elif callable(value):
                pieces = list(pieces_of(value))
                self.follow((piece.__module__ or "", None) for piece in pieces)
                for piece in pieces:
                    self.stands_in_source(piece)


def _sources_below(folder: Path) -> Iterator[Path]:
    """Yield the Python files below a folder, without hidden and installed ones."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith((".", "__")) and name not in ("site-packages", "node_modules")
        )
        yield from (Path(place, name) for name in sorted(files) if name.endswith(".py"))


def _modules_within(name: str) -> Iterator[Import]:
    """Yield the modules that a loaded module holds, without its own submodules."""
    for value in list(vars(sys.modules.get(name, object)).values()):
        # submodules are left out, since other modules decide how many are loaded
        if isinstance(value, ModuleType) and not value.__name__.startswith(f"{name}."):
            yield value.__name__, None


def pieces_of(found: Any) -> Iterator[Any]:
    """Yield the classes and functions that a callable is made of."""
    left, seen = [found], list[Any]()
    while left:
        each = left.pop()
        if any(each is other for other in seen):
            continue
        seen.append(each)
        if isinstance(each, partial):
            left += [v for v in (each.func, *each.args, *each.keywords.values()) if callable(v)]
        elif isinstance(each, MethodType):
            left += [each.__func__, each.__self__]
        elif isinstance(each, type):
            yield from (base for base in each.__mro__ if base is not object)
        elif hasattr(each, "__wrapped__"):
            left.append(each.__wrapped__)  # the decorator is imported where it is used
        elif isinstance(each, FunctionType):
            yield each
        elif not isinstance(each, ModuleType):
            left.append(type(each))


def functions_of(piece: Any) -> Iterator[FunctionType]:
    """Yield a function itself, or the functions of a class."""
    for value in [piece] if isinstance(piece, FunctionType) else vars(piece).values():
        inner = getattr(value, "__func__", getattr(value, "fget", value))
        inner = getattr(inner, "__wrapped__", inner)
        if isinstance(inner, FunctionType):
            yield inner


def is_by_version(name: str) -> bool:
    """Return whether a module counts by its package's version alone, such as torch's."""
    return name.split(".")[0] in VERSIONED_PACKAGES or name.startswith("hydra_plugins.optbench")


def _source(spec: ModuleSpec) -> str | bytes | None:
    """Return a module's source; None where there is none, or where reading fails."""
    try:
        path = Path(str(spec.origin))
        if path.suffix == ".py" and path.is_file():
            return path.read_bytes()
        return spec.loader.get_source(spec.name)  # type: ignore[union-attr]
    except (OSError, ImportError, AttributeError, SyntaxError, UnicodeDecodeError):
        return None

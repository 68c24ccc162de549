"""The pages of docs/api/: what Python code may call, from the docstrings.

A comment `<!-- api MODULE -->` stands for the public names of a module. `<!-- api conf/GROUP -->`
stands for the functions and classes of optbench that the YAMLs of a config group name.
"""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

MARK = re.compile(r"^<!-- api (\S+) -->$", re.M)
TARGET = re.compile(r"^ *_target_: (optbench\.[\w.]+)", re.M)


def setup(app: Sphinx) -> dict[str, Any]:
    """Replace the comments when a page is read."""
    app.connect("source-read", replace)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def replace(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace each comment of a page of docs/api/ by directives of autodoc."""
    if page.startswith("docs/api/"):
        root = Path(app.srcdir)
        source[0] = MARK.sub(lambda found: directives(names(root, found[1])), source[0])


def names(root: Path, what: str) -> list[str]:
    """Return the full names of the public objects of a module or of a config group."""
    if not what.startswith("conf/"):
        return [f"{what}.{name}" for name in import_module(what).__all__]
    texts = (path.read_text("utf-8") for path in sorted((root / what).rglob("*.yaml")))
    return list(dict.fromkeys(name for text in texts for name in TARGET.findall(text)))


def directives(found: list[str]) -> str:
    """Return a directive of autodoc for each object that has a docstring."""
    lines = []
    for name in found:
        module, _, last = name.rpartition(".")
        thing = getattr(import_module(module), last)
        if inspect.isclass(thing):
            own = not issubclass(thing, tuple)  # a tuple's fields are told in its docstring
            members = "   :members:\n" if own and module == "optbench" else ""
            lines.append(f".. autoclass:: {name}\n{members}")
        elif callable(thing):
            lines.append(f".. autofunction:: {name}\n")
    return "\n".join(["```{eval-rst}", *lines, "```"])

"""Docstrings on the site: plain text with `code`, lists of arguments, formulas and examples."""

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
ARGUMENT = re.compile(r"^(\w+(?:, \w+)*): (?=\S)", re.M)
FIELD = re.compile(r"^ *:\w+[^:]*:")  # of napoleon, which is done


def setup(app: Sphinx) -> dict[str, Any]:
    """Rewrite every docstring before autodoc parses it."""
    app.connect("autodoc-process-docstring", rewrite, priority=900)  # after napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def rewrite(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Replace the lines of a docstring in place."""
    lines[:] = as_rest("\n".join(lines)).split("\n")


def as_rest(text: str) -> str:
    """Return a docstring as reStructuredText."""
    made: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        rows = paragraph.splitlines()
        example = all(row.startswith("    ") for row in rows) and "".join(made[-1:]).endswith(":")
        if FIELD.match(paragraph):
            made.append(paragraph)
        elif example or (made and all(is_formula(row) for row in rows)):
            made.append("::\n\n" + "\n".join(f"    {row}" for row in rows))
        elif re.search(r"^\s+\S", paragraph, re.M) and ARGUMENT.search(paragraph):
            made.append(arguments(rows))
        else:
            made.append(escaped(paragraph))
    return "\n\n".join([*made, ""])


def is_formula(row: str) -> bool:
    """Return whether a row is one formula or more, and no sentence."""
    return bool(re.search(r" [-+]?= ", row)) and not re.search(r"[a-z]{2,}\. |\.$|: ", row)


def arguments(rows: list[str]) -> str:
    """Return `name: text` and its indented rows as a list; other rows stand as they are."""
    made: list[str] = []
    for row in rows:
        if found := ARGUMENT.match(row):
            made.append(f"- **{escaped(found[1])}**: {row[found.end() :]}")
        elif row.startswith(" "):
            made[-1] += f" {row.strip()}"
        else:
            made.append(row)
    return "\n\n".join(line if line.startswith("- ") else escaped(line) for line in map(item, made))


def item(line: str) -> str:
    """Return an item of a list with its text escaped."""
    name, mark, text = line.partition("**: ")
    return f"{name}{mark}{escaped(text)}" if mark else line


def escaped(text: str) -> str:
    """Return a text in which only `code` is markup."""
    parts = CODE.split(text)
    parts[::2] = [re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    # markup ends at the end of a word only
    parts[2::2] = [f"\\ {part}" if re.match(r"\w", part) else part for part in parts[2::2]]
    return "".join(parts)

"""The pages of the site, and its tables of contents, from the lists of links on these pages.

The pages named below are lists of links in Markdown, which a code host shows too. Each list below a
heading becomes a part of the site's contents. Pages of docs/ that no list names join the part with
the comment `<!-- and the pages that no list names -->`, so that none is ever missing.
"""

import re
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from sphinx.application import Sphinx

from scripts.site.result_pages import REBUILT, result_pages

LISTS = ("docs/index", "docs/course/index", "docs/api/index")
REST = "<!-- and the pages that no list names -->"
LINK = re.compile(r"^- \[[^]]*\]\(([^)#]+)\.md\)", re.M)
RESULTS = "results/*"  # pages that also join the part with the comment below
REST_OF_RESULTS = "<!-- and the results that no list names -->"


READ = {"docs", "results", "optbench"}  # folders of the root that have pages


def page_files(root: Path) -> list[str]:
    """Return the files that are pages of the site, from the repository's root."""
    titled = result_pages(root)
    engines = root / "optbench" / "engines" / "compiled_mlp" / "README.md"
    found = [str(path.relative_to(root)) for path in [*titled, engines]]
    return ["docs/**.md", *found, "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]


def unread_folders(root: Path) -> list[str]:
    """Return the folders with no page: users' runs, and what tools leave in a checkout."""
    others = [path for path in root.iterdir() if path.name not in READ]
    within = [path for path in (root / "results").glob("*/*") if path.parent != root / REBUILT]
    return [str(path.relative_to(root)) for path in [*others, *within] if path.is_dir()]


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the contents to the pages with lists when they are read."""
    app.connect("source-read", add_contents)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Append a hidden table of contents for each list of links."""
    if page in LISTS:
        listed = {page for page in LISTS for page in links(page, str(app.srcdir))} | {LISTS[0]}
        rest = sorted(set(app.env.found_docs) - listed)
        source[0] += contents(page, source[0], rest)


def links(page: str, root: str) -> list[str]:
    """Return the pages that a page's lists name."""
    text = Path(root, f"{page}.md").read_text("utf-8")
    return [resolved(page, link) for link in LINK.findall(text)]


def resolved(page: str, link: str) -> str:
    """Return the page that a relative link of another page leads to."""
    return normpath(str(PurePosixPath(page).parent / link))


def contents(page: str, text: str, rest: list[str]) -> str:
    """Return the tables of contents of a page's parts as directives."""
    made = ""
    for part in re.split(r"^## ", text, flags=re.M):
        found = [resolved(page, link) for link in LINK.findall(part)]
        if REST in part:
            found += [name for name in rest if not fnmatch(name, RESULTS)]
        if REST_OF_RESULTS in part:
            found += [name for name in rest if fnmatch(name, RESULTS)]
        title = part.partition("\n")[0] if page == LISTS[0] else ""
        if found:
            caption = f":caption: {title}\n" if title and not title.startswith("#") else ""
            entries = "\n".join(f"/{name}" for name in found)
            made += f"\n```{{toctree}}\n:hidden:\n{caption}\n{entries}\n```\n"
    return made

"""The built site as a whole: every link and picture in it leads somewhere, pictures have words."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
FIRST_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>optbench</title>
<meta http-equiv="refresh" content="0; url=docs/index.html"></head>
<body><a href="docs/index.html">optbench: the documentation</a></body></html>
"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Check the site when its build has ended."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Page(HTMLParser):
    """The links, the anchors and the pictures without words of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.silent: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a tag."""
        found = dict(attrs)
        self.links += [value for key in ("href", "src") if (value := found.get(key))]
        if anchor := found.get("id"):
            self.anchors.add(anchor)
        if tag == "img" and not found.get("alt"):
            self.silent.append(str(found.get("src")))


def check(app: Sphinx, error: Exception | None) -> None:
    """Write the first page, and warn of each fault."""
    if error is None and app.builder.name == "html":
        out = Path(app.outdir)
        (out / "index.html").write_text(FIRST_PAGE, "utf-8")
        for fault in faults(out):
            LOGGER.warning(fault)


def faults(site: Path) -> list[str]:
    """Return a line for each link that leads nowhere, and each picture without words."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    pages = {path: page for path, page in pages.items() if "_downloads" not in path.parts}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        found += [f"{name}: no text alternative: {picture}" for picture in page.silent]
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{name}: nothing is at {link}")
            elif target in pages and unquote(parts.fragment) not in {"", *pages[target].anchors}:
                found.append(f"{name}: no such place: {link}")
    return found

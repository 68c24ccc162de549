"""The settings of the documentation site, which `scripts/docs` builds.

The source folder is the repository's root: links between docs/, results/ and the README are the
same on the site as on a code host.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pygments.lexers import TextLexer  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import optbench  # noqa: E402
from scripts.site.contents import page_files, unread_folders  # noqa: E402

project = "optbench"
release = version = optbench.__version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "scripts.site.api",
    "scripts.site.contents",
    "scripts.site.docstrings",
    "scripts.site.mathml",
    "scripts.site.whole",
]
root_doc = "docs/index"
include_patterns = page_files(ROOT)
exclude_patterns = unread_folders(ROOT)

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as a code host makes them
nitpicky = True
nitpick_ignore_regex = [  # types in signatures: of other packages, and of inner modules
    ("py:.*", r"(torch|np|numpy|pd|pandas|matplotlib|collections|pathlib|optbench)\..*"),
    ("py:.*", r"(Tensor|Figure|Path|Any|Callable|Sequence|Mapping|Iterable|Iterator|ParamsT)"),
]
default_role = "code"  # docstrings have Markdown's `code`
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 60

html_theme = "furo"
html_title = f"optbench {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}


def setup(app: Sphinx) -> None:
    """Show tables as plain text: Pygments has no lexer of that name."""
    app.add_lexer("csv", TextLexer)

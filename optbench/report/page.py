"""The report: one self-contained, interactive page (`python -m optbench report`).

The data flow is that of the figures: folder, tidy tables, statistics, one JSON object, a template.
Data never become active content. A Content-Security-Policy allows only the page's own script and
style, by their hashes, and the script builds only text nodes.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from optbench.analysis.comparison import Options
from optbench.common.errors import UserError
from optbench.common.files import replace_text
from optbench.report.collect import collect

WEB_FOLDER = Path(__file__).resolve().parent / "web"
SCRIPTS = (
    "uPlot.iife.min.js", "data.js", "chart.js", "keep.js", "figure.js", "table.js", "report.js",
)  # fmt: skip
STYLES = ("uPlot.min.css", "report.css")


class Written(NamedTuple):
    """The written report, and the files and runs that were left out."""

    path: Path
    runs: int
    problems: list[str]  # a line per file that could not be used
    older: list[str]  # a sentence on runs of older code, which are left out too


def write(
    folders: Sequence[str | Path],
    out: str | Path,
    conditions: Sequence[str] = (),
    y: str | None = None,
    facet: Sequence[str] | None = None,
    title: str | None = None,
    options: Options | None = None,
) -> Written:
    """Write the report of all finished runs below `folders` into the file `out`.

    conditions: KEY=VALUE filters. facet: keys of panels. y: the logged column that ranks
    optimizers, by default the sweep's, the training loss, or a tuned study's test result. title: of
    the page, by default the folders' names. options: in place of conditions, y, facet.
    Raises UserError if there is no run, or no file can be written. The report and the result name
    damaged and unfinished runs.
    """
    options = options or Options(y=y, facet=facet, where=conditions)
    data = collect([Path(folder) for folder in folders], options=options)
    data["title"] = title or data["title"]
    page = render(data)
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the name of a file, as in -o {out}/report.html")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, page)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another -o") from None
    older = data["older"]
    problems = [text for text in data["left_out"] if text not in older]
    return Written(out, len(data["curves"]["runs"]), problems, older)


def render(data: dict[str, Any]) -> str:
    """Return the page. Runs' text appears once, as JSON where no tag opens or closes."""
    script = "\n".join((WEB_FOLDER / name).read_text("utf-8") for name in SCRIPTS)
    css = "\n".join((WEB_FOLDER / name).read_text("utf-8") for name in STYLES)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # A path may hold bytes that are no text. JSON escapes those too.
    text = text.encode("utf-8", "backslashreplace").decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    page = environment.from_string((WEB_FOLDER / "report.html").read_text("utf-8"))
    return page.render(
        title=data["title"],
        script=Markup(script),
        style=Markup(css),
        data=Markup(text),
        script_hash=source_hash(script),
        style_hash=source_hash(css),
        version=data["version"],
        licence=(WEB_FOLDER / "uPlot.LICENSE").read_text("utf-8"),
    )


def source_hash(text: str) -> str:
    """Return the hash that allows an inline script or style in a security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

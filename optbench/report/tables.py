"""The parts of the sections of a report, as plain data.

A chart is a list of panels `{title, x, y, logx, logy, percent, lines}`, and a line is `{name,
toggle, x, mid, low, high, n, dots, lost}`. A table is `{columns, rows}` with cells `{t: text, v:
number to sort by}`. Numbers are formatted once, by the package's statistics.
"""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import number
from optbench.figures import style
from optbench.figures.panels import add_note
from optbench.figures.save import UNDATED
from optbench.report.sections.curves import Names

Panel = dict[str, Any]
Cell = dict[str, Any]


def sortable_cell(value: float, text: str | None = None) -> Cell:
    """Return a cell that shows and sorts a number. Missing values sort last."""
    return {"t": number(value) if text is None else text, "v": value}


def head_cell(name: str) -> Cell:
    """Return the cell that names a row."""
    return {"t": name, "v": name, "head": True}


def chart(title: str, x: str, y: str, metric: str, lines: list[dict[str, Any]]) -> Panel:
    """Return one panel with a logarithmic x axis; the metric decides on the y axis."""
    if not lines:
        raise UserError(f"nothing to draw against {x}")
    return {
        "title": title, "x": x, "y": y, "logx": True, "logy": metric_of(metric).log,
        "percent": metric_of(metric).percent, "lines": lines,
    }  # fmt: skip


def picture(job: Callable[[], Figure], names: Names, note: str = "") -> dict[str, Any] | None:
    """Return a matplotlib figure as SVG with a text alternative; None if inapplicable.

    note: a sentence below the figure. In the result `groups` maps the SVG ids, up to their dot, to
    the switches that parts follow.
    """
    try:
        figure = job()
    except UserError:
        return None
    if note:
        add_note(figure, note)
    stream = io.StringIO()
    with rc_context({**style.RC, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata=UNDATED["svg"])
        words = [
            text.get_text()
            for axes in figure.axes
            for text in [*axes.texts, *axes.get_yticklabels(), axes.title]
        ]
    svg = stream.getvalue()
    caption = " ".join(figure.get_supxlabel().split())
    return {
        "svg": svg[svg.index("<svg") :],
        "alt": "; ".join(word for word in words if word),
        "caption": caption,
        "groups": {style.group_of(name): toggle for name, toggle in names.toggle_of.items()},
    }


def plain(value: Any) -> Any:
    """Return numbers with six significant digits; infinities as text, NaN as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        rounded = float(f"{value:.6g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
    return int(value) if isinstance(value, np.integer) else value

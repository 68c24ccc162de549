"""Formulas as MathML, which browsers draw by themselves: no script, and nothing is loaded."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml, pick_math_environment
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Make MathML the renderer of formulas."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def visit_inline(writer: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    writer.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.math_block) -> None:
    """Write a formula of its own. A blank line or a wide space in it begins a new one."""
    parts = [part for part in re.split(r"\n\n|\\qquad", node.astext()) if part.strip()]
    writer.body.append('<div class="formula" tabindex="0">')
    for part in parts:
        environment = pick_math_environment(part)
        inside = part if part.strip().startswith("\\begin") else wrapped(part, environment)
        writer.body.append(mathml(inside, block=True))
    writer.body.append("</div>\n")
    raise nodes.SkipNode


def wrapped(part: str, environment: str) -> str:
    """Return a formula within its environment, if it has several lines."""
    if environment.startswith("align"):
        return f"\\begin{{{environment}}}{part}\\end{{{environment}}}"
    return part


def mathml(tex: str, block: bool = False) -> str:
    """Return a formula as a `math` element. Raises an error for TeX that is not known."""
    return str(latex2mathml.tex2mathml(tex, as_block=block))

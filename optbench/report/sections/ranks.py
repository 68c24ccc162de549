"""The critical-difference diagram and the mean ranks of a report."""

from typing import Any

from optbench.analysis.comparison import Comparison
from optbench.analysis.over_problems import ranking
from optbench.figures.over_problems import draw_ranks
from optbench.report.sections.curves import Names
from optbench.report.tables import picture


def ranks(made: Comparison, column: str, names: Names) -> dict[str, Any] | None:
    """Return the diagram and the mean ranks. Raise UserError if they do not apply."""
    found = ranking(made, column, made.options.facet)
    image = picture(lambda: draw_ranks(found, column), names, made.few_searches)
    rows = [[str(name), float(value)] for name, value in found.ranks.items()]
    return None if image is None else image | {"rows": rows}

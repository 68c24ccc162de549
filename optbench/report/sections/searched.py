"""What a tuned study searched, and the spread over its searches, as plain data of a report."""

from typing import Any

from optbench.analysis.comparison import Comparison
from optbench.analysis.tuned.chosen import HEADS as CHOSEN_HEADS
from optbench.analysis.tuned.searched import HEADS, searched_spaces
from optbench.analysis.tuned.spread import spread_cells
from optbench.analysis.verdict import named_chosen, named_spreads
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.report.sections.curves import Names
from optbench.report.tables import head_cell, sortable_cell


def searched(made: Comparison, names: Names) -> dict[str, Any]:
    """Return the table of the searched spaces. Raise UserError if no study tells them."""
    found = searched_spaces(made.manifests)
    if not found:
        raise UserError("no tuned study says what it searched")
    rows = [
        {
            "toggle": names.toggle(row.optimizer, row.optimizer),
            "cells": [head_cell(row.optimizer), *({"t": text, "v": text} for text in row[1:])],
        }
        for row in found
    ]
    return {"columns": list(HEADS), "rows": rows, "note": ""}


def chosen(made: Comparison, names: Names) -> dict[str, Any]:
    """Return the table of the chosen settings. Raise UserError if no study tells them."""
    found = named_chosen(made)
    if not found:
        raise UserError("no tuned study says what it chose")
    rows = [
        {
            "toggle": names.toggle(row.optimizer, row.optimizer),
            "cells": [
                {"t": row.problem, "v": row.problem},
                head_cell(row.optimizer),
                *({"t": text, "v": text} for text in row[2:]),
            ],
        }
        for row in found
    ]
    note = "Of all searches the choice with the best validation result."
    return {"columns": list(CHOSEN_HEADS), "rows": rows, "note": note}


def spread(made: Comparison, column: str, names: Names) -> dict[str, Any]:
    """Return the table of spreads over searches and seeds. Raise UserError without one."""
    found = named_spreads(made, column)
    if found.empty:
        raise UserError("a spread over searches needs two searches of each optimizer")
    heads, cells = spread_cells(found, column)
    own = heads.index("optimizer")
    rows = [
        {
            "toggle": names.toggle(texts[own], texts[own]),
            "cells": [
                *({"t": text, "v": text} for text in texts[:own]),
                head_cell(texts[own]),
                sortable_cell(values["searches"], str(values["searches"])),
                sortable_cell(values["over_searches"], texts[own + 2]),
                sortable_cell(values["over_seeds"], texts[own + 3]),
                {"t": texts[-1], "v": texts[-1]},
            ],
        }
        for texts, values in zip(cells, found.to_dict("records"), strict=True)
    ]
    note = (
        f"Standard deviations of the final {metric_of(column).title}: over searches (of the means "
        "of their seeds), and over seeds at one setting."
    )
    return {"columns": heads, "rows": rows, "note": note}

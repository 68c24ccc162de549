"""What a tuned study searched, as plain data of a report."""

from typing import Any

from optbench.analysis.comparison import Comparison
from optbench.analysis.tuned.searched import HEADS, searched_spaces
from optbench.common.errors import UserError
from optbench.report.sections.curves import Names
from optbench.report.tables import head_cell


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

"""What a sweep prints at its end: a table, the verdict, and where the rest lies.

The text reads the same in a pipe and without colours.
"""

import io
import shutil
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from optbench.analysis.columns import problem_text
from optbench.analysis.comparison import Comparison
from optbench.analysis.summary import format_final
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.report.sections import curves, verdict

MAX_WIDTH = 80  # columns


def lines(made: Comparison, finals: pd.DataFrame, folder: Path, claim: str = "") -> list[str]:
    """Return the table, the verdict, the folder and the report of a sweep as texts.

    finals: the `summary`. claim: the sentence on the sweep's claim, which replaces the verdict.
    """
    column = made.judged
    said = f"Claim:   {claim}" if claim else judged(made, column)
    return [
        "",
        table(finals, column),
        *([said] if said else []),
        f"Folder:  {folder}  (the whole table: summary.md; the figures: *.png, *.pdf)",
        f"Report:  python -m optbench report {folder}",
    ]


def table(finals: pd.DataFrame, column: str) -> str:
    """Return the main columns as text: optimizer, runs, and two final values."""
    names = list(map(str, finals))
    keys = names[: names.index("optimizer")]
    logged = [name for name in names if name.endswith("_median") and finals[name].notna().any()]
    others = ("test_accuracy", "val_accuracy", "train_loss")
    stems = [column, *(s for s in others if s != column and f"{s}_median" in logged)][:2]
    utf = (sys.stdout.encoding or "").lower().startswith("utf")
    drawn = Table(box=box.SIMPLE_HEAD if utf else box.ASCII, pad_edge=False)
    titles = [f"final {metric_of(stem).title}" for stem in stems]
    for index, title in enumerate(("optimizer", "runs", *titles)):
        drawn.add_column(Text(title), overflow="fold", justify="left" if not index else "right")
    problem = ""
    for _, row in finals.iterrows():
        if (here := problem_text(keys, row[keys].to_numpy())) != problem:
            drawn.add_section()
            drawn.add_row(Text(here, style="bold"))
            problem = here
        lost = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        cells = [f"{row['seeds']}{lost}", *(format_final(row, stem) for stem in stems)]
        drawn.add_row(Text(str(row["variant"])), *map(Text, cells))
    width = min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 0)).columns)
    written = io.StringIO()
    Console(file=written, width=width, force_terminal=sys.stdout.isatty() or None).print(drawn)
    # Lines have no trailing spaces, also in a pipe.
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()).strip("\n")


def judged(made: Comparison, column: str) -> str:
    """Return the verdicts in one sentence, or "" if there are none."""
    try:
        cards = verdict.cards(made, column, curves.names_of(made.plan))
    except UserError:
        cards = []
    if not cards:
        return ""
    by = f"by final {metric_of(column).label}"
    if len(cards) == 1:
        return f"Verdict: {str(cards[0]['headline']).rstrip('.')}, {by}."
    clear = [card["leader"] for card in cards if card["level"] == "clear"]
    counts = ", ".join(f"{name} on {count}" for name, count in Counter(clear).most_common())
    have = "has" if len(clear) == 1 else "have"
    first = f"Verdict: {len(clear)} of {len(cards)} problems {have} a clear leader {by}"
    return f"{first}: {counts}." if counts else f"{first}."

"""What a sweep prints at its end: a table, the verdict, and where the rest lies.

The text reads the same in a pipe and without colours.
"""

import io
import os
import shutil
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Literal

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from optbench.analysis.caveats import FEW_SEEDS, SETTLES, caveats
from optbench.analysis.columns import problem_text
from optbench.analysis.comparison import Comparison
from optbench.analysis.summary import format_final
from optbench.analysis.verdict import named_chosen
from optbench.common.errors import UserError
from optbench.common.metrics import MAIN_METRICS, metric_of
from optbench.common.names import clip
from optbench.common.text import capital, count
from optbench.report.sections import curves, verdict

PROGRAM = "python -m optbench"
WIDTH, MAX_WIDTH = 80, 120  # columns without a terminal, and in a wide one
GAP = 3  # columns between two of the table, and at its edges
MIN_NAME = 16  # columns for names
MAX_ROWS, MIN_ROWS = 24, 3  # of a table, and of each problem
MAX_CHOSEN = 3  # optimizers whose chosen settings are printed


def lines(
    made: Comparison, finals: pd.DataFrame, folder: Path, claim: str = "", candidate: str = ""
) -> list[str]:
    """Return the table, the verdict, the folder and the report of a sweep as texts.

    finals: the `summary`. claim, candidate: the sentences on the sweep's claim and on a candidate.
    A claim replaces the verdict, and so does a candidate if there is no claim.
    """
    column = made.judged
    said = f"Verdict: {candidate}" if candidate else judged(made, column)
    said = f"Claim:   {claim}" if claim else said
    return [
        "",
        table(finals, column),
        *of_earlier_commands(made, folder),
        *([said] if said else []),
        *([] if claim else settled(made)),
        *chosen(made),
        f"Folder:  {folder}  (the whole table: summary.md; the figures: *.png, *.pdf)",
        f"Report:  {program()} report {folder}",
    ]


def of_earlier_commands(made: Comparison, folder: Path) -> list[str]:
    """Return a line on runs of the folder that are not among the jobs of its last command."""
    _, outcomes = made.job_lists.get(folder, ({}, []))
    own = {str(job.get("run")) for job in outcomes}
    runs = map(Path, made.table["run"].astype(str).unique())
    others = [run for run in runs if run.is_relative_to(folder) and run.name not in own]
    if made.manifests or not own or not others:
        return []
    what = f"{count(len(others), 'run')} of earlier commands in this folder"
    return [f"Also:    {what}; another name=NAME keeps them apart"]


def program() -> str:
    """Return how the program is called here; scripts/run sets the variable."""
    return os.environ.get("OPTBENCH_PROGRAM", PROGRAM)


def chosen(made: Comparison) -> list[str]:
    """Return the chosen settings of a tuned study's few optimizers on one problem, as a line."""
    found = named_chosen(made) if made.tuned else []
    if not 0 < len(found) <= MAX_CHOSEN or len({row.problem for row in found}) > 1:
        return []
    settings = "; ".join(f"{row.optimizer} {row.setting}" for row in found)
    return [f"Chosen:  {settings}  (best by validation; each search's: verdict.md)"]


def settled(made: Comparison) -> list[str]:
    """Return the command that would settle a comparison of too few seeds, as a line."""
    found = [text for text in caveats(made) if FEW_SEEDS in text and not made.tuned]
    command = found[0].partition(SETTLES)[2] if found else ""
    return [f"Settle:  {command.replace(PROGRAM, program(), 1)}"] if command else []


def table(finals: pd.DataFrame, column: str) -> str:
    """Return the main columns as text: optimizer, runs, and two final values."""
    names = list(map(str, finals))
    keys = names[: names.index("optimizer")]
    logged = [name for name in names if name.endswith("_median") and finals[name].notna().any()]
    tested = (f"{part}_{name}" for part in ("test", "val") for name in MAIN_METRICS)
    others = (*tested, "train_loss")
    stems = [column, *(s for s in others if s != column and f"{s}_median" in logged)][:2]
    utf = (sys.stdout.encoding or "").lower().startswith("utf")
    width = min(MAX_WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns)
    heads = ["optimizer", "runs", *(f"final {metric_of(stem).title}" for stem in stems)]
    rows: list[tuple[str, list[str]]] = []  # problem, cells
    for _, row in finals.iterrows():
        lost = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        cells = [f"{row['seeds']}{lost}", *(format_final(row, stem) for stem in stems)]
        rows.append((problem_text(keys, row[keys].to_numpy()), [str(row["variant"]), *cells]))
    rows, left_out = first_rows(rows)
    # Heads wrap before names are clipped. Where names or the terminal need it, the last column
    # loses its ranges, and then goes; numbers stay whole.
    widths = widths_of(heads, rows)
    whole = [part for here, cells in rows for part in (*here.split(), cells[0])]  # no place to wrap
    longest = max(map(len, whole), default=0)
    notes = [f"{count(left_out, 'more row')} in summary.md"] if left_out else []
    if width - sum(widths[1:]) - GAP * len(heads) < max(MIN_NAME, longest):
        cut = any(" [" in cells[-1] for _, cells in rows)
        rows = [(here, [*cells[:-1], cells[-1].split(" [")[0]]) for here, cells in rows]
        widths = widths_of(heads, rows)
        notes += ["ranges of the last column: summary.md"] if cut else []
    if width - sum(widths[1:]) - GAP * len(heads) < MIN_NAME:
        heads, widths = heads[:3], widths[:3]
        notes[-1:] = ["more columns: summary.md"]
    room = max(width - sum(widths[1:]) - GAP * len(heads), MIN_NAME)
    mark = "…" if utf else "..."
    known = {cells[0] for _, cells in rows}
    shown = {name: clip(name, room, mark) for name in known}
    if len(set(shown.values())) < len(known):
        # clipped names would be the same: whole ones wrap
        shown = {name: textwrap.fill(name, room, subsequent_indent="  ") for name in known}
    wrapped = [part for here, _ in rows for part in textwrap.wrap(here, room)]
    widths[0] = min(room, max(map(len, [heads[0], *known, *wrapped])))
    drawn = Table(box=box.SIMPLE_HEAD if utf else box.ASCII, pad_edge=False)
    for index, head in enumerate(heads):
        free = width - sum(widths) - GAP * len(heads)
        widths[index] += min(max(len(head) - widths[index], 0), max(free, 0))
        justify: Literal["left", "right"] = "right" if index else "left"
        drawn.add_column(Text(head), overflow="fold", justify=justify, width=widths[index])
    problem = ""
    for here, cells in rows:
        if here != problem:
            drawn.add_section()
            for part in textwrap.wrap(here, room):
                drawn.add_row(Text(part, style="bold"))
            problem = here
        drawn.add_row(Text(shown[cells[0]]), *map(Text, cells[1 : len(heads)]))
    written = io.StringIO()
    Console(file=written, width=width, force_terminal=sys.stdout.isatty() or None).print(drawn)
    # Lines have no trailing spaces, also in a pipe.
    text = "\n".join(line.rstrip() for line in written.getvalue().splitlines()).strip("\n")
    wrapped = [line for note in notes for line in textwrap.wrap(note, width - 1)]
    return "\n ".join([text, *wrapped])


def first_rows(rows: list[tuple[str, list[str]]]) -> tuple[list[tuple[str, list[str]]], int]:
    """Return the first rows of each problem where all would fill a screen, and how many are left.

    The rows of a problem are the best first.
    """
    if len(rows) <= MAX_ROWS:
        return rows, 0
    most = max(MIN_ROWS, MAX_ROWS // len({problem for problem, _ in rows}))
    seen: Counter[str] = Counter()
    shown = []
    for problem, cells in rows:
        seen[problem] += 1
        if seen[problem] <= most:
            shown.append((problem, cells))
    return shown, len(rows) - len(shown)


def widths_of(heads: list[str], rows: list[tuple[str, list[str]]]) -> list[int]:
    """Return the least width of each column: of its longest cell, or word of its head."""
    columns = zip(heads, *(cells for _, cells in rows), strict=True)
    return [max(map(len, [*head.split(), *column])) for head, *column in columns]


def judged(made: Comparison, column: str) -> str:
    """Return the verdicts in one sentence, or "" if there are none."""
    try:
        cards = verdict.cards(made, column, curves.names_of(made.plan))
    except UserError:
        cards = []
    if not cards:
        return ""
    if text := verdict.nothing(made, cards):
        return text
    by = f"by final {metric_of(column).label}"
    if len(cards) == 1 and cards[0]["level"] == "none":
        return str(cards[0]["headline"])
    compared = [card for card in cards if card["level"] != "none"]  # with another one
    if len(compared) == 1:
        where = f"{compared[0]['problem']}: " if len(cards) > 1 else ""
        return f"Verdict: {where}{str(compared[0]['headline']).rstrip('.')}, {by}."
    clear = [card["leader"] for card in compared if card["level"] == "clear"]
    counts = ", ".join(f"{name} on {count}" for name, count in Counter(clear).most_common())
    have = "has" if len(clear) == 1 else "have"
    settings = f"{capital(made.few_searches)}: " if made.few_searches else ""
    first = (
        f"Verdict: {settings}{len(clear)} of {len(compared)} problems {have} a clear leader {by}"
    )
    return f"{first}: {counts}." if counts else f"{first}."

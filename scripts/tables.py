"""Tables in Markdown."""

from collections.abc import Mapping, Sequence


def markdown(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the lines of a table, one row for each mapping."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]

"""The rows of a run's CSV file that do not depend on the clock."""


def without_times(text: str) -> list[list[str]]:
    """Return the cells of a CSV file, its header first, without the columns of seconds."""
    rows = [line.split(",") for line in text.splitlines()]
    kept = [place for place, name in enumerate(rows[0]) if "seconds" not in name]
    return [[row[place] for place in kept] for row in rows]

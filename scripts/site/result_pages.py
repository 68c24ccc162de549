"""The pages of results/ that are pages of the site."""

from pathlib import Path

REBUILT = "results/reproductions"


def result_pages(root: Path) -> list[Path]:
    """Return the pages of results/, and of each rebuilt figure, which has a folder of its own."""
    found = [*(root / "results").glob("*/*.md"), *(root / REBUILT).glob("*/README.md")]
    return [path for path in sorted(found) if path.read_text("utf-8").startswith("# ")]

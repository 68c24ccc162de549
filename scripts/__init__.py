"""Programs that measure optbench and make the files of results/.
Each runs from the repository's root as `python -m scripts.PACKAGE.MODULE`, with .venv's Python."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the repository's root

"""Programs that measure optbench and make what lies in results/; each runs from the root as
`python -m scripts.PACKAGE.MODULE`, with the Python of .venv."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # of the repository

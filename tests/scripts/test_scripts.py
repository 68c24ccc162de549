"""The programs in scripts/ are where texts say, and write how they are called again."""

import re
from pathlib import Path

from scripts.reliability.sections import write_section

ROOT = Path(__file__).resolve().parents[2]
TEXTS = (
    "*.md",
    "docs/*.md",
    "results/*/*.md",
    "conf/**/*.yaml",
    "optbench/**/*.md",
    "optbench/**/*.py",
    "scripts/**/*.py",
    "tests/**/*.py",
    "scripts/*",
)


def test_every_program_that_a_text_names_is_there():
    named = 0
    for path in {path for pattern in TEXTS for path in ROOT.glob(pattern) if path.is_file()}:
        text = path.read_text("utf-8")
        for name in re.findall(r"python -m scripts\.([a-z_.0-9]*[a-z0-9])", text):
            place = ROOT / "scripts" / name.replace(".", "/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), path
            named += 1
        for name in re.findall(r"(?<![\w/])(?:\./)?scripts/([\w-]+)", text):
            assert (ROOT / "scripts" / name).exists(), (path, name)
    assert named > 10


def test_a_section_says_how_it_is_made_again(tmp_path):
    rows = [{"seed": 1, "result": "equal"}]
    options = {"command": "damage --seed 1 --write", "text": "What.", "rows": rows}
    path = write_section("made", "A title", **options, folder=tmp_path)
    text = path.read_text("utf-8")
    assert text.startswith(
        "## A title\n\n    python -m scripts.reliability.damage --seed 1 --write\n\nWhat."
    )
    assert (tmp_path / "made.csv").read_text("utf-8") == "seed,result\n1,equal\n"
    assert text in (tmp_path / "README.md").read_text("utf-8")

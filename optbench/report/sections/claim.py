"""The claim of a study in a report: its sentence, and whether it held."""

from pathlib import Path
from typing import Any

from optbench.analysis.claims.checks import EQUALITY_RULE
from optbench.analysis.claims.judge import CLAIM_SENTENCES, caveats, verdict_of
from optbench.analysis.claims.sides import SETTING_RULE
from optbench.analysis.comparison import Comparison
from optbench.report.claim_files import judged

LEVELS = {"held": "clear", "did not hold": "partly", "cannot tell": "open"}

TEST = (
    "The study fixed these comparisons: p is of the exact two-sided signed-rank test of each, "
    "paired by seed. The verdict compares all that was run, by another test: its p may differ for "
    "the same pair, and about the claim these count."
)


def claim(folder: Path, made: Comparison) -> dict[str, Any]:
    """Return a folder's claim as plain data. Raise UserError as `claim_files.judged`."""
    assert made.files is not None
    claimed, checks = judged(folder, made.files)
    word = verdict_of([check.word for check in checks])
    return {
        "text": claimed["text"].strip(),
        "word": word,
        "level": LEVELS[word],
        "headline": CLAIM_SENTENCES[word],
        "checks": [{"text": check.text, "word": check.word} for check in checks],
        "notes": caveats(checks, claimed.get("changed", ())),
        "tests": [
            TEST,
            *([SETTING_RULE] if any(check.factor > 1 for check in checks) else []),
            *([EQUALITY_RULE] if any(c.direction.startswith("equal") for c in checks) else []),
        ],
    }

"""Judge a study's claim by its runs: the claim, the measurement, the word.

A claim is a sentence and the comparisons it stands on, all of which must come out as it says. Each
is the exact two-sided signed-rank test over the seeds at 5 %. A claim that needs every one of
several significant results is wrongly called true in at most 5 % of cases without any correction
(the intersection-union test, Berger 1982): the worst comparison alone decides. A claim of equality
is judged by two one-sided tests against its margin (`stats.equivalence`). One reversal is enough to
call a claim false, so p-values are corrected over the claim's comparisons for that word (Holm
1979).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from optbench.analysis.claims.checks import EQUALITY_RULE, Check, compare_sides
from optbench.analysis.claims.sides import SETTING_RULE, choice_factor
from optbench.analysis.final_values import seeds_text
from optbench.common.errors import UserError
from optbench.common.text import count
from optbench.stats.paired_tests import Values, enough_seeds, holm

SIDES = ("lower", "higher", "equal", "than", "to")  # of a check, the claimed one first
MORE_SEEDS = re.compile(r"Warning: .* cannot .* can\.")  # `too_few_for`, as a line of `sentence`
CHANGED = "the command changed the study by "
AS_IT_IS = ": the claim is about the study as it is"
CLAIM_KEYS = {"text", "checks", "figure"}
CLAIM_SENTENCES = {
    "held": "It held.",
    "did not hold": "It did not hold.",
    "cannot tell": "It cannot be told.",
}


def judge_claim(
    table: pd.DataFrame, layers: pd.DataFrame | None, claimed: Mapping[str, Any]
) -> list[Check]:
    """Return every comparison of a claim, from tables of epochs.csv and layers.csv.

    Raises UserError if the claim cannot be read, and as `compare_sides` does.
    """
    if unknown := set(claimed) - CLAIM_KEYS:
        raise UserError(f"claim has no {', '.join(sorted(unknown))}; it has: text, checks, figure")
    checks = claimed.get("checks")
    if not isinstance(claimed.get("text"), str) or not checks:
        raise UserError("claim needs a text (what is claimed) and checks (what must hold)")
    made = [compare_sides(table, layers, check) for check in checks]
    p = [check.verdict.p for check in made]
    words = check_words(p, [check.sign for check in made])
    corrected = holm(np.nan_to_num(p, nan=1.0))
    return [
        check._replace(word=word, p_holm=float(q))
        for check, word, q in zip(made, words, corrected, strict=True)
    ]


def claim_word(p: Values, sides: Values, alpha: float = 0.05) -> str:
    """Return the word of a claim: held, did not hold or cannot tell.

    p: two-sided p-value of each comparison; NaN, if a run has no value, counts as 1. sides: above 0
    for a comparison as claimed, below 0 for the other way round, else 0.
    """
    return verdict_of(check_words(p, sides, alpha))


def check_words(p: Values, sides: Values, alpha: float = 0.05) -> list[str]:
    """Return the word of each comparison of a claim; arguments are as in `claim_word`.

    "held" needs p <= alpha, as the claim needs every comparison. "did not hold" needs the p-value
    corrected over all comparisons (Holm), as one of them refutes the claim.
    """
    raw = np.nan_to_num(np.asarray(p, dtype=float), nan=1.0)
    corrected, sides = holm(raw), np.asarray(sides, dtype=float)
    words = np.full(len(raw), "cannot tell", dtype=object)
    words[(raw <= alpha) & (sides > 0)] = "held"
    words[(corrected <= alpha) & (sides < 0)] = "did not hold"
    return list(words)


def verdict_of(words: Sequence[str]) -> str:
    """Return "held" if all did, "did not hold" if one did not, else "cannot tell"."""
    if "did not hold" in words:
        return "did not hold"
    return "held" if set(words) == {"held"} else "cannot tell"


def sentence(text: str, checks: Sequence[Check], changed: Sequence[str] = ()) -> str:
    """Return the claim, its measurements and its word as Markdown.

    changed: the words of the command that changed the study.
    """
    seeds = [check.verdict.n for check in checks]
    lines = [f"Claimed: {text.strip()}", "", f"Measured ({seeds_text(seeds)}, medians):", ""]
    lines += [f"- {check.text}" for check in checks]
    lines += ["", CLAIM_SENTENCES[verdict_of([check.word for check in checks])], ""]
    if any(check.factor > 1 for check in checks):
        lines += [SETTING_RULE, ""]
    if any(check.direction.startswith("equal") for check in checks):
        lines += [EQUALITY_RULE, ""]
    lines += [f"Warning: {text}.\n" for text in caveats(checks, changed)]
    return "\n".join(lines)


def caveats(checks: Sequence[Check], changed: Sequence[str] = ()) -> list[str]:
    """Return the caveats of a claim's comparisons."""
    of_another = [f"{CHANGED}{' '.join(changed)}{AS_IT_IS}"] if changed else []
    warnings = dict.fromkeys(text for check in checks for text in check.warnings)
    n = min(check.verdict.n for check in checks)
    factors = max(check.own_factor for check in checks), max(check.factor for check in checks)
    few = too_few_for(n, factors, len(checks))
    return [text for text in [*of_another, *warnings, few] if text]


def verdict_line(text: str) -> str:
    """Return whether a claim held, why not where seeds are too few, and the claim, in one line.

    text: of `sentence`.
    """
    lines = text.splitlines()
    held = next(line for line in lines if line in CLAIM_SENTENCES.values()).rstrip(".")
    few = next((line for line in lines if MORE_SEEDS.fullmatch(line)), "")
    why = f" ({few.removeprefix('Warning: ').rstrip('.')})" if few else ""
    words = [line for line in lines if line.startswith("- ")]
    for line in lines:
        if line.startswith(start := f"Warning: {CHANGED}"):
            held = f"With {line[len(start) :].partition(AS_IT_IS)[0]} {held[0].lower()}{held[1:]}"
    if not why and len(words) > 1:
        why = f" ({sum(': held' in line for line in words)} of {len(words)} checks held; claim.md)"
    return f"{held}{why}: {lines[0].removeprefix('Claimed: ')}"


def too_few_for(n: int, factors: tuple[int, int], comparisons: int) -> str:
    """Return why n seeds could never make a claim hold, or never refute it; or "".

    factors: of `sides.choice_factor`, the largest of the claimed sides, and of all sides.
    """
    if n < (needed := enough_seeds(factors[0])):
        return f"{count(n, 'seed')} cannot make a claim hold; {needed} can"
    if n < (needed := enough_seeds(factors[1] * comparisons)):
        one = f" by one of {comparisons} comparisons (Holm)" if comparisons > 1 else ""
        return f"{count(n, 'seed')} cannot refute the claim{one}; {needed} can"
    return ""


def planned_factors(
    claimed: Mapping[str, Any], planned: Iterable[Sequence[str]]
) -> tuple[int, int]:
    """Return the factors of `too_few_for`, from the overrides of planned jobs."""
    values: dict[str, set[str]] = {}
    for key, _, value in (text.lstrip("+~").partition("=") for job in planned for text in job):
        values.setdefault(key, set()).add(value)
    own, every = [1], [1]
    for check in claimed["checks"]:
        if not isinstance(check, Mapping) or not isinstance(check.get("across"), Mapping):
            continue
        tried = {key: len(values.get(key, {""})) for key, how in check["across"].items()
                 if how == "best"}  # fmt: skip
        sides = [side for name in SIDES if isinstance(side := check.get(name), Mapping)]
        sizes = [math.prod(n for key, n in tried.items() if key not in side) for side in sides]
        factors = [choice_factor(size) for size in sizes] or [1]
        every += factors
        own += factors if "equal" in check else factors[:1]
    return max(own), max(every)


def to_frame(checks: Sequence[Check]) -> pd.DataFrame:
    """Return a row per comparison, with its statistics."""
    return pd.DataFrame(
        [
            {
                "value": c.value, "side": c.side, "than": c.other, "claimed": c.direction,
                "n": c.verdict.n, "median": c.medians[0], "median_than": c.medians[1],
                "difference": c.verdict.difference, "low": c.verdict.low, "high": c.verdict.high,
                "p": c.verdict.p, "p_holm": c.p_holm, "word": c.word, "notes": "; ".join(c.notes),
                "warnings": "; ".join(c.warnings), "text": c.text,
            }
            for c in checks
        ]
    )  # fmt: skip

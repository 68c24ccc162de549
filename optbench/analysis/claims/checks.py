"""A claim's comparison: a number per seed of two sides, tested by signed ranks.

One side is claimed to be lower (or higher) than the other, or to be equal to it within a margin.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.claims.sides import (
    Side,
    choice_factor,
    coarse_warnings,
    leading_first,
    number_side,
    p_of_best,
    side_of,
    three_digits,
)
from optbench.analysis.claims.values import CHECK_KEYS, needs_layers, title
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import interval
from optbench.stats.equivalence import equivalence
from optbench.stats.estimates import median
from optbench.stats.paired_tests import differences, enough_seeds
from optbench.stats.pairwise import PairVerdict, compare_pair

DIRECTIONS = ("lower", "higher", "equal")
FORMS = "it needs value, lower or higher, and than; or value, equal, to and within (a margin)"
EQUALITY_RULE = (
    "Settings are equal within a margin where two one-sided signed-rank tests show that the "
    "difference lies above minus the margin and below it (TOST): the larger p-value counts, and "
    "the 90 % interval lies within. They are not equal where it is shown to lie beyond."
)
ALPHA = 0.05
NO_VERDICT = PairVerdict(  # if a run has no value
    "cannot tell", 0, math.nan, math.nan, math.nan, math.nan, math.nan, 0
)


class Check(NamedTuple):
    """One comparison: the side that is claimed to be lower (or higher), and the other."""

    value: str  # the compared measure, in words
    side: str
    other: str
    direction: str  # lower, higher, equal within a margin
    medians: tuple[float, float]
    factor: int  # the larger `choice_factor` of the two sides
    own_factor: int  # that of a p-value by which the check holds: the claimed side's
    verdict: PairVerdict = NO_VERDICT
    word: str = "cannot tell"  # held, did not hold, cannot tell
    p_holm: float = 1.0  # corrected over the claim's comparisons, for "did not hold"
    notes: tuple[str, ...] = ()  # learning rates chosen, runs that diverged
    warnings: tuple[str, ...] = ()  # settings so far apart that a better one may lie between

    @property
    def sign(self) -> int:
        """Return 1 if p <= 0.05 as claimed, -1 if p <= 0.05 the other way round, else 0."""
        return {"better": 1, "equal": 1, "worse": -1, "different": -1}.get(self.verdict.outcome, 0)

    @property
    def text(self) -> str:
        """Return the comparison and its statistics in one line."""
        v = self.verdict
        line = f"{self.value}: {three_digits(self.medians[0])} ({self.side}) against "
        line += three_digits(self.medians[1]) + (f" ({self.other})" if self.other else "")
        if math.isnan(v.difference):
            statistics = "a run diverged and has no such value"
        elif math.isinf(v.difference):
            statistics = f"a side diverged: no difference in numbers, p = {v.p:.2g}"
        else:
            estimate = f"{v.difference:.3g} {interval(v.low, v.high)}"
            estimate += " (90 %)" * self.direction.startswith("equal")
            statistics = f"difference {estimate}, p = {v.p:.2g}"
        if self.sign < 0 and self.p_holm > v.p:
            statistics += f", corrected {self.p_holm:.2g}"
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{line}; claimed {self.direction}: {self.word} ({statistics}{notes})"


def compare_sides(
    table: pd.DataFrame, layers: pd.DataFrame | None, check: Mapping[str, Any]
) -> Check:
    """Return the comparison of one check.

    The check claims that a value is `lower` (or `higher`) in some runs `than` in others; or that it
    is `equal` in some runs `to` others, `within` a margin (two one-sided tests,
    `stats.equivalence`). `judge_claim`, which knows all comparisons of the claim, sets the word. A
    diverged run counts as the worst loss or accuracy; another measure then has no value, and
    nothing is tested. Raises UserError if the check cannot be read, or the two sides have different
    seeds.
    """
    if not isinstance(check, Mapping):
        raise UserError(f"a check of the claim is {check!r}: {FORMS}")
    direction = next((word for word in DIRECTIONS if word in check), "")
    equal = direction == "equal"
    needed = {"value", direction, *(("to", "within") if equal else ("than",))}
    if not direction or not needed <= set(check) <= {*needed, *CHECK_KEYS, "across"}:
        raise UserError(
            f"a check of the claim is {dict(check)}: {FORMS}; and may have "
            f"{', '.join(CHECK_KEYS[1:])} and across"
        )
    source = table
    if needs_layers(table, check):
        if layers is None:
            raise UserError(f"the claim compares {check['value']}, and no run has a layers.csv")
        source = layers
    a = side_of(source, table, check, check[direction])
    other = check["to" if equal else "than"]
    if isinstance(other, Mapping):
        b = side_of(source, table, check, other)
    else:
        if not isinstance(other, int | float):
            raise UserError(f"a check of the claim compares with {other!r}, no setting or number")
        b = number_side(float(other), a.tried.index)
    if list(a.tried.index) != list(b.tried.index):
        seeds = [sorted(map(int, part.tried.index)) for part in (a, b)]
        raise UserError(
            f"{title(check)}: {a.name} has the seeds {seeds[0]} and {b.name} {seeds[1]}; "
            "runs are missing: the same command again makes them"
        )
    x, y = a.best, b.best
    medians = (float(median(x)), float(median(y)))
    own, others = (choice_factor(part.tried.shape[1]) for part in (a, b))
    factor = max(own, others)
    words = f"equal within {check['within']}" if equal else direction
    made = Check(title(check), a.name, b.name, words, medians, factor, factor if equal else own)
    if np.isnan(x).any() or np.isnan(y).any():
        return made._replace(verdict=NO_VERDICT._replace(n=len(x)))
    if equal:
        return compare_equal(made, a, b, check["within"])
    smaller = metric_of(str(check["value"])).smaller
    front, behind = leading_first(a, b, smaller)
    p, decides = p_of_best(front, behind, smaller)
    verdict = compare_pair(x, y, smaller=direction == "lower", p=p)
    lost = [
        f"diverged with {count} of {len(part)} seeds ({label})"
        for part, label in ((x, a.name), (y, b.name))
        if (count := int(np.isinf(part).sum()))
    ]
    notes = (*a.notes, *b.notes, *([decides] if decides else []), *lost)
    decided = verdict.outcome != "cannot tell"
    warnings = [
        *coarse_warnings(front, verdict.difference, decided),
        *coarse_warnings(behind, verdict.difference, False),
    ]
    return made._replace(
        verdict=verdict,
        notes=tuple(dict.fromkeys(notes)),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def compare_equal(made: Check, a: Side, b: Side, margin: float) -> Check:
    """Return a comparison which claims that two sides differ by less than a margin.

    The outcome is "equal" if the differences are shown to lie within the margin, and "different" if
    they are shown to lie beyond it. Both p-values are multiplied by the larger `choice_factor` of
    the two sides.
    """
    found = equivalence(differences(a.best, b.best), margin)
    p, beyond = (min(1.0, made.factor * value) for value in (found.p, found.p_beyond))
    outcome = "equal" if p <= ALPHA else "different" if beyond <= ALPHA else "cannot tell"
    verdict = PairVerdict(
        outcome,
        len(a.tried),
        beyond if outcome == "different" else p,
        found.difference,
        found.low,
        found.high,
        needed=math.nan,
        least=enough_seeds(made.factor),
    )
    return made._replace(verdict=verdict, notes=tuple(dict.fromkeys((*a.notes, *b.notes))))

"""One comparison of a claim: a number per seed of two sides, tested by signed ranks."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.claims.sides import (
    ahead,
    choice_factor,
    coarse,
    number,
    number_side,
    p_of_best,
    side,
)
from optbench.analysis.claims.values import CHECK_KEYS, needs_layers, title
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.stats.estimates import median
from optbench.stats.pairwise import PairVerdict, compare_pair

DIRECTIONS = ("lower", "higher")
NOTHING = PairVerdict(
    "cannot tell", 0, math.nan, math.nan, math.nan, math.nan, math.nan, 0
)  # a run has no value


class Check(NamedTuple):
    """One comparison: the side that is claimed to be lower (or higher), and the other."""

    value: str  # what was compared, in words
    side: str
    other: str
    direction: str  # lower, higher
    medians: tuple[float, float]
    factor: int  # by which p grows at most where a side was chosen of several settings
    verdict: PairVerdict = NOTHING
    word: str = "cannot tell"  # held, did not hold, cannot tell
    p_holm: float = 1.0  # corrected over the claim's comparisons: what "did not hold" needs
    notes: tuple[str, ...] = ()  # learning rates chosen, runs that diverged
    warnings: tuple[str, ...] = ()  # settings so far apart that a better one may lie between

    @property
    def sign(self) -> int:
        """1 where it came out as claimed (p <= 0.05), -1 the other way round, 0 for neither."""
        return {"better": 1, "worse": -1}.get(self.verdict.outcome, 0)

    @property
    def text(self) -> str:
        """The comparison and its statistics in one line."""
        v = self.verdict
        line = f"{self.value}: {number(self.medians[0])} ({self.side}) against "
        line += number(self.medians[1]) + (f" ({self.other})" if self.other else "")
        if math.isnan(v.difference):
            statistics = "a run diverged and has no such value"
        elif math.isinf(v.difference):
            statistics = f"a side diverged: no difference in numbers, p = {v.p:.2g}"
        else:
            ends = ("unbounded" if math.isinf(end) else f"{end:.3g}" for end in (v.low, v.high))
            interval = f"{v.difference:.3g} [{', '.join(ends)}]"
            statistics = f"difference {interval}, p = {v.p:.2g}"
        if self.sign < 0 and self.p_holm > v.p:
            statistics += f", corrected {self.p_holm:.2g}"
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{line}; claimed {self.direction}: {self.word} ({statistics}{notes})"


def compare(table: pd.DataFrame, layers: pd.DataFrame | None, check: Mapping[str, Any]) -> Check:
    """One comparison: `value` of the runs `lower: {key: value}` (or `higher`) `than` others.

    Its word is for `claims.judge` to say, which knows how many comparisons the claim has. A
    diverged run counts as the worst loss or accuracy; of another measure it has no value, and
    nothing is tested. Raises UserError where the check cannot be read, or the two sides do not
    have the same seeds.
    """
    direction = next((word for word in DIRECTIONS if word in check), "")
    needed = {"value", "than", direction}
    if not direction or not needed <= set(check) <= {*needed, *CHECK_KEYS, "across"}:
        raise UserError(
            f"a check of the claim is {dict(check)}: it needs value, lower or higher, and than, "
            f"and may have {', '.join(CHECK_KEYS[1:])} and across"
        )
    source = table
    if needs_layers(table, check):
        if layers is None:
            raise UserError(f"the claim compares {check['value']}, and no run has a layers.csv")
        source = layers
    a = side(source, table, check, check[direction])
    if isinstance(check["than"], Mapping):
        b = side(source, table, check, check["than"])
    else:
        b = number_side(float(check["than"]), a.tried.index)
    if list(a.tried.index) != list(b.tried.index):
        seeds = [sorted(map(int, part.tried.index)) for part in (a, b)]
        raise UserError(
            f"{title(check)}: {a.name} has the seeds {seeds[0]} and {b.name} {seeds[1]}; "
            "runs are missing: the same command again makes them"
        )
    x, y = a.best, b.best
    medians = (float(median(x)), float(median(y)))
    factor = max(choice_factor(part.tried.shape[1]) for part in (a, b))
    made = Check(title(check), a.name, b.name, direction, medians, factor)
    if np.isnan(x).any() or np.isnan(y).any():
        return made._replace(verdict=NOTHING._replace(n=len(x)))
    smaller = metric_of(str(check["value"])).smaller
    front, behind = ahead(a, b, smaller)
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
        *coarse(front, verdict.difference, decided),
        *coarse(behind, verdict.difference, False),
    ]
    return made._replace(
        verdict=verdict,
        notes=tuple(dict.fromkeys(notes)),
        warnings=tuple(dict.fromkeys(warnings)),
    )

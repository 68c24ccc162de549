"""Two optimizers on one problem, paired by seed: the claim gate and the table of all pairs.

The gate's test is the exact two-sided Wilcoxon signed-rank test and its interval is that test
turned round (Hodges and Lehmann), so that the two never disagree and a diverged run needs no
arithmetic. Eight seeds by default: the fewest with which seven optimizers, one against the six
others, can pass Holm's correction at 0.05. All 21 pairs of seven would take ten.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.errors import UserError
from optbench.estimates import bootstrap, middle
from optbench.paired_tests import (
    differences,
    enough_seeds,
    hodges_lehmann,
    holm,
    least_p,
    sign_flip,
    signed_rank,
)
from optbench.power import (
    MOST,
    effect_size,
    probability_of_improvement,
    rank_biserial,
    seeds_needed,
)

DEFAULT_SEEDS = 8


class Verdict(NamedTuple):
    """What may be claimed of A against B."""

    word: str  # better, worse, cannot tell
    n: int  # pairs
    p: float  # two-sided signed-rank, corrected where there are several comparisons
    difference: float  # Hodges-Lehmann estimate of A - B, in the metric's unit
    low: float
    high: float
    needed: float  # seeds to see this difference with 80 % power, inf: none is seen, NaN: n = 1
    least: int  # seeds below which the test cannot reject at all
    comparisons: int = 1  # that Holm's correction spans

    @property
    def text(self) -> str:
        """The claim as it may be printed."""
        if self.word != "cannot tell":
            return f"{self.word} (n = {self.n}, p = {self.p:.2g})"
        if self.n == 1:
            more = "one pair shows no spread"
        elif not math.isfinite(self.needed):
            more = "no difference seen"
        elif self.needed > MOST:
            more = f"more than {MOST} seeds needed"
        else:
            more = f"about {self.needed:.0f} seeds needed"
        if self.n < self.least:
            pairs = f"{self.n} pair{'' if self.n == 1 else 's'}"
            least = min(1.0, self.comparisons * least_p(self.n))
            more += f"; {pairs} cannot go below p = {least:.2g}"
            if self.comparisons > 1:
                more += f", corrected for {self.comparisons} comparisons (Holm)"
        return f"cannot tell (n = {self.n}; {more})"


def claim(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    smaller: bool = True,
    alpha: float = 0.05,
    p: float | None = None,
    comparisons: int = 1,
) -> Verdict:
    """What may be claimed of A against B on one problem, runs in the order of their seeds.

    p: the corrected p-value where this is one of several comparisons (see `compare`).
    """
    d = differences(a, b)
    p = signed_rank(d) if p is None else p
    centre, low, high = hodges_lehmann(d, 1 - alpha)
    word = word_for(d, p, smaller, alpha)
    needed = seeds_needed(d, alpha=alpha / comparisons)  # NaN of one pair: it shows no spread
    if word == "cannot tell" and math.isfinite(needed):
        needed = max(needed, len(d) + 1, enough_seeds(comparisons, alpha))
    least = enough_seeds(comparisons, alpha)
    return Verdict(word, len(d), p, centre, low, high, needed, least, comparisons)


def word_for(d: np.ndarray, p: float, smaller: bool, alpha: float) -> str:
    """The word of a claim about A from the differences A - B and their (corrected) p-value."""
    # the side of the test itself: the sum of the signed ranks, not the mean of two infinities
    side = rank_biserial(d)
    if p > alpha or not side:
        return "cannot tell"
    return "better" if (side < 0) == smaller else "worse"


def leader_and_others(
    part: pd.DataFrame, smaller: bool = True
) -> tuple[list[str], list[np.ndarray]]:
    """The series of one problem, best first by their medians, and the first one's values beside
    each other's on common seeds, (seeds, 2), in that order.

    part: seeds by series. No pairs where some series has no seed in common with the first.
    """
    names = [str(name) for name in part.columns[part.notna().any()]]
    middles = {name: middle(part[name].dropna().to_numpy()) for name in names}
    names.sort(key=lambda name: (middles[name] * (1 if smaller else -1), name))
    pairs = [part[[names[0], name]].dropna().to_numpy(dtype=float) for name in names[1:]]
    return names, pairs if all(map(len, pairs)) else []


def winner(part: pd.DataFrame, smaller: bool = True, alpha: float = 0.05) -> str | None:
    """The series of one problem that may be claimed to be better than every other one, Holm's
    correction over all of these comparisons; None where there is none."""
    names, pairs = leader_and_others(part, smaller)
    if not pairs:
        return None
    gaps = [differences(pair[:, 0], pair[:, 1]) for pair in pairs]
    corrected = holm([signed_rank(gap) for gap in gaps])
    words = [word_for(gap, p, smaller, alpha) for gap, p in zip(gaps, corrected, strict=True)]
    return names[0] if all(word == "better" for word in words) else None


def compare(
    frame: pd.DataFrame, baseline: str | None = None, smaller: bool = True, alpha: float = 0.05
) -> pd.DataFrame:
    """All pairs (or all against `baseline`) on each problem of a `by_seed` frame.

    Only seeds that both have are paired. Holm's correction goes over all comparisons of one call.
    Columns: problem, a, b, n, difference, low, high (Hodges-Lehmann, uncorrected), mean, mean_low,
    mean_high (bootstrap), p (signed-rank), p_flip (sign-flip), p_holm, d, rank_biserial,
    improvement, needed, verdict. Raises UserError where there is no pair.
    """
    names = [str(name) for name in frame]
    if baseline is not None and baseline not in names:
        raise UserError(f"no optimizer {baseline!r}; there are: {', '.join(names)}")
    pairs = [(x, y) for i, x in enumerate(names) for y in names[i + 1 :]]
    if baseline is not None:
        pairs = [(name, baseline) for name in names if name != baseline]
    found = []
    for problem, part in frame.groupby(level="problem", sort=False):
        for x, y in pairs:
            both = part[[x, y]].dropna()
            if len(both):
                found.append((str(problem), x, y, both[x].to_numpy(), both[y].to_numpy()))
    if not found:
        raise UserError(
            "nothing to pair: two optimizers (or settings) are needed that ran on the same problem "
            f"with a common seed; there are: {', '.join(names) or 'none'}"
        )
    raw = [signed_rank(differences(a, b)) for *_, a, b in found]
    lines = []
    for (where, x, y, a, b), p, corrected in zip(found, raw, holm(raw), strict=True):
        d = differences(a, b)
        verdict = claim(a, b, smaller, alpha, float(corrected), len(found))
        average = bootstrap(d, "mean")
        lines.append(
            {
                "problem": where, "a": x, "b": y, "n": len(d),
                "difference": verdict.difference, "low": verdict.low, "high": verdict.high,
                "mean": average.value, "mean_low": average.low, "mean_high": average.high,
                "p": p, "p_flip": sign_flip(d), "p_holm": float(corrected),
                "d": effect_size(d), "rank_biserial": rank_biserial(d),
                "improvement": probability_of_improvement(a, b, smaller),
                "needed": verdict.needed, "verdict": verdict.text,
            }
        )  # fmt: skip
    return pd.DataFrame(lines)

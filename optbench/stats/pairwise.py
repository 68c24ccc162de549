"""Two optimizers paired by seed on one problem: a verdict, or a table of pairs.

The test of a verdict is the exact two-sided Wilcoxon signed-rank test and its interval is that test
inverted (Hodges and Lehmann), so that the two agree where no differences are equal or 0, and a
diverged run needs no arithmetic. The p-values of several comparisons are corrected (see
`corrections`): by Holm for a candidate that was fixed beforehand, by the max-type sign-flip test if
the values chose it. The default of eight seeds is the fewest with which a candidate can pass Holm's
correction at 0.05 against six others. The max-type test needs six seeds, however many optimizers
there are. Where no two series share a seed, the rank-sum test and its inverted interval replace the
signed-rank test.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.common.errors import UserError
from optbench.stats.corrections import (
    HOLM,
    MAX_TYPE,
    UNPAIRED,
    all_pairs,
    corrected,
    least_seeds,
    on_common_seeds,
    results_of,
    values_of,
)
from optbench.stats.estimates import bootstrap
from optbench.stats.max_sign_flip import scale_pairs
from optbench.stats.paired_tests import (
    Values,
    as_numbers,
    check_runs,
    check_whole,
    differences,
    hodges_lehmann,
    least_p,
    sign_flip,
    signed_rank,
)
from optbench.stats.power import (
    MOST_SEEDS,
    effect_size,
    probability_of_improvement,
    rank_biserial,
    seeds_needed,
)
from optbench.stats.unpaired_tests import (
    dominance,
    least_unpaired_p,
    mean_gap,
    rank_sum,
    runs_needed,
    shift,
    unpaired_effect_size,
)

DEFAULT_SEEDS = 8
NO_DIFFERENCE = "no difference beyond rounding seen"
ROUNDING = 1e-6  # a relative difference of two values that rounding of float32 may explain


class PairVerdict(NamedTuple):
    """The claim that the runs support about A against B."""

    outcome: str  # better, worse, cannot tell
    n: int  # pairs; unpaired, the runs of the one with fewer
    p: float  # two-sided, corrected for `comparisons`
    difference: float  # Hodges-Lehmann estimate of A - B, in the metric's unit
    low: float
    high: float
    needed: float  # seeds for 80 % power; inf without a difference, NaN if n = 1
    least: int  # seeds below which the test cannot reject at all
    comparisons: int = 1  # that the correction spans
    correction: str = HOLM  # or max-type, or unpaired
    most: int = 0  # unpaired: the runs of the one with more

    @property
    def text(self) -> str:
        """Return the claim as it may be printed."""
        if self.outcome != "cannot tell":
            return f"{self.outcome} (n = {self.n}, p = {self.p:.2g})"
        unpaired = self.correction == UNPAIRED
        if self.n == 1:
            more = "one run shows no spread" if unpaired else "one pair shows no spread"
        elif not math.isfinite(self.needed):
            more = NO_DIFFERENCE
        elif self.needed > MOST_SEEDS:
            more = f"more than {MOST_SEEDS} seeds needed"
        else:
            more = f"about {self.needed:.0f} seeds needed"
        if self.n < self.least:
            pairs = f"{self.n} {'run' if unpaired else 'pair'}{'' if self.n == 1 else 's'}"
            factor = 1 if self.correction == MAX_TYPE else self.comparisons
            least = (least_unpaired_p if unpaired else least_p)(self.n)
            more += f"; {pairs} cannot go below p = {min(1.0, factor * least):.2g}"
            if factor > 1:
                more += f", corrected for {self.comparisons} comparisons (Holm)"
        p = "" if self.n < self.least else f", p = {self.p:.2g}"
        return f"cannot tell (n = {self.n}{p}; {more})"


def words_of(text: str, unit: str) -> str:
    """Return `PairVerdict.text` with the paired unit's word. unit: "seed" or "search"."""
    return text.replace("seeds needed", "searches needed") if unit == "search" else text


def compare_pair(
    a: Values,
    b: Values,
    smaller: bool = True,
    alpha: float = 0.05,
    p: float | None = None,
    comparisons: int = 1,
    correction: str = HOLM,
) -> PairVerdict:
    """Return the verdict on A against B on one problem, runs in the order of seeds.

    p: the corrected p-value if this is one of several comparisons (see `compare`). correction:
    Holm, max-type or unpaired. Raises UserError for NaN, and unless unpaired for runs without a
    partner.
    """
    check_whole("comparisons", comparisons)
    least = least_seeds(comparisons, correction, alpha)  # raises for an unknown correction
    unpaired = correction == UNPAIRED
    d = as_numbers(a) if unpaired else differences(a, b)
    if p is None:
        p = rank_sum(a, b) if unpaired else signed_rank(d)
    if not isinstance(p, Real) or not 0 <= p <= 1:
        raise UserError(f"p must be a number from 0 to 1, not {p!r}")
    n = min(len(d), len(as_numbers(b)))
    outcome = outcome_for(a, b, p, smaller, alpha, correction)
    level = alpha / comparisons
    if unpaired:
        centre, low, high = shift(a, b, 1 - alpha)
        needed = runs_needed(a, b, alpha=level, least=least)
    else:
        centre, low, high = hodges_lehmann(d, 1 - alpha)
        needed = seeds_needed(d, alpha=level, least=least)  # NaN for one pair
    if not unpaired and outcome == "cannot tell" and equal_but_for_rounding(a, b):
        needed = math.inf
    if outcome == "cannot tell" and math.isfinite(needed):
        needed = max(needed, n + 1)
    most = max(len(d), len(as_numbers(b))) if unpaired else n
    found = (outcome, n, p, centre, low, high, needed, least, comparisons, correction, most)
    return PairVerdict(*found)


def equal_but_for_rounding(a: Values, b: Values) -> bool:
    """Return whether the two values of each pair are equal within rounding of float32."""
    x, y = as_numbers(a), as_numbers(b)
    return bool(np.isclose(x, y, rtol=ROUNDING, atol=0).all())


def outcome_for(
    a: Values, b: Values, p: float, smaller: bool, alpha: float = 0.05, correction: str = HOLM
) -> str:
    """Return the outcome of A against B from their values and the corrected p-value."""
    # the side by the test's own statistic: the ranks, or the mean of the max-type test
    if correction == UNPAIRED:
        side = dominance(a, b)
    elif correction == HOLM:
        side = rank_biserial(differences(a, b))
    else:
        side = float(scale_pairs(differences(a, b)[:, None]).sum())
    if p > alpha or not side:
        return "cannot tell"
    return "better" if (side < 0) == smaller else "worse"


def compare(
    frame: pd.DataFrame,
    baseline: str | None = None,
    smaller: bool = True,
    alpha: float = 0.05,
    chosen: bool = False,
    among: Sequence[str] | None = None,
    owners: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Compare all pairs (or all with `baseline`) on each problem of a `by_seed` frame.

    Only common seeds are paired; NaN in the frame means no run. Holm's correction spans the
    comparisons with a baseline that was fixed beforehand. Otherwise p is that of the max-type
    sign-flip test over all pairs of the frame, even if only the series in `among` are shown.
    chosen: whether the values of the frame chose the baseline. among: the series to show, such as
    the best setting of each optimizer. owners: the optimizer of each series; settings of one
    optimizer are compared with each other only if there is no other optimizer.
    If no two series share a seed, the tests are rank-sum tests with Holm's correction, over the
    comparisons with a baseline that was fixed beforehand, or else over all pairs.
    Columns: problem, a, b, n, difference, low, high (Hodges-Lehmann, uncorrected), mean, mean_low,
    mean_high (bootstrap), p (signed-rank or rank-sum), p_flip (sign-flip; NaN unpaired),
    p_corrected, correction (Holm, max-type or unpaired), d, rank_biserial, improvement, needed,
    verdict. Raises UserError without a pair.
    """
    lines = []
    for pair in judge_pairs(frame, baseline, smaller, alpha, chosen, among, owners):
        where, x, y, a, b, p, comparisons, correction, _ = pair
        verdict = compare_pair(a, b, smaller, alpha, p, comparisons, correction)
        found = unpaired_statistics(a, b) if correction == UNPAIRED else paired_statistics(a, b)
        lines.append(
            {
                "problem": where, "a": x, "b": y, "n": verdict.n,
                "difference": verdict.difference, "low": verdict.low, "high": verdict.high,
                **{key: found[key] for key in ("mean", "mean_low", "mean_high", "p", "p_flip")},
                "p_corrected": p, "correction": correction,
                "d": found["d"], "rank_biserial": found["rank_biserial"],
                "improvement": probability_of_improvement(a, b, smaller),
                "needed": verdict.needed, "verdict": verdict.text,
            }
        )  # fmt: skip
    return pd.DataFrame(lines)


def paired_statistics(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Return the columns of `compare` for runs that are paired by seed."""
    d = differences(a, b)
    average = bootstrap(d, "mean")
    ends = {"mean": average.value, "mean_low": average.low, "mean_high": average.high}
    tests = {"p": signed_rank(d), "p_flip": sign_flip(d)}
    return ends | tests | {"d": effect_size(d), "rank_biserial": rank_biserial(d)}


def unpaired_statistics(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Return the columns of `compare` for unpaired runs."""
    ends = dict(zip(("mean", "mean_low", "mean_high"), mean_gap(a, b), strict=True))
    tests = {"p": rank_sum(a, b), "p_flip": math.nan}
    return ends | tests | {"d": unpaired_effect_size(a, b), "rank_biserial": dominance(a, b)}


class Judged(NamedTuple):
    """Two series on one problem, their values on common seeds, and the better one.

    Unpaired: all values of each.
    """

    problem: str
    a: str
    b: str
    values_a: np.ndarray  # (seeds,), or unpaired (runs,)
    values_b: np.ndarray
    p: float  # corrected
    comparisons: int  # that the correction spans
    correction: str
    outcome: str  # of a: better, worse, cannot tell


def judge_pairs(
    frame: pd.DataFrame,
    baseline: str | None = None,
    smaller: bool = True,
    alpha: float = 0.05,
    chosen: bool = False,
    among: Sequence[str] | None = None,
    owners: Mapping[str, str] | None = None,
) -> list[Judged]:
    """Return the pairs of `compare`, with the same arguments, as data."""
    check_runs(frame)
    names = [str(name) for name in frame]
    for name in [*([] if baseline is None else [baseline]), *(among or ())]:
        if name not in names:
            raise UserError(f"no optimizer {name!r}; there are: {', '.join(names)}")
    shown = [name for name in names if among is None or name in among]
    family = all_pairs(names, owners)
    wanted = [pair for pair in family if set(pair) <= set(shown)]
    if baseline is not None:
        wanted = [[x if y == baseline else y, baseline] for x, y in wanted if baseline in (x, y)]
    by_values = baseline is None or chosen
    results = results_of(frame)
    correction = (MAX_TYPE if by_values else HOLM) if results.paired else UNPAIRED
    found = on_common_seeds(results, wanted)
    tested = on_common_seeds(results, family) if by_values else found
    if not found:
        raise UserError(
            "nothing to pair: two optimizers (or settings) are needed that ran on one problem, "
            f"with a common seed if others have one; there are: {', '.join(names) or 'none'}"
        )
    p_of = dict(zip(tested, corrected(results, tested, correction, alpha), strict=True))
    judged = []
    for pair in found:
        where, x, y = pair
        a, b = values_of(results, pair)
        p = float(p_of[pair] if pair in p_of else p_of[where, y, x])
        outcome = outcome_for(a, b, p, smaller, alpha, correction)
        judged.append(Judged(where, x, y, a, b, p, len(tested), correction, outcome))
    return judged

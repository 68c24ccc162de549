"""Test that two optimizers or settings hardly differ: two one-sided tests (TOST).

"No significant difference" shows nothing about how large a difference may be. Here a margin is
stated beforehand, and the differences are shown to lie within it: both "d <= -margin" and
"d >= margin" are rejected (Schuirmann 1987). The larger of the two p-values counts, and no
correction is needed, since both tests must reject.
"""

import math
from numbers import Real
from typing import NamedTuple

import numpy as np
import scipy

from optbench.common.errors import UserError
from optbench.stats.paired_tests import (
    MOST_EXACT_PAIRS,
    Values,
    check_values,
    doubled_ranks,
    flips_cdf,
    hodges_lehmann,
)

TESTS = ("signed-rank", "t")


class Equivalence(NamedTuple):
    """The result of testing paired differences against a margin.

    p: the p-value for differences within the margin. p_beyond: the p-value for differences beyond
    the margin, on either side. difference, low, high: the Hodges-Lehmann estimate with its 90 %
    interval, which lies within the margin exactly if p <= 0.05 (for the signed-rank test, without
    ties).
    """

    p: float
    p_beyond: float
    difference: float
    low: float
    high: float


def equivalence(d: Values, margin: float, test: str = "signed-rank") -> Equivalence:
    """Return two one-sided paired tests of differences `d` against a margin.

    test: "signed-rank", exact as `signed_rank`; or "t", for differences that are normal. Infinite
    differences, of diverged runs, lie beyond every margin; "t" takes none.
    """
    values = check_values(d)
    if not isinstance(margin, Real) or isinstance(margin, bool) or not 0 < margin < math.inf:
        raise UserError(f"the margin must be a number above 0, not {margin!r}")
    if not isinstance(test, str) or test not in TESTS:
        raise UserError(f"the test must be one of {', '.join(TESTS)}, not {test!r}")
    above = t_greater if test == "t" else signed_rank_greater
    # both must be shown: d lies above -margin, and d lies below margin
    p = max(above(values + margin), above(margin - values))
    p_beyond = min(1.0, 2 * min(above(values - margin), above(-margin - values)))
    return Equivalence(p, p_beyond, *hodges_lehmann(values, 0.9))


def signed_rank_greater(d: Values) -> float:
    """Return the one-sided p of Wilcoxon's signed-rank test that `d` lies above 0.

    Zeros are dropped. Exact up to 50 pairs, else scipy's approximation. 1 if all differences are 0.
    """
    values = check_values(d)
    values = values[values != 0]
    if not len(values):
        return 1.0
    if len(values) > MOST_EXACT_PAIRS:
        return float(scipy.stats.wilcoxon(values, alternative="greater").pvalue)
    ranks = doubled_ranks(values)
    return float(flips_cdf(tuple(sorted(ranks.tolist())))[ranks[values < 0].sum()])


def t_greater(d: Values) -> float:
    """Return the one-sided p of the paired t-test that `d` lies above 0."""
    values = check_values(d)
    if len(values) < 2 or not np.isfinite(values).all():
        raise UserError("a t-test needs two differences or more, all finite")
    if not values.std():
        return 0.0 if values[0] > 0 else 1.0
    return float(scipy.stats.ttest_1samp(values, 0.0, alternative="greater").pvalue)

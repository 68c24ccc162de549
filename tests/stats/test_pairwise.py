"""Pairs: exact tests against scipy, R's and G*Power's published numbers, and properties."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from optbench.common.errors import UserError
from optbench.stats.equivalence import signed_rank_greater
from optbench.stats.paired_tests import (
    differences,
    enough_seeds,
    hodges_lehmann,
    holm,
    least_p,
    null_cdf,
    sign_flip,
    signed_rank,
)
from optbench.stats.pairwise import DEFAULT_SEEDS, compare, compare_pair
from optbench.stats.power import (
    effect_size,
    probability_of_improvement,
    rank_biserial,
    seeds_needed,
    t_power,
)
from scripts.reliability import false_positive_rate as simulation

RANDOM = np.random.default_rng(0)
INF = math.inf
# final losses: multiples of 1/64, so that adding a constant is exact
loss = st.integers(-640, 640).map(lambda i: i / 64) | st.just(INF)
runs = st.integers(2, 9).flatmap(
    lambda n: st.tuples(*(st.lists(loss, min_size=n, max_size=n) for _ in "ab"))
)
# Darwin's maize, cross minus self fertilized, in eighths of an inch (Fisher 1935)
DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])


def brute_force(d: np.ndarray) -> float:
    """Two-sided sign-flip p by going through all flips of the sum."""
    sums = [abs(float(np.dot(flip, d))) for flip in product((1, -1), repeat=len(d))]
    return float(np.mean([s >= abs(d.sum()) - 1e-9 for s in sums]))


def test_exact_tests_are_those_of_all_flips() -> None:
    for n in (5, 6, 8, 10):
        d = RANDOM.normal(0.5, 1, n)
        assert sign_flip(d) == pytest.approx(brute_force(d))
        ranks = np.sign(d) * reference.rankdata(np.abs(d))
        assert signed_rank(d) == pytest.approx(brute_force(ranks))
    # Fisher's own figure: 863 of 2 ** 15 flips reach Darwin's sum on one side, p = 0.05267
    assert brute_force(DARWIN) == pytest.approx(2 * 863 / 2**15, rel=0.001)
    assert sign_flip(DARWIN) == pytest.approx(0.0527, abs=0.006)  # 15 pairs: random flips


def test_the_least_p_is_reached() -> None:
    for n in range(2, 11):
        d = np.arange(1, n + 1) + 0.5
        assert signed_rank(d) == pytest.approx(least_p(n))
        assert sign_flip(d) == pytest.approx(least_p(n))
    assert least_p(5) == 0.0625
    assert [enough_seeds(m) for m in (1, 6, 21)] == [6, 8, 10]
    assert enough_seeds(6) == DEFAULT_SEEDS
    assert null_cdf(4)[0] == 1 / 16


def test_a_diverged_run_outweighs_all_finite_differences() -> None:
    d = differences([INF, INF, 1.0], [INF, 2.0, INF])
    assert list(d) == [0, INF, -INF]
    # an infinite difference outweighs all finite ones
    assert sign_flip(np.array([INF, -1.0, -2, -3])) == 1
    assert sign_flip(np.array([INF] * 6)) == least_p(6)
    centre, low, high = hodges_lehmann(np.array([INF] * 6))
    assert (centre, low, high) == (INF, INF, INF)
    assert hodges_lehmann(np.array([INF, -INF]))[0] == 0
    verdict = compare_pair([INF] * 7, list(range(7)))
    assert verdict.outcome == "worse"
    same = compare_pair([INF] * 7, [INF] * 7)
    assert same.text == "cannot tell (n = 7, p = 1; no difference beyond rounding seen)"
    assert math.isnan(effect_size(d))
    for scale in (1e300, 1e-300):  # whose squares are infinite, or 0
        assert effect_size([scale, -scale, scale]) == pytest.approx(effect_size([1, -1, 1]))
    assert rank_biserial(np.array([INF, INF, -1.0])) == pytest.approx(4 / 6)
    assert seeds_needed(np.array([INF, 1, 2, 3, -4.0])) < INF


def test_interval_agrees_with_the_test() -> None:
    # Hollander and Wolfe's depression data in R: wilcox.test(x, y, paired = TRUE, conf.int = TRUE)
    x = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    y = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    assert signed_rank(x - y) == pytest.approx(0.03906, abs=1e-5)
    assert hodges_lehmann(x - y) == pytest.approx((0.46, 0.01, 0.786), abs=1e-3)
    for shift in np.linspace(-1.5, 1.5, 31):
        d = np.random.default_rng(4).normal(shift, 1, 9)
        _, low, high = hodges_lehmann(d)
        assert (low > 0 or high < 0) == (signed_rank(d) <= 0.05)
    assert hodges_lehmann(np.arange(1.0, 6))[1:] == (-INF, INF)


def test_holm_is_that_of_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p = RANDOM.random(20) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert list(holm([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])


def test_power_is_that_of_published_tables() -> None:
    # G*Power, two-sided paired t test, alpha 0.05, power 0.8: n = 199, 34, 15 for d = .2, .5, .8
    for size, n in ((0.2, 199), (0.5, 34), (0.8, 15)):
        assert t_power(size, n - 1) < 0.8 <= t_power(size, n)
        d = RANDOM.normal(size=8)
        d = (d - d.mean()) / d.std(ddof=1) + size
        assert seeds_needed(d) == math.ceil(n * math.pi / 3)
    assert seeds_needed(np.array([1.0, 1, 1])) == 6
    assert seeds_needed([INF, INF, INF]) == seeds_needed([INF, 2.0, 1.0]) == 6
    assert seeds_needed(np.array([1.0, -1])) == INF
    assert probability_of_improvement(np.array([1.0, 2]), np.array([2.0, 3])) == 0.875
    u = reference.mannwhitneyu([3.0, 5, 9], [4.0, 5]).statistic
    assert probability_of_improvement(np.array([3.0, 5, 9]), np.array([4.0, 5]), False) == u / 6


def test_a_claim_says_better_worse_or_cannot_tell() -> None:
    a = np.arange(8) / 10
    # b is better by 0.5 and a bit, then a tie of two noisy ones
    better = compare_pair(a, a + 0.5 + a**2)
    assert better.text == "better (n = 8, p = 0.0078)"
    assert compare_pair(a + 0.5, a - a**2).outcome == "worse"
    assert compare_pair(a, a + 0.5 + a**2, smaller=False).outcome == "worse"
    few = compare_pair(a[:5], a[:5] + 0.5 + a[:5] ** 2)
    assert few.outcome == "cannot tell"
    assert few.text == (
        "cannot tell (n = 5; about 6 seeds needed; 5 pairs cannot go below p = 0.062)"
    )
    vague = compare_pair(a, a + np.array([0.3, -0.2, 0.1, 0.2, -0.1, 0.3, 0.0, -0.1]))
    assert vague.needed > 8
    needed = f"about {vague.needed:.0f} seeds needed"
    assert vague.text == f"cannot tell (n = 8, p = {vague.p:.2g}; {needed})"
    with pytest.raises(UserError, match="same seeds"):
        compare_pair(a, a[:5])


@given(runs, st.integers(-64, 64))
@settings(max_examples=60, deadline=None)
def test_a_constant_changes_no_verdict(pair: tuple[list[float], list[float]], c: int) -> None:
    a, b = map(np.array, pair)
    before, after = compare_pair(a, b), compare_pair(a + c, b + c)
    assert before == after
    # and the other way round the words change sides
    swap = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
    assert compare_pair(b, a).outcome == swap[before.outcome]
    assert compare_pair(-a, -b, smaller=False).outcome == before.outcome


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_permuting_optimizers_permutes_the_table(order: list[int]) -> None:
    values = np.random.default_rng(1).normal(size=(8, 4)) + np.array([0, 0, 1, 5])
    index = pd.MultiIndex.from_product([["p"], range(8)], names=["problem", "seed"])
    frame = pd.DataFrame(values, index, list("abcd"))
    keys = ["a", "b", "verdict", "p_corrected", "p_flip", "n"]
    plain = compare(frame, "d")[keys].sort_values("a").reset_index(drop=True)
    other = compare(frame[[list("abcd")[i] for i in order]], "d")[keys]
    pd.testing.assert_frame_equal(plain, other.sort_values("a").reset_index(drop=True))
    assert plain["verdict"].str.startswith("better").tolist() == [True, True, True]


def test_compare_pairs_only_common_seeds() -> None:
    index = pd.MultiIndex.from_product([["p", "q"], range(8)], names=["problem", "seed"])
    frame = pd.DataFrame(RANDOM.normal(size=(16, 3)), index, ["x", "y", "z"])
    frame.loc[("q", 0), "x"] = math.nan
    lines = compare(frame)
    assert len(lines) == 6
    assert sorted(lines["n"]) == [7, 7, 8, 8, 8, 8]
    assert (lines["p_corrected"] >= lines["p"]).all()
    with pytest.raises(UserError, match="no optimizer 'w'"):
        compare(frame, "w")


def test_identical_optimizers_are_not_told_apart() -> None:
    studies = 25
    # exact tests at 8 seeds: at most 12 of 256 flips, 4.7 %; one in a million passes this bound
    highest = reference.binom.ppf(1 - 1e-6, studies, 12 / 256)
    for way in simulation.WAYS:
        kind = simulation.KINDS[len(way) % len(simulation.KINDS)]
        assert simulation.false_claims(way, kind, DEFAULT_SEEDS, studies) <= highest, (way, kind)
    assert (
        simulation.power("the first of 7 against the others", "normal", DEFAULT_SEEDS, 10, 3) > 0.5
    )
    assert simulation.upper_end(0, 100) == pytest.approx(1 - 0.025 ** (1 / 100))


def test_too_few_seeds_are_told_how_many_are_needed():
    one = compare_pair([1.0], [2.0])
    assert math.isnan(one.needed)
    assert one.text.startswith("cannot tell (n = 1; one pair shows no spread")
    d = np.arange(1.0, 7.0)
    p = float(6 * least_p(6))
    six = compare_pair(np.zeros(6), d, p=p, comparisons=6)
    assert "6 pairs cannot go below p = 0.19, corrected for 6 comparisons (Holm)" in six.text
    assert six.needed == 8


def test_signed_ranks_with_ties_are_those_of_scipy() -> None:
    random = np.random.default_rng(1)
    for n in (2, 5, 8, 13):
        for _ in range(5):
            d = random.integers(-3, 4, size=n).astype(float)
            d[0] = random.choice([np.inf, -np.inf, 2.0])
            kept = d[d != 0]
            assert signed_rank(d) == pytest.approx(reference.wilcoxon(kept).pvalue, abs=1e-9)


def test_signed_ranks_are_those_of_scipy() -> None:
    random = np.random.default_rng(5)
    for n in (1, 2, 6, 8, 30, 50, 51):
        for d in (random.normal(0.3, 1, n), random.integers(-4, 5, min(n, 8)) + 0.0):
            kept = d[d != 0]
            expected = reference.wilcoxon(kept).pvalue if len(kept) else 1.0
            assert signed_rank(d) == pytest.approx(expected, rel=1e-12)


def test_values_that_rounding_tells_apart_need_no_more_seeds() -> None:
    a = np.linspace(0.5, 0.6, 8)
    b = a * (1 + 3e-8 * np.array([1, -1, 1, 1, -1, 1, 1, -1]))
    verdict = compare_pair(a, b)
    assert verdict.outcome == "cannot tell"
    assert verdict.needed == math.inf
    assert "no difference beyond rounding seen" in verdict.text


@pytest.mark.parametrize("case", range(6))
def test_the_signed_rank_test_is_exact_with_ties_and_many_pairs(case):
    """Against all 2 ** 16 flips of the signs, with equal sizes and zeros."""
    random = np.random.default_rng(case)
    d = random.integers(-3, 5, 16).astype(float)
    left = d[d != 0]
    ranks = reference.rankdata(np.abs(left))
    signs = (np.arange(2 ** len(left))[:, None] >> np.arange(len(left))) & 1
    sums, own = signs @ ranks, ranks[left > 0].sum()
    above, below = (sums >= own).mean(), (sums <= own).mean()
    assert signed_rank(d) == pytest.approx(min(1.0, 2 * min(above, below)), rel=1e-12)
    assert signed_rank_greater(d) == pytest.approx(above, rel=1e-12)

"""Two one-sided tests of equivalence, against scipy's and statsmodels' formulas."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.weightstats import ttost_paired

from optbench import stats
from optbench.common.errors import UserError
from optbench.stats.equivalence import signed_rank_greater


def draws(n, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(shift, 1, n)


@pytest.mark.parametrize("n", [2, 5, 8, 20, 49])
@pytest.mark.parametrize("shift", [-0.5, 0.0, 2.0])
def test_one_sided_signed_ranks_are_those_of_scipy(n, shift):
    d = draws(n, shift, n)
    expected = scipy_stats.wilcoxon(d, alternative="greater", method="exact").pvalue
    assert signed_rank_greater(d) == pytest.approx(expected, rel=1e-12)


def test_one_sided_signed_ranks_with_ties_count_all_flips():
    d = np.array([1.0, 1.0, -1.0, 2.0, 2.0, -3.0, 0.0])
    ranks = scipy_stats.rankdata(np.abs(d[d != 0]))
    signs = np.array(np.meshgrid(*[[0, 1]] * 6)).reshape(6, -1).T
    own = ranks[d[d != 0] > 0].sum()
    assert signed_rank_greater(d) == pytest.approx((signs @ ranks >= own - 1e-9).mean())
    assert signed_rank_greater(np.zeros(5)) == 1.0


@pytest.mark.parametrize("margin", [0.3, 0.8, 2.0])
def test_the_t_test_is_that_of_statsmodels(margin):
    d = draws(12, 0.2)
    expected = ttost_paired(d, np.zeros(12), -margin, margin)[0]
    assert stats.equivalence(d, margin, "t").p == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("margin", [0.3, 0.8, 2.0])
def test_the_rank_test_is_the_larger_of_scipys_two(margin):
    d = draws(9, 0.2, 3)
    ends = (d + margin, margin - d)
    one_sided = [
        scipy_stats.wilcoxon(e, alternative="greater", method="exact").pvalue for e in ends
    ]
    assert stats.equivalence(d, margin).p == pytest.approx(max(one_sided), rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_it_agrees_with_its_interval(seed):
    rng = np.random.default_rng(seed)
    d = rng.normal(rng.uniform(-1, 1), 0.6, 9)
    found = stats.equivalence(d, 0.7)
    assert (found.p <= 0.05) == (found.low > -0.7 and found.high < 0.7)
    assert not (found.p <= 0.05 and found.p_beyond <= 0.05)


def test_large_differences_are_shown_to_lie_beyond():
    found = stats.equivalence(draws(10, 8.0), 1.0)
    assert found.p == 1.0
    assert found.p_beyond == pytest.approx(2 * 2.0**-10)
    mirrored = stats.equivalence(-draws(10, 8.0), 1.0)
    assert mirrored.p_beyond == found.p_beyond


def test_a_small_sample_shows_nothing():
    assert stats.equivalence(np.full(4, 0.01) * [1, -1, 2, -2], 1.0).p == pytest.approx(2.0**-4)


def test_diverged_runs_lie_beyond_every_margin():
    d = np.array([0.1, -0.2, 0.05, 0.11, -0.07, 0.02, math.inf, math.inf])
    assert stats.equivalence(d, 1.0).p > 0.05
    with pytest.raises(UserError, match="all finite"):
        stats.equivalence(d, 1.0, "t")


def test_false_claims_of_equality_are_as_rare_as_the_level_says():
    rng = np.random.default_rng(1)
    at_the_margin = [stats.equivalence(rng.normal(1.0, 0.5, 8), 1.0).p <= 0.05 for _ in range(800)]
    assert np.mean(at_the_margin) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 800)
    assert np.mean(at_the_margin) > 0.02


@pytest.mark.parametrize("margin", [0, -1, math.inf, "0.1", True])
def test_a_margin_is_a_number_above_zero(margin):
    with pytest.raises(UserError, match="the margin must be a number above 0"):
        stats.equivalence([1.0, 2.0], margin)


def test_another_test_is_refused():
    with pytest.raises(UserError, match="signed-rank, t"):
        stats.equivalence([1.0, 2.0], 1, "z")

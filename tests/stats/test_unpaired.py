"""Runs without partners: exact rank-sum tests against scipy and all divisions, and properties."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from optbench.stats.corrections import UNPAIRED, least_seeds, results_of, too_few_seeds
from optbench.stats.paired_tests import holm
from optbench.stats.pairwise import compare, compare_pair, judge_pairs
from optbench.stats.unpaired_tests import (
    dominance,
    enough_runs,
    least_unpaired_p,
    rank_sum,
    runs_needed,
    shift,
    unpaired_effect_size,
)

RANDOM = np.random.default_rng(0)
# final losses: multiples of 1/64, with ties and diverged runs
loss = st.integers(-20, 20).map(lambda i: i / 64) | st.just(math.inf)
group = st.lists(loss, min_size=2, max_size=6)


def by_divisions(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p by going through all divisions of the runs."""
    ranks = reference.rankdata([*a, *b])
    own = ranks[: len(a)].sum()
    sums = np.array([ranks[list(some)].sum() for some in combinations(range(len(ranks)), len(a))])
    return min(1.0, 2 * min((sums <= own + 1e-9).mean(), (sums >= own - 1e-9).mean()))


def unpaired_frame(**columns: list[float]) -> pd.DataFrame:
    """Return a frame in which no two optimizers share a seed."""
    rows = [(name, value) for name, values in columns.items() for value in values]
    index = pd.MultiIndex.from_product([["p"], range(len(rows))], names=["problem", "seed"])
    frame = pd.DataFrame(math.nan, index, list(columns))
    for place, (name, value) in enumerate(rows):
        frame.loc[("p", place), name] = value
    return frame


@given(group, group)
@settings(max_examples=60, deadline=None)
def test_the_test_is_that_of_all_divisions_with_ties_and_diverged_runs(a, b) -> None:
    p = rank_sum(a, b)
    assert p == pytest.approx(by_divisions(np.array(a), np.array(b)))
    assert rank_sum(b, a) == pytest.approx(p)
    assert p >= least_unpaired_p(len(a), len(b)) - 1e-12


def test_without_ties_it_is_scipys_exact_test() -> None:
    for n, m in ((4, 4), (8, 5), (10, 10), (30, 20)):
        a, b = RANDOM.normal(0.6, 1, n), RANDOM.normal(0, 1, m)
        assert rank_sum(a, b) == pytest.approx(reference.mannwhitneyu(a, b, method="exact").pvalue)
    a, b = RANDOM.normal(0.3, 1, 80), RANDOM.normal(0, 1, 70)
    assert rank_sum(a, b) == reference.mannwhitneyu(a, b, method="asymptotic").pvalue


@given(st.lists(st.floats(-9, 9), min_size=10, max_size=16, unique=True), st.integers(4, 6))
@settings(max_examples=60, deadline=None)
def test_the_interval_leaves_out_0_exactly_where_the_test_rejects(values, first) -> None:
    a, b = np.array(values[:first]), np.array(values[first:])
    centre, low, high = shift(a, b)
    assert low <= centre <= high
    assert (not low <= 0 <= high) == (rank_sum(a, b) <= 0.05)


def test_the_interval_of_a_published_example() -> None:
    # Hollander and Wolfe, table 4.1 (Goodman, Potthoff and Cooper): R's wilcox.test, conf.int
    a = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    b = [1.15, 0.88, 0.90, 0.74, 1.21]
    assert rank_sum(a, b) == pytest.approx(0.2544123, abs=1e-6)
    assert shift(a, b) == pytest.approx((0.305, -0.15, 0.76))


def test_the_fewest_runs_that_can_show_a_difference() -> None:
    assert enough_runs() == 4
    assert least_unpaired_p(3) > 0.05 >= least_unpaired_p(4)
    assert least_seeds(6, UNPAIRED) == enough_runs(6) == 5
    assert too_few_seeds(3, 1, UNPAIRED) == (
        "with fewer than 4 runs each no two-sided rank-sum test reaches p < 0.05"
    )
    assert not too_few_seeds(5, 6, UNPAIRED)


def test_diverged_runs_are_the_worst_and_two_of_them_equal() -> None:
    good, lost = [0.1, 0.2, 0.3, 0.4], [math.inf] * 4
    found = compare_pair(good, lost, correction=UNPAIRED)
    assert found.outcome == "better"
    assert found.difference == -math.inf
    assert shift(lost, lost)[0] == 0
    assert dominance(good, lost) == -1
    assert runs_needed(good, lost, least=4) == 4
    assert math.isnan(unpaired_effect_size(good, lost))


def test_effect_size_is_the_gap_over_the_pooled_deviation() -> None:
    a, b = RANDOM.normal(1, 1, 7), RANDOM.normal(0, 1, 7)
    pooled = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert unpaired_effect_size(a, b) == pytest.approx((a.mean() - b.mean()) / pooled)


def test_a_frame_without_common_seeds_is_compared_unpaired() -> None:
    columns = {name: list(RANDOM.normal(mean, 1, 8)) for name, mean in (("a", 0), ("b", 2))}
    columns["c"] = list(RANDOM.normal(4, 1, 6))
    frame = unpaired_frame(**columns)
    pairs = judge_pairs(frame)
    assert {pair.correction for pair in pairs} == {UNPAIRED}
    assert [len(pair.values_a) for pair in pairs] == [8, 8, 8]
    raw = [rank_sum(columns[pair.a], columns[pair.b]) for pair in pairs]
    assert [pair.p for pair in pairs] == pytest.approx(list(holm(raw)))
    found = compare(frame, "a")
    assert found["p_corrected"].tolist() == pytest.approx(list(holm(found["p"].tolist())))
    assert found["p_flip"].isna().all()
    assert found["n"].tolist() == [8, 6]


def test_a_choice_by_the_values_is_corrected_for_all_pairs() -> None:
    columns = {name: list(RANDOM.normal(0, 1, 8)) for name in "abcd"}
    frame = unpaired_frame(**columns)
    (chosen, fixed) = (judge_pairs(frame, "a", chosen=by_values) for by_values in (True, False))
    assert [pair.comparisons for pair in chosen] == [6] * 3
    assert [pair.comparisons for pair in fixed] == [3] * 3
    for one, other in zip(chosen, fixed, strict=True):
        assert one.p >= other.p


def test_a_common_seed_keeps_the_paired_test() -> None:
    frame = unpaired_frame(a=[1.0, 2.0], b=[3.0, 4.0])
    assert not results_of(frame).paired
    frame.loc[("p", 0), "b"] = 5.0
    assert results_of(frame).paired


def test_identical_optimizers_are_seldom_told_apart() -> None:
    """The level holds: at most 5 % of simulated comparisons of six claim a first."""
    claims = 0
    for _ in range(200):
        frame = unpaired_frame(**{name: list(RANDOM.normal(0, 1, 5)) for name in "abcd"})
        claims += any(pair.outcome != "cannot tell" for pair in judge_pairs(frame))
    assert claims <= 19  # the 0.998 quantile of 200 draws at 5 %

"""The word of a claim by its comparisons' p-values: what it implies, and how often it is false."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optbench.analysis.claims.judge import check_words, claim_word
from optbench.stats.paired_tests import enough_seeds, holm, null_cdf

CHECKS = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 1), st.floats(0, 0.06), st.just(math.nan)),
        st.sampled_from([-1, 0, 1]),
    ),
    min_size=1,
    max_size=12,
)


@given(CHECKS)
def test_a_claim_holds_only_if_every_comparison_does(checks):
    p, sides = map(list, zip(*checks, strict=True))
    every = all(value <= 0.05 and side > 0 for value, side in checks)
    assert (claim_word(p, sides) == "held") == every


@given(CHECKS)
def test_a_claim_is_refuted_only_by_a_reversal_that_passes_holm(checks):
    p, sides = map(list, zip(*checks, strict=True))
    corrected = holm(np.nan_to_num(p, nan=1.0))
    refuted = any(q <= 0.05 and side < 0 for q, side in zip(corrected, sides, strict=True))
    assert (claim_word(p, sides) == "did not hold") == refuted
    if refuted:  # never without a reversal that is significant by itself
        assert any(value <= 0.05 and side < 0 for value, side in checks)


@given(CHECKS, st.randoms(use_true_random=False))
def test_the_order_of_the_comparisons_does_not_matter(checks, random):
    shuffled = random.sample(checks, len(checks))
    assert claim_word(*zip(*checks, strict=True)) == claim_word(*zip(*shuffled, strict=True))


def test_one_reversal_of_several_needs_a_smaller_p():
    assert claim_word([0.03], [-1]) == "did not hold"
    assert claim_word([0.03, 0.5], [-1, 1]) == "cannot tell"
    assert claim_word([0.03, 0.04], [1, 1]) == "held"
    six = [0.0078125, *[0.5] * 5]
    assert claim_word(six, [-1] * 6) == "did not hold"
    assert claim_word([*six, 0.5], [-1] * 7) == "cannot tell"
    assert check_words([0.001, 0.02, 0.3], [1, -1, 1]) == ["held", "did not hold", "cannot tell"]


def signed_ranks(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided exact p-values and sides of many comparisons of continuous differences (..., n)."""
    n = d.shape[-1]
    ranks = np.abs(d).argsort(axis=-1).argsort(axis=-1) + 1
    minus = np.where(d < 0, ranks, 0).sum(axis=-1)
    smaller = np.minimum(minus, n * (n + 1) // 2 - minus)
    return np.minimum(1, 2 * null_cdf(n)[smaller]), np.where(smaller == minus, 1, -1)


def draw(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Differences of sides that are alike: (studies, checks, seeds)."""
    if kind == "normal":
        return random.normal(size=shape)
    if kind == "heavy tails":
        return random.standard_t(2, size=shape)
    if kind == "unequal spreads":
        return random.normal(size=shape) * np.geomspace(1, 30, shape[1])[:, None]
    skewed = np.exp(random.normal(size=(2, *shape)))
    if kind == "skewed":
        return skewed[0] - skewed[1]
    # one in ten collapses; checks that share a side, as adam against momentum and rmsprop
    runs = np.where(random.random((2, *shape)) < 0.1, 100, 0) + skewed
    return runs[0][:, :1] - runs[1]


KINDS = ("normal", "heavy tails", "unequal spreads", "skewed", "one side shared, collapses")


@pytest.mark.parametrize(("checks", "seeds"), [(2, 8), (6, 8), (8, 10)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_claim_of_equal_sides_is_refuted_in_at_most_5_percent(kind, checks, seeds):
    assert seeds >= enough_seeds(checks)  # one comparison can refute: the gate could speak
    random = np.random.default_rng([checks, KINDS.index(kind)])
    p, sides = signed_ranks(draw(kind, (4000, checks, seeds), random))
    words = [claim_word(*study) for study in zip(p, sides, strict=True)]
    rate, error = words.count("did not hold") / 4000, 1.96 * math.sqrt(0.05 * 0.95 / 4000)
    assert rate <= 0.05 - error  # the upper end of its interval is below 5 %
    assert words.count("held") / 4000 <= 0.05
    uncorrected = ((p <= 0.05) & (sides < 0)).any(axis=1).mean()
    assert rate < uncorrected  # 9 to 17 % at 6 and 8 checks


@pytest.mark.parametrize(("checks", "seeds"), [(6, 8), (8, 10)])
def test_a_true_reversal_refutes_a_claim(checks, seeds):
    random = np.random.default_rng(checks)
    d = random.normal(size=(1000, checks, seeds)) + np.array([3.0, *[-3.0] * (checks - 1)])[:, None]
    p, sides = signed_ranks(-d)
    words = [claim_word(*study) for study in zip(p, sides, strict=True)]
    assert words.count("did not hold") / 1000 > 0.9

"""Expected best results against simulation, and widths by hand."""

import math

import numpy as np
import pytest

from optbench.common.errors import UserError
from optbench.stats.tuning_curves import expected_best, rate_width, rate_widths

SCORES = np.array([0.9, 0.5, 0.7, 0.2, 0.6])


def test_expected_best_is_what_draws_give() -> None:
    frame = expected_best(SCORES)
    assert frame["expected"][0] == pytest.approx(SCORES.mean())
    assert frame["sd"][0] == pytest.approx(SCORES.std())
    random = np.random.default_rng(0)
    for n in (2, 5):
        best = random.choice(SCORES, (40_000, n)).min(axis=1)
        assert frame["expected"][n - 1] == pytest.approx(best.mean(), abs=0.005)
        assert frame["sd"][n - 1] == pytest.approx(best.std(), abs=0.005)
        assert frame["median"][n - 1] == pytest.approx(np.median(best))
    # by hand, without replacement: two of three
    assert expected_best([1.0, 2, 4], replacement=False)["expected"][1] == pytest.approx(4 / 3)
    assert expected_best(SCORES, replacement=False)["expected"].iloc[-1] == pytest.approx(0.2)
    flipped = expected_best(-SCORES, smaller=False)
    for name, other in (("expected", "expected"), ("low", "high"), ("median", "median")):
        assert list(flipped[name]) == pytest.approx(list(-frame[other]))
    assert (np.diff(frame["expected"]) < 0).all()
    assert (frame["low"] <= frame["expected"]).all()
    assert (frame["expected"] <= frame["high"]).all()


def test_a_diverged_trial_makes_the_expectation_infinite() -> None:
    frame = expected_best([*SCORES, math.inf])
    assert (frame["expected"] == math.inf).all()
    assert list(frame["median"][:2]) == [0.7, 0.5]  # the worse of two middle ones
    unbiased = expected_best([*SCORES, math.inf], replacement=False)
    assert unbiased["expected"][0] == math.inf
    assert np.isfinite(unbiased["expected"][1:]).all()
    assert (expected_best([-math.inf, 0.5], smaller=False)["expected"] == -math.inf).all()
    with pytest.raises(UserError, match="infinite"):
        expected_best([math.nan])


def test_the_width_of_good_rates_is_that_by_hand() -> None:
    rates, losses = [1e-4, 1e-3, 1e-2, 1e-1, 1], [2.0, 1.1, 1.0, 1.2, math.inf]
    found = rate_width(rates, losses, within=0.1)
    # from 1e-3, where 1.1 is met, to half-way (in log) between 1e-2 and 1e-1
    assert found.decades == pytest.approx(1.5)
    assert (found.low, found.high) == pytest.approx((1e-3, 10**-1.5))
    assert not found.open_low
    wide = rate_width(rates, losses, within=0.5)
    assert wide.high == pytest.approx(0.1)  # next to a diverged rate it ends at the last good one
    assert rate_width(rates, [1.0, 1, 1, 1, 1])[3:5] == (True, True)
    accuracy = rate_width(rates, [0.5, 0.9, 1.0, 0.8, -math.inf], smaller=False, within=0.1)
    assert accuracy.decades == pytest.approx(1.5)
    widths = rate_widths(rates, losses)
    assert list(widths) == [0.01, 0.05, 0.1]
    assert widths[0.01].decades < widths[0.05].decades < widths[0.1].decades
    assert math.isnan(rate_width(rates, [math.inf] * 5).decades)
    # a second valley is not counted: the range is unbroken
    assert rate_width(rates, [1.0, 2, 1.0, 2, 1.0], within=0.1).decades < 0.2
    with pytest.raises(UserError, match="two positive"):
        rate_width([0.1, 0.1], [1, 2])

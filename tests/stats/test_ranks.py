"""Ranks against the tables of Demsar (2006)."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from optbench.common.errors import UserError
from optbench.figures.over_problems import cd_diagram
from optbench.stats.ranks import (
    by_problem,
    cliques,
    critical_difference,
    friedman,
    mean_ranks,
    nemenyi,
    rank,
    wilcoxon_holm,
)

# Demsar 2006, table 6: AUC of C4.5 with its two parameters tuned or not, 14 data sets
AUC = pd.DataFrame(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],  # 0.975 twice, yet ranked 2 and 3 there
        [0.957, 0.978, 0.946, 0.970],
    ],
    columns=["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"],
)
# table 5(a): q at 0.05 and 0.10 for 2 to 10 classifiers
Q05 = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
Q10 = [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]


def test_ranks_and_friedman_are_those_of_demsars_example() -> None:
    ranks = mean_ranks(AUC, smaller=False)
    wanted = {"C4.5": 3.143, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    assert ranks.to_dict() == pytest.approx(wanted, abs=5e-4)
    found = friedman(AUC, smaller=False)
    # he does not correct for ties: 9.28 and F = 3.69; scipy does
    his = friedman(AUC, smaller=False, ties=False)
    assert his.chi2 == pytest.approx(9.28, abs=0.005)
    assert his.f == pytest.approx(3.69, abs=0.005)
    assert his.p == pytest.approx(reference.chi2.sf(his.chi2, 3))
    table = rank(AUC, smaller=False).to_numpy()
    ties = sum((c**3 - c).sum() for row in table for c in [np.unique(row, return_counts=True)[1]])
    plain = found.chi2 * (1 - ties / (14 * (4**3 - 4)))
    assert plain == pytest.approx(9.28, abs=0.005)
    assert 13 * plain / (42 - plain) == pytest.approx(3.69, abs=0.005)
    assert found.p == reference.friedmanchisquare(*AUC.to_numpy().T).pvalue
    assert found.p_f < 0.05
    assert found[4:] == (14, 4)


def test_nemenyi_is_that_of_demsars_tables() -> None:
    for k, (q05, q10) in enumerate(zip(Q05, Q10, strict=True), start=2):
        root = math.sqrt(k * (k + 1) / (6 * 14))
        assert critical_difference(k, 14) / root == pytest.approx(q05, abs=1.5e-3)
        assert critical_difference(k, 14, 0.10) / root == pytest.approx(q10, abs=1.5e-3)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    # at 0.10 C4.5 is worse than C4.5+m and C4.5+m+cf, and nothing else differs
    p = nemenyi(AUC, smaller=False)
    assert p.loc["C4.5", "C4.5+m+cf"] < 0.10 < p.loc["C4.5", "C4.5+cf"]
    assert p.loc["C4.5", "C4.5+m"] < 0.10 < p.loc["C4.5+m+cf", "C4.5+cf"]
    groups = cliques(mean_ranks(AUC, smaller=False), p, 0.10)
    assert groups == [["C4.5+m+cf", "C4.5+m", "C4.5+cf"], ["C4.5+cf", "C4.5"]]


def test_wilcoxon_holm_corrects_each_pair() -> None:
    scores = AUC[["C4.5", "C4.5+m", "C4.5+cf"]]
    p = wilcoxon_holm(scores)
    raw = [
        reference.wilcoxon(scores[a] - scores[b]).pvalue
        for a, b in (("C4.5", "C4.5+m"), ("C4.5", "C4.5+cf"), ("C4.5+m", "C4.5+cf"))
    ]
    assert p.loc["C4.5", "C4.5+m"] >= raw[0]
    assert p.to_numpy()[np.triu_indices(3, 1)].min() == pytest.approx(3 * min(raw), abs=0.02)
    assert (p.to_numpy() == p.to_numpy().T).all()


def test_diverged_runs_rank_last_and_missing_ones_are_named() -> None:
    scores = pd.DataFrame({"a": [1.0, math.inf], "b": [2.0, math.inf], "c": [math.inf, 1]})
    assert rank(scores).to_numpy().tolist() == [[1, 2, 3], [2.5, 2.5, 1]]
    same = pd.DataFrame(np.ones((4, 3)), columns=list("abc"))
    assert friedman(same).p == 1
    index = pd.MultiIndex.from_product([["p", "q"], range(3)], names=["problem", "seed"])
    frame = pd.DataFrame({"a": [1.0, 2, math.inf] * 2, "b": [3.0] * 6}, index)
    assert by_problem(frame).to_numpy().tolist() == [[2, 3], [2, 3]]
    frame.loc["q", "b"] = math.nan
    with pytest.raises(UserError, match="missing: b on q"):
        by_problem(frame)
    with pytest.raises(UserError, match="3 optimizers"):
        friedman(scores[["a", "b"]])


@given(st.permutations(range(4)), st.floats(-5, 5))
@settings(max_examples=15, deadline=None)
def test_order_and_shifts_change_no_rank(order: list[int], shift: float) -> None:
    values = np.random.default_rng(2).normal(size=(6, 4))
    scores = pd.DataFrame(values, columns=list("abcd"))
    other = scores.iloc[:, order]
    pd.testing.assert_series_equal(mean_ranks(scores), mean_ranks(other))
    assert friedman(other).p == pytest.approx(friedman(scores).p)
    pd.testing.assert_frame_equal(nemenyi(scores), nemenyi(other).loc[list("abcd"), list("abcd")])
    pd.testing.assert_series_equal(mean_ranks(scores), mean_ranks(scores + shift))


def test_diagram_shows_names_bars_and_the_difference() -> None:
    ranks = mean_ranks(AUC, smaller=False)
    groups = cliques(ranks, nemenyi(AUC, smaller=False), 0.1)
    figure = cd_diagram(ranks, groups, problems=14, alpha=0.1)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "C4.5+m+cf (1.96)" in texts
    assert "CD = 1.12" in texts
    assert sum(line.get_linewidth() == 2.6 for line in figure.axes[0].lines) == 2
    assert "n = 14 problems" in figure.get_supxlabel()

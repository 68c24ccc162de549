"""Claims that two settings hardly differ: held only where it is shown."""

import math

import pytest
from made_runs import make_run

from optbench import stats
from optbench.analysis.claims import judge
from optbench.analysis.table import load_runs
from optbench.common.errors import UserError

SAME = {
    "value": "train_loss",
    "equal": {"optimizer": "one"},
    "to": {"optimizer": "two"},
    "within": 0.5,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in ("one", "two", "sgd", "adam"):
        for seed in range(8):
            make_run(folder / f"{name}{seed}", name, seed)
    for lr in (0.01, 0.1):
        for name in ("rated", "other"):
            for seed in range(8):
                make_run(folder / f"{name}{lr}{seed}", name, seed, lr=lr)
    for seed in range(8):
        make_run(folder / f"lost{seed}", "lost", seed, diverged_at=40)
    return load_runs(folder)


def judged(table, *checks):
    return judge.judge_claim(table, None, {"text": "They are alike.", "checks": list(checks)})


def finals(table, name):
    last = table[table["optimizer"] == name].groupby("run", observed=True).last()
    return last.sort_values("seed")["train_loss"].to_numpy()


def test_differences_within_the_margin_hold(table):
    (check,) = judged(table, SAME)
    expected = stats.equivalence(finals(table, "one") - finals(table, "two"), 0.5)
    assert check.word == "held"
    assert check.verdict.p == expected.p <= 0.05
    assert (check.verdict.low, check.verdict.high) == (expected.low, expected.high)
    assert "claimed equal within 0.5: held" in check.text
    assert "(90 %)" in check.text
    frame = judge.to_frame([check])
    assert frame["claimed"].tolist() == ["equal within 0.5"]


def test_no_difference_found_is_not_equality_shown(table):
    (check,) = judged(table, SAME | {"within": 0.02})
    assert check.word == "cannot tell"
    assert check.verdict.outcome == "cannot tell"


def test_a_difference_beyond_the_margin_refutes(table):
    far = SAME | {"equal": {"optimizer": "sgd"}, "to": {"optimizer": "adam"}, "within": 0.01}
    (check,) = judged(table, far)
    assert check.word == "did not hold"
    d = finals(table, "sgd") - finals(table, "adam")
    assert check.verdict.p == stats.equivalence(d, 0.01).p_beyond == 2 / 2**8


def test_a_chosen_setting_doubles_the_p_value(table):
    chosen = SAME | {
        "equal": {"optimizer": "rated"},
        "to": {"optimizer": "other"},
        "across": {"optimizer.lr": "best"},
    }
    (check,) = judged(table, chosen)
    assert check.factor == 2
    assert check.word == "held"
    assert check.verdict.p == 2 * 2**-8  # each one-sided test at its least, doubled
    assert any("best lr" in note for note in check.notes)


def test_a_number_may_be_the_other_side(table):
    (check,) = judged(table, SAME | {"to": 0.5})
    assert check.other == ""
    assert check.medians[1] == 0.5


def test_diverged_runs_are_equal_to_nothing(table):
    (check,) = judged(table, SAME | {"to": {"optimizer": "lost"}})
    assert check.medians[1] == math.inf
    assert check.word == "did not hold"
    assert "no difference in numbers" in check.text
    assert "inf" not in check.text


@pytest.mark.parametrize(
    "check",
    [
        {key: value for key, value in SAME.items() if key != "within"},
        {key: value for key, value in SAME.items() if key != "to"},
        SAME | {"than": {"optimizer": "two"}},
        SAME | {"lower": {"optimizer": "one"}},
    ],
)
def test_a_check_that_cannot_be_read_says_what_it_needs(table, check):
    with pytest.raises(UserError, match=r"equal, to and within \(a margin\)"):
        judged(table, check)


@pytest.mark.parametrize("margin", [0, -0.1, "small"])
def test_a_margin_must_be_a_number_above_zero(table, margin):
    with pytest.raises(UserError, match="the margin must be a number above 0"):
        judged(table, SAME | {"within": margin})


def test_the_test_is_named_with_the_verdict(table):
    text = judge.sentence("They are alike.", judged(table, SAME))
    assert "two one-sided signed-rank tests" in text
    assert text.rstrip().count("It held.") == 1

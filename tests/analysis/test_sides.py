"""The setting at which a side of a claim stands, its test, and its warning."""

import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_claim_words import signed_ranks

from optbench.analysis.claims import judge
from optbench.analysis.claims.sides import (
    Side,
    _condition_text,
    best_column,
    choice_factor,
    leading_first,
    number_side,
    p_of_best,
)
from optbench.common.errors import UserError
from optbench.datasets.loaders import wine
from optbench.formats.groups import config_folder
from optbench.initializers import initialize
from optbench.models import logreg
from optbench.stats.paired_tests import differences, signed_rank
from optbench.stats.power import rank_biserial

STUDIES = sorted((config_folder() / "study" / "claims").glob("*.yaml"))
OUT = config_folder().parent / "results" / "claims"
BEST = {
    "value": "train_loss", "lower": {"optimizer": "a"}, "than": {"optimizer": "b"},
    "across": {"optimizer.lr": "best"},
}  # fmt: skip
SPREAD = np.linspace(0.95, 1.05, 8)  # of eight seeds


def judged(check: dict, losses: dict[tuple[str, float], np.ndarray]) -> judge.Check:
    """The check of a claim about runs that ended so: {(optimizer, lr): a loss for each seed}."""
    lines = [
        {
            "run": f"{name}-{lr}-{seed}", "seed": seed, "optimizer": name, "optimizer.lr": lr,
            "epoch": 1, "train_loss": loss,
            "status": "completed" if np.isfinite(loss) else "diverged",
        }
        for (name, lr), values in losses.items() for seed, loss in enumerate(values)
    ]  # fmt: skip
    table = pd.DataFrame(lines)
    table.attrs["measured"] = ["epoch", "train_loss"]
    return judge.judge_claim(table, None, {"text": "A claim.", "checks": [check]})[0]


def side_of(cells: np.ndarray, smaller: bool = True) -> Side:
    """A side with the values (seeds, settings)."""
    frame = pd.DataFrame(cells)
    frame.columns = pd.Index([(float(c),) for c in frame], tupleize_cols=False)
    return Side("side", frame, ("optimizer.lr",), best_column(cells, smaller), ())


def test_a_rate_at_which_one_seed_collapses_is_not_the_best():
    """As in claims/batch_size: at 0.1 seven seeds are better by a factor of six, one collapses."""
    collapsing = np.array([*(0.24 * SPREAD[:7]), 2.3])
    losses = {
        ("a", 0.1): collapsing, ("a", 0.05): 0.4 * SPREAD, ("a", 0.025): 0.7 * SPREAD,
        ("b", 0.1): 1.55 * SPREAD[::-1], ("b", 0.05): 1.8 * SPREAD, ("b", 0.025): 2.0 * SPREAD,
    }  # fmt: skip
    check = judged(BEST, losses)
    assert check.word == "held"
    assert "best lr 0.05 (optimizer a)" in check.notes
    diverging = losses | {("a", 0.1): np.array([*(0.01 * SPREAD[:7]), np.inf])}
    assert "best lr 0.05 (optimizer a)" in judged(BEST, diverging).notes


def test_where_all_rates_diverge_somewhere_the_fewest_count():
    cells = np.array([[1, 0.1, np.inf], [1, np.inf, np.inf], [np.inf, np.inf, 0.1]])
    assert best_column(cells, smaller=True) == 0
    assert best_column(-cells, smaller=False) == 0
    assert best_column(np.full((3, 2), np.nan), smaller=True) == 0


def test_a_claim_holds_only_against_every_rate_of_the_other_side():
    # B's best is worse than A's, but at a rate at which one seed collapses it is often better
    losses = {
        ("a", 0.1): 0.5 * SPREAD, ("a", 0.05): 0.9 * SPREAD,
        ("b", 0.1): np.array([*(0.2 * SPREAD[:7]), 9.0]), ("b", 0.05): 0.8 * SPREAD,
    }  # fmt: skip
    check = judged(BEST, losses)
    assert check.word == "cannot tell"
    assert "best lr 0.05 (optimizer b, the edge of those tried)" in check.notes
    assert "least sure against lr 0.1" in check.notes
    del losses["b", 0.1]
    assert judged(BEST, losses).word == "held"


def test_the_p_value_grows_with_the_choice_of_the_side_that_is_ahead():
    one, other = 0.5 * SPREAD, 0.9 * SPREAD[::-1]
    p = signed_rank(one - other)
    alone = judged(BEST, {("a", 0.1): one, ("b", 0.1): other, ("b", 0.05): 2 * other})
    assert alone.verdict.p == pytest.approx(p)
    chosen = judged(BEST, {("a", 0.1): one, ("a", 0.05): 2 * one, ("b", 0.1): other})
    assert chosen.verdict.p == pytest.approx(2 * p)
    assert choice_factor(12) == 3
    reverse = BEST | {"lower": {"optimizer": "b"}, "than": {"optimizer": "a"}}
    assert judged(reverse, {("a", 0.1): one, ("b", 0.1): other}).word == "did not hold"


def test_a_side_whose_rate_is_named_chooses_none():
    """As in claims/feature_scale: it stands against every rate of the other side."""
    losses = {("a", 0.1): 0.5 * SPREAD, ("b", 0.1): 0.9 * SPREAD, ("b", 0.2): 0.8 * SPREAD}
    check = judged(BEST | {"lower": {"optimizer": "a", "optimizer.lr": 0.1}}, losses)
    assert check.notes == ("best lr 0.2 (optimizer b, the edge of those tried)",)
    assert check.verdict.p == pytest.approx(2 / 2**8)


@st.composite
def losses_of_a_side(draw):
    """Losses (8,) of one to three settings, of which up to two seeds diverge."""
    tried = []
    for _ in range(draw(st.integers(1, 3))):
        values = draw(st.sampled_from([0.5, 0.55, 1.0])) * np.array(draw(st.permutations(SPREAD)))
        values[: draw(st.integers(0, 2))] = np.inf
        tried.append(values)
    return tried


@settings(max_examples=25, deadline=None)
@given(losses_of_a_side(), losses_of_a_side())
def test_held_means_ahead_of_every_setting_of_the_other_side(first, second):
    losses = {("a", 0.1 * 2**k): np.array(v) for k, v in enumerate(first)}
    losses |= {("b", 0.1 * 2**k): np.array(v) for k, v in enumerate(second)}
    check = judged(BEST, losses)
    if check.word == "held":
        assert any(
            all(
                signed_rank(d := differences(a, b)) <= 0.05 and rank_biserial(d) < 0 for b in second
            )
            for a in first
        )
    # the reversed claim: what held is refuted, and what was refuted holds
    reverse = BEST | {"lower": {"optimizer": "b"}, "than": {"optimizer": "a"}}
    swap = {"held": "did not hold", "did not hold": "held", "cannot tell": "cannot tell"}
    assert judged(reverse, losses).word == swap[check.word]


def test_a_number_may_be_the_other_side_of_a_best():
    side = side_of(np.array([0.5, 0.7]) * SPREAD[:, None])
    front, other = leading_first(number_side(1.0, side.tried.index), side, smaller=True)
    assert front is side
    assert p_of_best(front, other, smaller=True) == (pytest.approx(2 * 2 / 2**8), "")


def test_a_rate_without_a_seed_of_the_others_is_named():
    losses = {("a", 0.1): SPREAD, ("a", 0.2): SPREAD[:6], ("b", 0.1): SPREAD}
    with pytest.raises(UserError, match=r"optimizer a, lr 0.2 has no run of seed 6, 7"):
        judged(BEST, losses)


def test_neighbouring_rates_further_apart_than_the_sides_are_a_warning():
    near = {("b", lr): value * SPREAD for lr, value in ((0.05, 0.16), (0.1, 0.12), (0.2, 0.15))}
    a = {("a", 0.1): 0.093 * SPREAD}
    (warning,) = judged(BEST, a | near).warnings
    assert warning.startswith(
        "optimizer b, lr 0.1 differs from 0.05 by 0.04 and 0.2 by 0.03, the two sides by 0.02"
    )
    fine = {("b", lr): value * SPREAD for lr, value in ((0.05, 0.125), (0.1, 0.12), (0.2, 0.125))}
    assert judged(BEST, a | fine).warnings == ()
    cliff = fine | {("b", 0.2): np.full(8, np.inf)}
    assert "0.2, where it diverges" in judged(BEST, a | cliff).warnings[0]
    # a better rate of the side that is ahead would not change the word
    wide = {("a", 0.05): 0.3 * SPREAD, ("b", 0.1): 0.2 * SPREAD}
    assert judged(BEST, a | wide).warnings[0].endswith("(which would add to the difference)")
    text = judge.sentence("A claim.", [judged(BEST, a | near)])
    assert f"Warning: {warning}." in text


def test_values_that_are_no_numbers_have_no_neighbours():
    check = BEST | {"across": {"model.kind": "best"}}
    table = pd.DataFrame(
        {
            "run": f"{name}{kind}{seed}", "seed": seed, "optimizer": name, "epoch": 1,
            "model.kind": kind, "status": "completed", "train_loss": loss + seed / 100,
        }
        for name, kind, loss in (("a", "x", 1), ("a", "y", 9), ("b", "x", 2), ("b", "y", 8))
        for seed in range(8)
    )  # fmt: skip
    table.attrs["measured"] = ["epoch", "train_loss"]
    (made,) = judge.judge_claim(table, None, {"text": "A claim.", "checks": [check]})
    assert made.word == "held"
    assert made.warnings == ()


def collapsing_sgd(random: np.random.Generator) -> np.ndarray:
    """Losses (8 seeds, 6 rates) shaped like SGD's: the larger the rate the lower, and the likelier
    a collapse."""
    centres = np.array([1.2, 0.72, 0.43, 0.29, 0.3, 0.6])
    collapse = np.array([0, 0.02, 0.1, 0.2, 0.3, 0.6])
    losses = centres * np.exp(0.1 * random.normal(size=(8, 6)))
    return np.where(random.random((8, 6)) < collapse, 2.3 + 0.1 * random.random((8, 6)), losses)


def flat(settings: int):
    """Settings that are all alike."""
    return lambda random: random.normal(size=(8, settings))


def peak(random: np.random.Generator) -> np.ndarray:
    """One good setting of seven."""
    return np.array([9, 9, 9, 0, 9, 9, 9]) + random.normal(size=(8, 7))


@pytest.mark.parametrize(
    ("first", "second"),
    [(collapsing_sgd, collapsing_sgd), (flat(7), flat(7)), (flat(7), flat(1)), (flat(7), peak)],
    ids=["collapsing", "alike", "seven to one", "flat to peak"],
)
def test_equal_sides_at_their_best_are_called_different_in_at_most_5_percent(first, second):
    random = np.random.default_rng(0)
    words = 0
    for _ in range(800):
        front, other = leading_first(side_of(first(random)), side_of(second(random)), smaller=True)
        pairs = front.best[:, None] - other.tried.to_numpy()
        p, side = signed_ranks(pairs.T)
        if (np.where(side < 0, p, 1) * choice_factor(front.tried.shape[1]) <= 0.05).all():
            assert p_of_best(front, other, smaller=True)[0] <= 0.05
            words += 1
    assert words / 800 <= 0.05 + 1.96 * np.sqrt(0.05 * 0.95 / 800)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_rates_near_the_best_are_at_most_a_factor_of_2_apart(path):
    study = yaml.safe_load(path.read_text())
    if not any(
        check.get("across") == {"optimizer.lr": "best"} for check in study["claim"]["checks"]
    ):
        return
    if not (OUT / f"{path.stem}.csv").exists():
        pytest.skip("was not run yet: python -m scripts.results.claims")
    params = study["hydra"]["sweeper"]["params"]
    rates = [text.split(",") for key, text in params.items() if key.endswith(".lr")]
    tried = sorted(float(text) for texts in rates for text in texts)
    notes = "; ".join(pd.read_csv(OUT / f"{path.stem}.csv")["notes"].dropna())
    found = {float(text) for text in re.findall(r"best lr ([\d.e+-]+)", notes)}
    swept = found.intersection(tried)  # a side may have one rate, as AdaDelta's published one
    assert swept
    assert "the edge of those tried" not in notes
    for best in swept:
        near = [lr for lr in tried if best / 10**0.5 <= lr <= best * 10**0.5]
        assert min(near) < best < max(near)
        assert max(b / a for a, b in pairwise(near)) <= 2.01


def test_null_is_a_condition_as_the_table_has_it():
    assert [_condition_text(v) for v in (None, True, 0.50, [1], "adam")] == [
        *("null", "true", "0.5", "[1]", "adam")
    ]


def test_a_linear_model_learns_from_zero_weights():
    """feature_scale starts there: both sides from a guess (log 3)."""
    x, y = wine().train_x.float(), wine().train_y.long()
    x = (x - x.mean(0)) / x.std(0)
    model = logreg((13,), 3)
    initialize(model, torch.Generator(), weight=torch.nn.init.zeros_, bias=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(3))
    assert losses[-1] < 0.1


def test_the_first_step_of_rmsprop_is_too_long_by_arithmetic():
    """For gradients of one size: by 1 / sqrt(1 - alpha), which claims/effective_step says."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.RMSprop([weight], lr=0.001, alpha=0.9, eps=0)
    steps = []
    for _ in range(57):
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        steps.append(before - weight.item())
    assert steps[0] == pytest.approx(0.001 / np.sqrt(0.1))
    assert steps[-1] == pytest.approx(0.001, rel=0.002)

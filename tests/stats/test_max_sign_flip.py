"""The max-type sign-flip test: against plain enumeration, its symmetries, and where it is used."""

import math
from itertools import combinations, product
from pathlib import Path

import in_process
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import make_run

from optbench.analysis.caveats import caveats
from optbench.analysis.comparison import comparison_of
from optbench.analysis.leader import best_settings, first_against_second, winner
from optbench.analysis.pairing import by_seed
from optbench.analysis.table import load_runs
from optbench.common.errors import UserError
from optbench.report.collect import collect
from optbench.stats.corrections import HOLM, MAX_TYPE, least_seeds
from optbench.stats.max_sign_flip import max_sign_flip
from optbench.stats.paired_tests import least_p
from optbench.stats.pairwise import compare, compare_pair, judge_pairs
from optbench.sweeps.grid import too_few_seeds

INF = math.inf
small = st.integers(-20, 20).map(float)
matrices = st.tuples(st.integers(2, 7), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(small, min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    ).map(np.array)
)


def naive(d: np.ndarray) -> list[float]:
    """p-values by going through all flips with a t statistic out of a textbook."""

    def t(values: np.ndarray) -> float:
        spread = values.std(ddof=1) / math.sqrt(len(values))
        if spread <= 1e-12 * abs(values).max():
            return INF if values.any() else 0.0
        return abs(values.mean()) / spread

    flips = [np.array(signs) for signs in product((1.0, -1.0), repeat=len(d))]
    largest = [max(t(signs * column) for column in d.T) for signs in flips]
    return [float(np.mean([top >= t(column) * (1 - 1e-9) for top in largest])) for column in d.T]


@given(matrices)
@settings(max_examples=60, deadline=None)
def test_p_values_are_those_of_plain_enumeration(d: np.ndarray) -> None:
    # pairs with few seeds enter as well: all have the same number
    assert max_sign_flip(d) == pytest.approx(naive(d))


@given(matrices, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_order_signs_and_scales_change_nothing(d: np.ndarray, random) -> None:
    p = max_sign_flip(d)
    rows = random.sample(range(len(d)), len(d))
    columns = random.sample(range(d.shape[1]), d.shape[1])
    assert max_sign_flip(d[rows]) == pytest.approx(p)
    assert max_sign_flip(d[:, columns]) == pytest.approx(p[columns])
    assert max_sign_flip(-d) == pytest.approx(p)
    scales = np.array([random.choice([1e-200, 0.1, 3.0, 1e200]) for _ in range(d.shape[1])])
    assert max_sign_flip(d * scales) == pytest.approx(p)
    assert (max_sign_flip(np.concatenate([d, d[::-1]], axis=1))[: d.shape[1]] >= p - 1e-12).all()


@pytest.mark.parametrize("d", [[0, 0, -13, 17, 4, 9, -17], [0, 2, -11, 17, 9, -17]])
def test_differences_that_add_up_to_nothing_show_nothing_in_any_order(d) -> None:
    column = np.array(d, dtype=float)[:, None]
    for rows in (column, column[::-1], np.sort(column, axis=0), column * 0.1, column * 1e-200):
        assert max_sign_flip(rows) == 1


def test_seven_that_do_not_differ_are_rarely_told_apart() -> None:
    random = np.random.default_rng(0)
    i, j = np.triu_indices(7, 1)
    spreads = np.linspace(0.25, 3, 7)
    for draw in (random.standard_normal, random.standard_exponential, random.standard_cauchy):
        values = [draw((8, 7)) for _ in range(700)] + [
            spreads * random.standard_normal((8, 7)) for _ in range(300)
        ]
        claims = [max_sign_flip(v[:, i] - v[:, j]).min() <= 0.05 for v in values]
        # at most 12 of 256 flips, 4.7 %, with a standard error of 0.7 %
        assert 0.02 < np.mean(claims) < 0.07


def test_one_pair_is_the_sign_flip_test_of_its_mean() -> None:
    from optbench.stats.paired_tests import sign_flip

    for n in range(2, 11):
        d = np.random.default_rng(n).normal(0.7, 1, n)
        assert max_sign_flip(d[:, None]) == pytest.approx([sign_flip(d)])


def test_the_least_p_does_not_depend_on_the_number_of_pairs() -> None:
    random = np.random.default_rng(0)
    for n in (5, 6, 8, 12):
        d = random.normal(size=(n, 200)) * 0.1
        d[:, 0] += 1e4
        assert max_sign_flip(d)[0] == pytest.approx(least_p(n))
    assert [least_seeds(m, MAX_TYPE) for m in (1, 6, 21, 500)] == [6] * 4
    assert [least_seeds(m, HOLM) for m in (1, 2, 6, 7, 21)] == [6, 7, 8, 9, 10]
    for m in range(1, 60):
        n = least_seeds(m, HOLM)
        assert m * 2 ** (1 - n) <= 0.05 < m * 2 ** (2 - n)


def test_equal_zero_and_infinite_differences_have_p_values() -> None:
    shape = (8, 1)
    assert max_sign_flip(np.zeros(shape)) == [1.0]
    assert max_sign_flip(np.full(shape, 0.1)) == [least_p(8)]  # t is infinite
    assert max_sign_flip(np.full(shape, INF)) == [least_p(8)]  # one side always diverged
    both = np.column_stack([np.full(8, 0.1), np.full(8, -3.0), np.zeros(8)])
    assert max_sign_flip(both) == pytest.approx([least_p(8), least_p(8), 1])
    # rounding does not part what is equal
    noisy = 0.1 + 1e-17 * np.arange(8)[:, None] + 0.2 - 0.2
    assert max_sign_flip(noisy) == [least_p(8)]
    # a diverged run is twice as far away as the farthest finite pair
    d = np.array([[0.3, 0.2, -0.1, 0.4, 0.2, 0.1, 0.3, INF]]).T
    counted = np.where(np.isinf(d), 0.8, d)
    assert max_sign_flip(d) == pytest.approx(max_sign_flip(counted))
    assert max_sign_flip(np.array([[1.0]])) == [1.0]
    half = np.array([[INF, -INF] * 4]).T
    assert max_sign_flip(half) == [1.0]


def test_missing_seeds_are_not_read() -> None:
    random = np.random.default_rng(1)
    d = random.normal(1.5, 1, size=(8, 3))
    present = np.ones(d.shape, bool)
    present[6:, 2] = False
    changed = np.where(present, d, math.nan)  # what is not present is not read
    p = max_sign_flip(changed, present)
    assert p == pytest.approx(max_sign_flip(np.where(present, d, 7.0), present))
    # a pair of two seeds whose t is huge in half of all flips takes no power from the others
    few = np.column_stack([d[:, :2], np.full(8, 1.0)])
    present[2:, 2] = False
    with_it = max_sign_flip(few, present)
    assert with_it[:2] == pytest.approx(max_sign_flip(d[:, :2]))
    assert with_it[2] >= 0.5
    present[:, 2] = False
    with pytest.raises(UserError, match="a number for each pair"):
        max_sign_flip(d, present)
    for bad in (np.zeros(3), np.zeros((0, 2)), np.array([[1.0, math.nan]])):
        with pytest.raises(UserError, match="max-type"):
            max_sign_flip(bad)


def test_many_seeds_are_sampled_with_a_stated_seed() -> None:
    d = np.random.default_rng(2).normal(0.7, 1, size=(15, 3))
    p = max_sign_flip(d)
    assert (p == max_sign_flip(d)).all()
    assert (p != max_sign_flip(d, seed=1)).any()
    assert p == pytest.approx(naive_of_halves(d), abs=0.015)
    assert (p >= 1e-4).all()  # the observed signs count


def naive_of_halves(d: np.ndarray) -> np.ndarray:
    """Exact p-values, with numpy: the first sign is fixed."""
    signs = np.array([(1, *rest) for rest in product((1, -1), repeat=len(d) - 1)])
    t = np.abs(signs @ d) / np.sqrt((d**2).sum(axis=0) - (signs @ d) ** 2 / len(d))
    return (t.max(axis=1)[:, None] >= t[np.all(signs == 1, axis=1)] * (1 - 1e-9)).mean(axis=0)


def frame_of(values: np.ndarray, problem: str = "p") -> pd.DataFrame:
    index = pd.MultiIndex.from_product([[problem], range(len(values))], names=["problem", "seed"])
    return pd.DataFrame(values, index, [f"o{i}" for i in range(values.shape[1])])


def test_pairs_that_the_values_chose_have_the_p_of_all_pairs() -> None:
    values = np.random.default_rng(3).normal(size=(8, 5)) + np.array([0, 3, 3, 4, 9])
    frame = frame_of(values)
    d = np.column_stack([values[:, i] - values[:, j] for i, j in combinations(range(5), 2)])
    expected = dict(zip(combinations(frame, 2), max_sign_flip(d), strict=True))
    every = compare(frame)
    assert set(every["correction"]) == {MAX_TYPE}
    for row in every.itertuples():
        assert row.p_corrected == expected[row.a, row.b]
    first = compare(frame, "o0", chosen=True)
    assert list(first["p_corrected"]) == [expected["o0", name] for name in first["a"]]
    some = compare(frame, among=["o1", "o3"])
    assert list(some["p_corrected"]) == [expected["o1", "o3"]]
    fixed = compare(frame, "o0")
    assert set(fixed["correction"]) == {HOLM}
    # settings of one optimizer are not compared, and do not count
    owners = {name: "one" if name == "o0" else "other" for name in frame}
    settings_only = compare(frame, owners=owners)
    assert list(settings_only["b"]) == ["o1", "o2", "o3", "o4"]
    assert list(settings_only["p_corrected"]) == list(max_sign_flip(d[:, :4]))
    alone = compare(frame, owners=dict.fromkeys(frame, "one"))
    assert len(alone) == 10
    # the family is all pairs of a call: a second problem's as well
    two = pd.concat([frame, frame_of(values[::-1], "q")])
    both = max_sign_flip(np.column_stack([d, d[::-1]]))
    assert list(compare(two)["p_corrected"]) == pytest.approx(list(both))


def test_side_and_seeds_needed_are_those_of_the_test() -> None:
    d = np.array([1.0, 1, 1, 1, -1.2])
    found = compare_pair(d, np.zeros(5), p=0.01, comparisons=21, correction=MAX_TYPE)
    assert (found.outcome, found.least) == ("worse", 6)
    text = compare_pair(d, np.zeros(5), p=0.2, comparisons=21, correction=MAX_TYPE).text
    assert text.endswith("; 5 pairs cannot go below p = 0.062)")
    assert (
        compare_pair(np.ones(5), np.zeros(5), p=1.0, comparisons=21, correction=MAX_TYPE).needed
        == 6
    )


def skewed_by_choice() -> np.ndarray:
    """Results of seven optimizers that do not differ, of which the first passes Holm's correction
    over its six comparisons, as if it had been fixed beforehand."""
    for seed in range(1000):
        values = 1 + 0.05 * np.random.default_rng(seed).normal(size=(8, 7))
        frame = frame_of(values)
        first = str(frame.median().idxmin())
        if compare(frame, first)["verdict"].str.startswith("worse").any():
            return values
    raise AssertionError


def test_identical_optimizers_of_a_sweep_end_without_a_claim(tmp_path: Path) -> None:
    values = skewed_by_choice()
    for (seed, index), value in np.ndenumerate(values):
        folder = make_run(tmp_path / f"{index}{seed}", f"o{index}", seed, epochs=1)
        table = pd.read_csv(folder / "epochs.csv")
        table.loc[table.index[-1], ["train_loss", "test_loss"]] = value
        table.to_csv(folder / "epochs.csv", index=False)
    table = load_runs(tmp_path)
    frame = by_seed(table, "train_loss")
    assert winner(frame) is None
    data = collect([tmp_path])
    (card,) = data["verdict"]["cards"]
    expected = compare(frame, card["leader"], chosen=True).set_index("a")["p_corrected"]
    assert card["level"] == "open", card["headline"]
    assert card["correction"] == MAX_TYPE
    assert card["enough"] == 6
    for pair in card["against"]:
        assert pair["p"] == pytest.approx(expected[pair["name"]], rel=1e-5)
        assert data["matrices"][0]["cells"][card["leader"]][pair["name"]]["p"] == pair["p"]
    (said,) = caveats(comparison_of(table), "train_loss")
    first = f"{card['leader']} is first by median training loss, which does not make it"
    assert said.startswith(first)


def test_the_best_of_several_settings_is_corrected_for_all_of_them(tmp_path: Path) -> None:
    for lr in (0.001, 0.002, 0.003, 0.004):
        for seed in range(8):
            make_run(tmp_path / f"a{lr}{seed}", "adam", seed, lr=lr, epochs=1)
    for seed in range(8):
        make_run(tmp_path / f"s{seed}", "sgd", seed, epochs=1)
    table = load_runs(tmp_path)
    frame = by_seed(table, "train_loss")
    (card,) = collect([tmp_path])["verdict"]["cards"]
    (pair,) = card["against"]
    d = np.column_stack([frame[name] - frame["sgd"] for name in frame if "adam" in name])
    chosen = [name for name in frame if "adam" in name].index(card["leader"])
    assert d.shape == (8, 4)
    assert pair["p"] == pytest.approx(max_sign_flip(d)[chosen])
    said = caveats(comparison_of(table), "train_loss")
    assert any("1 (sgd) to 4 (adam); p-values are corrected" in text for text in said)


def test_the_first_is_tested_against_the_second_by_all_pairs() -> None:
    values = np.random.default_rng(3).normal(size=(8, 3)) + np.array([0, 5, 9])
    frame = frame_of(values)
    second, verdict = first_against_second(frame)
    (line,) = compare(frame, among=["o0", "o1"]).to_dict("records")
    assert (second, verdict.p, verdict.comparisons) == ("o1", line["p_corrected"], 3)
    assert first_against_second(frame[["o0"]]) is None
    assert winner(frame) == "o0"


def test_one_pair_has_one_word_whoever_asks() -> None:
    random = np.random.default_rng(3)
    names = ["sgd", *(f"adam {index}" for index in range(8))]
    owners = {name: name.split(" ")[0] for name in names}
    index = pd.MultiIndex.from_product([[""], range(8)], names=["problem", "seed"])
    differs = 0  # from the word over all pairs, those of adam's own settings included
    for _ in range(60):
        spread = random.uniform(0.05, 3, 9)
        values = random.normal(size=(8, 1)) + random.normal(size=(8, 9)) * spread
        values[:, 0] -= 1.3
        frame = pd.DataFrame(values, index, names)
        best = best_settings(frame, owners)
        (line,) = judge_pairs(frame, best[0], chosen=True, among=best, owners=owners)
        second, verdict = first_against_second(frame, owners=owners)
        if second == line.a:
            assert (verdict.outcome, verdict.p) == (line.outcome, line.p)
            differs += verdict.outcome != first_against_second(frame)[1].outcome
    assert differs


@pytest.mark.parametrize(("seeds", "said"), [("0,1,2", True), ("0,1,2,3,4,5", False)])
def test_a_sweep_says_before_it_trains_that_its_seeds_are_too_few(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seeds: str,
    said: bool,
) -> None:
    words = ["optimizer=sgd,adam", f"seed={seeds}", "data.subset=100", "steps=1", "epochs=null"]
    words += ["model.hidden=[4]", "hydra/launcher=basic", f"results_dir={tmp_path}"]
    assert in_process.call(monkeypatch, "-m", *words) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("sweep of ")
    assert second.startswith("no verdict can come of 3 seeds: with fewer than 6 pairs") == said


def test_too_few_seeds_of_a_sweep_are_counted_from_its_jobs() -> None:
    def planned(seeds: int, *parts: str) -> list[list[str]]:
        return [[*part.split(" "), f"seed={seed}"] for part in parts for seed in range(seeds)]

    said = too_few_seeds(planned(3, *(f"optimizer={name}" for name in "abcdefg")))
    assert said == "3 seeds: with fewer than 6 pairs no two-sided sign-flip test reaches p < 0.05"
    assert too_few_seeds([["optimizer=sgd"], ["optimizer=adam"]]).startswith("1 seed: ")
    assert not too_few_seeds(planned(6, *(f"optimizer={name}" for name in "abcdefg")))
    # one series on each problem: there is nothing to compare
    assert not too_few_seeds(planned(2, "model=mlp", "model=cnn"))
    rates = [f"optimizer.lr={rate}" for rate in (0.1, 0.2, 0.4)]
    sides = {"lower": {"model": "mlp"}, "than": {"model": "cnn"}}
    claim = {"text": "", "checks": [sides | {"across": {"optimizer.lr": "best"}}, {}]}
    for seeds, said in {
        6: "6 seeds cannot make a claim hold; 7 can",  # doubled: 2 * 2 ** -5 > 0.05
        7: "7 seeds cannot refute the claim by one of 2 comparisons (Holm); 8 can",
        8: "",
    }.items():
        assert too_few_seeds(planned(seeds, *rates), claim) == said
    # a claimed side of one setting was not chosen: its p-value is not doubled
    fixed = {"lower": {"optimizer.lr": 0.1}, "than": {}, "across": {"optimizer.lr": "best"}}
    assert too_few_seeds(planned(6, *rates), {"checks": [fixed]}) == (
        "6 seeds cannot refute the claim; 7 can"
    )
    claim["checks"].pop(0)
    assert too_few_seeds(planned(5, "model=mlp"), claim) == (
        "5 seeds cannot make a claim hold; 6 can"
    )
    assert not too_few_seeds(planned(6, "model=mlp"), claim)
    rates = planned(2, "+optimizer.lr=1", "+optimizer.lr=2")
    assert too_few_seeds(rates).startswith("2 seeds: ")
    assert not too_few_seeds([])

"""What every function of `optbench.stats` makes of NaN, infinities, nothing, and one value."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optbench import stats
from optbench.common.errors import UserError
from optbench.stats import algoperf, external_scores
from optbench.stats.corrections import UNPAIRED

NAN, INF = math.nan, math.inf
A = np.array([0.5, 0.1, 0.4, 0.2, 0.9, 0.7])
B = np.array([0.6, 0.3, 0.1, 0.8, 1.4, 1.0])
SCORES = np.column_stack([A, B, B[::-1]])
RATES = np.array([0.001, 0.01, 0.1, 1.0, 10.0, 100.0])


def same_columns(values: np.ndarray) -> np.ndarray:
    """A table of scores, (problems, optimizers), with the values as one column."""
    return np.column_stack([values, *(np.arange(len(values)) + i for i in range(2))])


# the functions of lists of numbers, each as a function of one list with the others given
OF_VALUES: dict[str, Callable[[np.ndarray], Any]] = {
    "bootstrap": stats.bootstrap,
    "compare_pair": lambda v: stats.compare_pair(v, np.arange(len(v))),
    "describe": stats.describe,
    "compare_pair unpaired": lambda v: stats.compare_pair(v, B, correction=UNPAIRED),
    "differences": lambda v: stats.differences(v, np.arange(len(v))),
    "dominance": lambda v: stats.dominance(v, B),
    "effect_size": stats.effect_size,
    "expected_best": stats.expected_best,
    "friedman": lambda v: stats.friedman(same_columns(v)),
    "hodges_lehmann": stats.hodges_lehmann,
    "holm": lambda v: stats.holm(np.clip(np.abs(v), 0, 1)),
    "iqm": stats.iqm,
    "max_sign_flip": lambda v: stats.max_sign_flip(np.asarray(v, dtype=float)[:, None]),
    "mean": stats.mean,
    "mean_ranks": lambda v: stats.mean_ranks(same_columns(v)),
    "median": stats.median,
    "middle": stats.middle,
    "nemenyi": lambda v: stats.nemenyi(same_columns(v)),
    "probability_of_improvement": lambda v: stats.probability_of_improvement(v, B),
    "probability_of_improvement of b": lambda v: stats.probability_of_improvement(B, v),
    "rank": lambda v: stats.rank(same_columns(v)),
    "rank_biserial": stats.rank_biserial,
    "rank_sum": lambda v: stats.rank_sum(v, B),
    "rank_sum of b": lambda v: stats.rank_sum(B, v),
    "rate_width": lambda v: stats.rate_width(RATES[: len(v)], v),
    "rate_widths": lambda v: stats.rate_widths(RATES[: len(v)], v),
    "runs_needed": lambda v: stats.runs_needed(v, B),
    "sd": stats.sd,
    "seeds_needed": lambda v: float(stats.seeds_needed(v)),
    "shift": lambda v: stats.shift(v, B),
    "equivalence": lambda v: stats.equivalence(v, 1.0),
    "sign_flip": stats.sign_flip,
    "signed_rank": stats.signed_rank,
    "wilcoxon_holm": lambda v: stats.wilcoxon_holm(same_columns(v)),
}
# the functions of single numbers, with one of them NaN
OF_NUMBERS: dict[str, Callable[[], Any]] = {
    "bootstrap level": lambda: stats.bootstrap(A, level=NAN),
    "bootstrap resamples": lambda: stats.bootstrap(A, resamples=NAN),
    "bootstrap strata": lambda: stats.bootstrap(A, strata=[1, 1, 1, 2, 2, NAN]),
    "bootstrap fewer strata": lambda: stats.bootstrap(A, strata=[1, 1]),
    "compare_pair alpha": lambda: stats.compare_pair(A, B, alpha=NAN),
    "compare_pair p": lambda: stats.compare_pair(A, B, p=NAN),
    "compare_pair comparisons": lambda: stats.compare_pair(A, B, comparisons=NAN),
    "compare_pair lengths": lambda: stats.compare_pair(A, B[:3]),
    "cliques": lambda: stats.cliques(pd.Series({"a": NAN, "b": 1}), ones("ab")),
    "cliques p": lambda: stats.cliques(pd.Series({"a": 2, "b": 1}), ones("ab") * NAN),
    "cliques names": lambda: stats.cliques(pd.Series({"a": 2, "c": 1}), ones("ab")),
    "critical_difference": lambda: stats.critical_difference(NAN, 5),
    "critical_difference problems": lambda: stats.critical_difference(3, NAN),
    "critical_difference alpha": lambda: stats.critical_difference(3, 5, NAN),
    "critical_difference of one": lambda: stats.critical_difference(1, 5),
    "differences lengths": lambda: stats.differences(A, B[:3]),
    "enough_seeds": lambda: stats.enough_seeds(NAN),
    "enough_seeds of none": lambda: stats.enough_seeds(0),
    "enough_seeds alpha": lambda: stats.enough_seeds(1, NAN),
    "expected_best level": lambda: stats.expected_best(A, level=NAN),
    "hodges_lehmann": lambda: stats.hodges_lehmann(A, NAN),
    "holm": lambda: stats.holm([0.01, NAN]),
    "holm above 1": lambda: stats.holm([0.01, 1.5]),
    "least_p": lambda: stats.least_p(NAN),
    "least_p of inf": lambda: stats.least_p(INF),
    "max_sign_flip": lambda: stats.max_sign_flip(A[:, None], alpha=NAN),
    "rate_width rates": lambda: stats.rate_width([*RATES[:5], NAN], A),
    "rate_width infinite": lambda: stats.rate_width([*RATES[:5], INF], A),
    "rate_width lengths": lambda: stats.rate_width(RATES, A[:3]),
    "rate_width within": lambda: stats.rate_width(RATES, A, within=NAN),
    "rate_widths rates": lambda: stats.rate_widths([*RATES[:5], NAN], A),
    "runs_needed power": lambda: stats.runs_needed(A, B, power=NAN),
    "runs_needed alpha": lambda: stats.runs_needed(A, B, alpha=NAN),
    "shift level": lambda: stats.shift(A, B, NAN),
    "seeds_needed of three": lambda: stats.seeds_needed([NAN, 1, 2]),
    "seeds_needed power": lambda: stats.seeds_needed(A, power=NAN),
    "seeds_needed alpha": lambda: stats.seeds_needed(A, alpha=NAN),
    "equivalence margin": lambda: stats.equivalence(A, NAN),
    "sign_flip flips": lambda: stats.sign_flip(A, flips=0),
    "t_power": lambda: stats.t_power(NAN, 8),
    "t_power n": lambda: stats.t_power(1.0, NAN),
    "t_power of one": lambda: stats.t_power(1.0, 1),
    "t_power alpha": lambda: stats.t_power(1.0, 8, NAN),
    "score": lambda: algoperf.closed_form([[1, 2], [3, NAN]]),
    "score of texts": lambda: algoperf.closed_form([["a", 1]]),
    "score r_max": lambda: algoperf.closed_form([[1, 2]], NAN),
    "score trapezoid": lambda: algoperf.trapezoid([[1, 2]], NAN),
    "score profile": lambda: algoperf.profile([[1, 2]], [NAN]),
    "score ratios": lambda: algoperf.ratios([[NAN, 2]]),
    "score speed_up": lambda: algoperf.speed_up([[NAN, 2], [1, 2]], 0, 1),
    "score held_out": lambda: algoperf.held_out(pd.DataFrame([[1, 2]], columns=["a", "b"]),
                                             {"a": "b"}, NAN),
    "score over_studies": lambda: algoperf.over_studies(trials_of(time=NAN)),
    "score over_studies study": lambda: algoperf.over_studies(trials_of(study=NAN)),
    "score over_studies text": lambda: algoperf.over_studies(trials_of(time="soon")),
    "deepobs_speed": lambda: external_scores.deepobs_speed([[1, 2, 3]], NAN),
    "deepobs_overhead": lambda: external_scores.deepobs_overhead([NAN, 1], [1, 1]),
    "track3": lambda: external_scores.track3([1.0], NAN),
}  # fmt: skip
# these take tables of runs, in which NaN means that there is no such run, and are tuples
OF_RUNS = {"by_problem", "compare", "describe_all"}
TUPLES = {"Equivalence", "Estimate", "Friedman", "PairVerdict", "Width"}


def ones(names: str) -> pd.DataFrame:
    return pd.DataFrame(1.0, list(names), list(names))


def trials_of(**cells: object) -> pd.DataFrame:
    return pd.DataFrame([{"optimizer": "a", "workload": "w", "study": 1, "time": 1.0} | cells])


def numbers_in(value: Any) -> list[float]:
    """All floats of an answer; counts (whole numbers) and names are no answers to the values."""
    if isinstance(value, pd.DataFrame):
        kept = value.drop(columns=["trials", "n"], errors="ignore")
        return [float(v) for v in kept.to_numpy().ravel()]
    if isinstance(value, (pd.Series, np.ndarray)):
        return [float(v) for v in np.ravel(value)]
    if isinstance(value, dict):
        return [v for item in value.values() for v in numbers_in(item)]
    if isinstance(value, tuple):
        return [v for item in value for v in numbers_in(item)]
    return [value] if isinstance(value, float) else []


# every function, as one of an argument of a wrong type
OF_ANYTHING: dict[str, Callable[[Any], Any]] = {
    "bootstrap": stats.bootstrap,
    "bootstrap statistic": lambda v: stats.bootstrap(A, v),
    "bootstrap strata": lambda v: stats.bootstrap(A, strata=v if v is not None else 1),
    "bootstrap method": lambda v: stats.bootstrap(A, method=v),
    "bootstrap level": lambda v: stats.bootstrap(A, level=v),
    "bootstrap resamples": lambda v: stats.bootstrap(A, resamples=v),
    "by_problem": stats.by_problem,
    "cliques": lambda v: stats.cliques(v, ones("ab")),
    "cliques p": lambda v: stats.cliques(pd.Series({"a": 2, "b": 1}), v),
    "cliques alpha": lambda v: stats.cliques(pd.Series({"a": 2, "b": 1}), ones("ab"), v),
    "compare": stats.compare,
    "compare_pair": lambda v: stats.compare_pair(v, B),
    "compare_pair b": lambda v: stats.compare_pair(A, v),
    "compare_pair alpha": lambda v: stats.compare_pair(A, B, alpha=v),
    "compare_pair p": lambda v: stats.compare_pair(A, B, p="0.5" if v is None else v),
    "compare_pair comparisons": lambda v: stats.compare_pair(A, B, comparisons=v),
    "compare_pair correction": lambda v: stats.compare_pair(A, B, correction=v),
    "critical_difference": lambda v: stats.critical_difference(v, 5),
    "critical_difference problems": lambda v: stats.critical_difference(3, v),
    "critical_difference alpha": lambda v: stats.critical_difference(3, 5, v),
    "describe": stats.describe,
    "describe_all": stats.describe_all,
    "dominance": lambda v: stats.dominance(v, B),
    "differences": lambda v: stats.differences(v, B),
    "differences b": lambda v: stats.differences(A, v),
    "effect_size": stats.effect_size,
    "enough_seeds": stats.enough_seeds,
    "enough_seeds alpha": lambda v: stats.enough_seeds(1, v),
    "expected_best": stats.expected_best,
    "expected_best level": lambda v: stats.expected_best(A, level=v),
    "expected_best resamples": lambda v: stats.expected_best(A, resamples=v),
    "friedman": stats.friedman,
    "hodges_lehmann": stats.hodges_lehmann,
    "hodges_lehmann level": lambda v: stats.hodges_lehmann(A, v),
    "holm": stats.holm,
    "iqm": stats.iqm,
    "least_p": stats.least_p,
    "max_sign_flip": stats.max_sign_flip,
    "max_sign_flip present": lambda v: stats.max_sign_flip(SCORES, 1 if v is None else v),
    "max_sign_flip alpha": lambda v: stats.max_sign_flip(SCORES, alpha=v),
    "max_sign_flip flips": lambda v: stats.max_sign_flip(SCORES, flips=v),
    "mean": stats.mean,
    "mean_ranks": stats.mean_ranks,
    "median": stats.median,
    "middle": stats.middle,
    "nemenyi": stats.nemenyi,
    "probability_of_improvement": lambda v: stats.probability_of_improvement(v, B),
    "probability_of_improvement b": lambda v: stats.probability_of_improvement(A, v),
    "rank": stats.rank,
    "rank_sum b": lambda v: stats.rank_sum(A, v),
    "rank_biserial": stats.rank_biserial,
    "rank_sum": lambda v: stats.rank_sum(v, B),
    "rate_width": lambda v: stats.rate_width(RATES, v),
    "rate_width rates": lambda v: stats.rate_width(v, A),
    "rate_width within": lambda v: stats.rate_width(RATES, A, within=v),
    "rate_widths": lambda v: stats.rate_widths(RATES, v),
    "rate_widths rates": lambda v: stats.rate_widths(v, A),
    "runs_needed": lambda v: stats.runs_needed(v, B),
    "sd": stats.sd,
    "seeds_needed": stats.seeds_needed,
    "seeds_needed power": lambda v: stats.seeds_needed(A, power=v),
    "seeds_needed alpha": lambda v: stats.seeds_needed(A, alpha=v),
    "shift": lambda v: stats.shift(v, B),
    "shift level": lambda v: stats.shift(A, B, v),
    "equivalence": lambda v: stats.equivalence(v, 1.0),
    "equivalence margin": lambda v: stats.equivalence(A, v),
    "equivalence test": lambda v: stats.equivalence(A, 1.0, v),
    "sign_flip": stats.sign_flip,
    "sign_flip flips": lambda v: stats.sign_flip(A, flips=v),
    "signed_rank": stats.signed_rank,
    "t_power": lambda v: stats.t_power(v, 8),
    "t_power n": lambda v: stats.t_power(1.0, v),
    "t_power alpha": lambda v: stats.t_power(1.0, 8, v),
    "wilcoxon_holm": stats.wilcoxon_holm,
}
SCORES_OF_OTHERS: dict[str, Callable[[Any], Any]] = {
    "deepobs_speed": lambda v: external_scores.deepobs_speed(v, 1.0),
    "deepobs_overhead": lambda v: external_scores.deepobs_overhead(v, v),
    "track3": external_scores.track3,
    "adam_steps": lambda v: external_scores.adam_steps(v, [1, 2], [3.0, 2.0]),
}
WRONG: dict[str, Any] = {
    "text": "0.5",
    "none": None,
    "dictionary": {"a": 1.0},
    "ragged": [[1.0], [2.0, 3.0]],
    "texts": ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"],
    "a none": [0.1, None, 0.3, 0.4, 0.5, 0.6],
    "texts in a frame": pd.DataFrame({"a": ["x", "y"], "b": ["z", "w"]}),
    "complex": [1j, 2j],
    "times": pd.to_datetime(["2020-01-01", "2020-01-02"]),
    "object": object(),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", OF_ANYTHING | SCORES_OF_OTHERS)
def test_wrong_types_are_refused_in_words(name: str, wrong: str) -> None:
    if name == "bootstrap strata" and wrong in ("texts", "a none"):
        return  # labels
    with pytest.raises(UserError) as caught:
        (OF_ANYTHING | SCORES_OF_OTHERS)[name](WRONG[wrong])
    assert 20 < len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "values", [[1, 2], (1.0, 2.0), pd.Series([1, 2]), np.array([1, 2], object)]
)
def test_lists_of_any_kind_are_numbers(values: Any) -> None:
    assert stats.mean(values) == 1.5


def test_masked_values_are_missing() -> None:
    values = np.ma.masked_array(A, [0, 1, 0, 0, 0, 0])
    assert math.isnan(stats.mean(values))
    with pytest.raises(UserError, match="NaN"):
        stats.seeds_needed(values)


def test_every_function_is_tried() -> None:
    assert {name.split(" ")[0] for name in OF_ANYTHING} == {*stats.__all__} - TUPLES
    tried = {name.split(" ")[0] for name in [*OF_VALUES, *OF_NUMBERS]}
    assert set(stats.__all__) <= tried | OF_RUNS | TUPLES
    assert all(callable(getattr(stats, name)) for name in stats.__all__)
    assert all(inspect.getdoc(getattr(stats, name)) for name in stats.__all__)


values = st.lists(st.floats(-10, 10).map(lambda v: round(v, 3)) | st.just(INF), max_size=5)


@pytest.mark.parametrize("name", OF_VALUES)
@given(values, st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_nan_is_never_answered_with_a_number(name: str, rest: list[float], place: int) -> None:
    given_values = np.array([*rest[:place], NAN, *rest[place:]])
    try:
        answer = OF_VALUES[name](given_values)
    except UserError:
        return
    found = numbers_in(answer)
    assert found, answer
    assert all(map(math.isnan, found)), answer


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_what_means_nothing_is_refused_in_words(name: str) -> None:
    with pytest.raises(UserError) as caught:
        OF_NUMBERS[name]()
    assert len(str(caught.value)) > 20


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", OF_VALUES)
@pytest.mark.parametrize(
    "values",
    [[], [0.3], [0.3] * 6, [0.0] * 6, [INF] * 6, [-INF] * 6, [*A[:5], INF], [*A[:4], INF, -INF]],
    ids=["none", "one", "equal", "zero", "inf", "-inf", "one inf", "both inf"],
)
def test_nothing_one_value_and_infinities_end_in_an_answer_or_words(
    name: str, values: list[float]
) -> None:
    try:
        answer = OF_VALUES[name](np.array(values, dtype=float))
    except UserError:
        assert len(values) < 2 or name in ("friedman", "nemenyi")
        return
    if not values:
        assert not numbers_in(answer) or all(map(math.isnan, numbers_in(answer)))


@pytest.mark.parametrize("name", OF_VALUES)
def test_a_usual_sample_has_an_answer(name: str) -> None:
    assert np.isfinite(numbers_in(OF_VALUES[name](A))).any()

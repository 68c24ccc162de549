"""Corrections of a comparison's p-values, and when each applies.

`pairwise.judge_pairs` chooses by these rules. Holm's correction of the signed-rank tests serves a
candidate that was fixed before its values were seen (a baseline, or the leader of a tuned study by
validation). The max-type sign-flip test over all pairs serves a candidate that the compared values
chose (the first of a sweep, each optimizer at the best of its settings). Where no two series share
a seed, nothing is paired: rank-sum tests are used, with Holm's correction over the candidate's
comparisons, or over all pairs if the values chose the candidate.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.common.errors import UserError, check_choice
from optbench.stats.max_sign_flip import max_sign_flip
from optbench.stats.paired_tests import differences, enough_seeds, holm, signed_rank
from optbench.stats.unpaired_tests import enough_runs, rank_sum

HOLM, MAX_TYPE, UNPAIRED = "Holm", "max-type", "Holm, unpaired"
CORRECTIONS = (HOLM, MAX_TYPE, UNPAIRED)
Pair = tuple[str, str, str]  # problem, series a, series b


def least_seeds(comparisons: int, correction: str, alpha: float = 0.05) -> int:
    """Return the fewest seeds with which one of n comparisons can be significant.

    Holm's first step needs comparisons * 2 ** (1 - n) <= alpha, the max-type test 2 ** (1 - n) <=
    alpha however many pairs it spans. Unpaired, the result is the number of runs of each series.
    """
    check_choice("correction", correction, CORRECTIONS)
    if correction == UNPAIRED:
        return enough_runs(comparisons, alpha)
    return enough_seeds(comparisons if correction == HOLM else 1, alpha)


def too_few_seeds(seeds: int, others: int, correction: str) -> str:
    """Return why these seeds can show no difference, with the number needed; or "".

    others: the number of series that the leader or the candidate is compared with; unpaired, the
    number of comparisons.
    """
    least = least_seeds(others, correction)
    if seeds >= least:
        return ""
    if correction == MAX_TYPE:
        return f"with fewer than {least} pairs no two-sided sign-flip test reaches p < 0.05"
    more = f" after Holm's correction for {others} comparisons" if others > 1 else ""
    if correction == UNPAIRED:
        return (
            f"with fewer than {least} runs each no two-sided rank-sum test reaches p < 0.05{more}"
        )
    return f"with fewer than {least} pairs no two-sided signed-rank test reaches p < 0.05{more}"


def series_and_seeds(jobs: Iterable[Sequence[str]], keys: tuple[str, ...]) -> tuple[int, int]:
    """Return the most series of a planned problem, and the fewest seeds of a series.

    jobs: the overrides of each job. A job's series is made of its overrides that begin with one of
    the `keys`, the problem of all others but the seed.
    """
    seeds: dict[tuple[tuple[str, ...], tuple[str, ...]], set[str]] = {}
    for texts in jobs:
        texts = [text.lstrip("+~") for text in texts]
        seed = [text for text in texts if text.startswith("seed=")]
        rest = sorted(text for text in texts if not text.startswith("seed="))
        side = tuple(text for text in rest if text.startswith(keys))
        problem = tuple(text for text in rest if not text.startswith(keys))
        seeds.setdefault((problem, side), set()).update(seed[-1:] or ["seed"])
    series = Counter(problem for problem, _ in seeds)
    return max(series.values(), default=0), min(map(len, seeds.values()), default=0)


def all_pairs(names: Sequence[str], owners: Mapping[str, str] | None = None) -> list[list[str]]:
    """Return the pairs of series with different owners; of a single owner, all pairs.

    owners: the optimizer of each series; None: each series is its own.
    """
    owner = {name: name if owners is None else owners[name] for name in names}
    alone = len(set(owner.values())) < 2
    return [
        [x, y] for i, x in enumerate(names) for y in names[i + 1 :] if alone or owner[x] != owner[y]
    ]


class Results(NamedTuple):
    """A `by_seed` frame as arrays."""

    columns: dict[str, int]  # of each series
    problems: dict[str, np.ndarray]  # (seeds, series), the same seeds in each; NaN: no run
    paired: bool = True  # whether some two series share a seed


def results_of(frame: pd.DataFrame) -> Results:
    """Return the frame as arrays. Raises UserError if a problem has a seed twice."""
    if frame.index.has_duplicates:
        raise UserError("a seed stands twice on one problem: the runs cannot be paired")
    seeds, _ = pd.factorize(frame.index.get_level_values(-1), sort=True)
    problems = frame.index.get_level_values("problem").map(str).to_numpy()
    data = frame.to_numpy(dtype=float)
    values = {}
    for problem in dict.fromkeys(problems):
        here = problems == problem
        values[problem] = np.full((seeds.max() + 1, data.shape[1]), math.nan)
        values[problem][seeds[here]] = data[here]
    columns = {str(name): index for index, name in enumerate(frame)}
    return Results(columns, values, not are_unpaired(values.values()))


def are_unpaired(problems: Iterable[np.ndarray]) -> bool:
    """Return whether two series ran on one problem, and no two ever share a seed.

    problems: (seeds, series) each, NaN without a run.
    """
    several = False
    for values in problems:
        present = ~np.isnan(values)
        if (present.sum(axis=1) > 1).any():
            return False
        several |= int(present.any(axis=0).sum()) > 1
    return several


def on_common_seeds(results: Results, pairs: Sequence[Sequence[str]]) -> list[Pair]:
    """Return the pairs of each problem that have a common seed.

    Unpaired: the pairs of which both series have runs.
    """
    found = []
    for problem, values in results.problems.items():
        present = (~np.isnan(values)).astype(int)
        if not results.paired:
            present = present.any(axis=0, keepdims=True).astype(int)
        common = present.T @ present  # (series, series)
        at = results.columns
        found += [(problem, x, y) for x, y in pairs if common[at[x], at[y]]]
    return found


def values_of(results: Results, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a pair's two series on their common seeds, (seeds,) each.

    Unpaired: all values of each.
    """
    problem, x, y = pair
    both = results.problems[problem][:, [results.columns[x], results.columns[y]]]
    if not results.paired:
        a, b = both.T
        return a[~np.isnan(a)], b[~np.isnan(b)]
    both = both[~np.isnan(both).any(axis=1)]
    return both[:, 0], both[:, 1]


def corrected(
    results: Results, pairs: Sequence[Pair], correction: str, alpha: float = 0.05
) -> np.ndarray:
    """Return the corrected p-value of each pair; all pairs are one family.

    pairs: of `on_common_seeds`. In the max-type test, the sign of a seed flips together for all
    pairs of all problems.
    """
    if correction == UNPAIRED:
        return holm([rank_sum(*values_of(results, pair)) for pair in pairs])
    if correction == HOLM:
        return holm([signed_rank(differences(*values_of(results, pair))) for pair in pairs])
    if not pairs:
        return np.empty(0)
    problem = {name: index for index, name in enumerate(results.problems)}
    where = [problem[pair[0]] for pair in pairs]
    values = np.stack(list(results.problems.values()))  # (problems, seeds, series)
    a, b = (values[where, :, [results.columns[pair[side]] for pair in pairs]].T for side in (1, 2))
    both = ~(np.isnan(a) | np.isnan(b))
    same = ~both | (a == b)  # two diverged runs differ by 0
    d = np.where(same, 0.0, np.where(same, 0.0, a) - np.where(same, 0.0, b))
    return max_sign_flip(d, both, alpha)

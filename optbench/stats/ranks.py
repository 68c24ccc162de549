"""Many optimizers over many problems by their ranks (Demsar, JMLR 7, 2006).

Ranks need no common scale between problems, and a diverged run is simply last (ties share their
mean rank). NaN is a missing score, and every function here raises UserError for it.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy

from optbench.common.errors import UserError
from optbench.stats.estimates import median
from optbench.stats.paired_tests import (
    as_numbers,
    check_runs,
    check_share,
    check_whole,
    differences,
    holm,
    signed_rank,
)

Scores = pd.DataFrame | np.ndarray | Sequence[Sequence[float]]  # (problems, optimizers)


class Friedman(NamedTuple):
    """The test whether the optimizers differ at all, over their ranks on several problems.

    chi2 and f: the statistics; p and p_f: their p-values.
    """

    chi2: float
    p: float
    f: float  # Iman and Davenport's less conservative statistic
    p_f: float
    problems: int
    optimizers: int


def by_problem(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the median over seeds of a `by_seed` frame, problems by optimizers.

    NaN in the frame means no run, and the median is over the seeds that exist. Raises UserError if
    an optimizer was not run on a problem: ranks need complete rows.
    """
    return check_complete(medians_by_problem(frame))


def medians_by_problem(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the medians of `by_problem`; NaN if an optimizer was not run there."""
    check_runs(frame)
    parts = frame.groupby(level="problem", sort=False)
    rows = {
        str(problem): [median(part[name].dropna().to_numpy()) for name in frame]
        for problem, part in parts
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(frame))


def check_complete(scores: Scores) -> pd.DataFrame:
    """Return the scores as a frame; UserError if one is missing or there are too few."""
    if isinstance(scores, Sequence):
        as_numbers(scores, 2)  # UserError for rows of unequal length, which pandas would fill
    try:
        scores = pd.DataFrame(scores)
    except (TypeError, ValueError):
        as_numbers(scores, 2)
        raise
    for row, column in np.argwhere(scores.isna().to_numpy())[:1]:
        missing = f"{scores.columns[column]} on {scores.index[row]}"
        raise UserError(f"ranks need every optimizer on every problem; missing: {missing}")
    if scores.shape[1] < 2 or not len(scores):
        raise UserError("ranks need at least two optimizers and one problem")
    as_numbers(scores, 2)
    return scores


def rank(scores: Scores, smaller: bool = True) -> pd.DataFrame:
    """Return the ranks in each row, 1 the best, ties averaged, in the shape of the scores.

    scores: (problems, optimizers), a frame or an array. Raises UserError for a missing score.
    """
    scores = check_complete(scores)
    values = scores.to_numpy(dtype=float) * (1 if smaller else -1)
    return pd.DataFrame(scipy.stats.rankdata(values, axis=1), scores.index, scores.columns)


def mean_ranks(scores: Scores, smaller: bool = True) -> "pd.Series[float]":
    """Return the mean rank of each optimizer over the problems, best first, (optimizers,).

    scores: (problems, optimizers). Raises UserError for a missing score.
    """
    return rank(scores, smaller).mean().sort_values(kind="stable")


def friedman(scores: Scores, smaller: bool = True, ties: bool = True) -> Friedman:
    """Return Friedman's test and Iman and Davenport's F of (problems, optimizers).

    scipy's test, corrected for ties; ties=False is Demsar's plain 12 N / (k (k + 1)) (sum_j R_j^2 -
    k (k + 1)^2 / 4), R_j the mean ranks. F = (N - 1) chi2 / (N (k - 1) - chi2) has k - 1 and (k -
    1)(N - 1) degrees of freedom. Raises UserError below three optimizers (use `pairwise.compare`)
    or two problems.
    """
    ranks = rank(scores, smaller).to_numpy()
    n, k = ranks.shape
    if k < 3 or n < 2:
        raise UserError(f"Friedman's test needs 3 optimizers and 2 problems, not {k} and {n}")
    if (ranks == ranks[:, :1]).all():
        return Friedman(0.0, 1.0, 0.0, 1.0, n, k)  # all tied: the statistic is 0 / 0
    chi2, p = scipy.stats.friedmanchisquare(*ranks.T)
    if not ties:
        square = float((ranks.mean(axis=0) ** 2).sum())
        chi2 = 12 * n / (k * (k + 1)) * (square - k * (k + 1) ** 2 / 4)
        p = scipy.stats.chi2.sf(chi2, k - 1)
    rest = n * (k - 1) - chi2
    f = math.inf if rest <= 1e-9 else (n - 1) * chi2 / rest
    return Friedman(
        float(chi2), float(p), float(f), float(scipy.stats.f.sf(f, k - 1, (k - 1) * (n - 1))), n, k
    )


def critical_difference(optimizers: int, problems: int, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference of two mean ranks (Demsar 2006, section 3.2.2).

    CD = q sqrt(k (k + 1) / (6 N)) of k optimizers on N problems, where q is the quantile of the
    studentized range divided by sqrt(2). Raises UserError unless k >= 2 and N >= 1.
    """
    check_whole("the number of optimizers", optimizers, 2)
    check_whole("the number of problems", problems)
    check_share("alpha", alpha)
    q = scipy.stats.studentized_range.ppf(1 - alpha, optimizers, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(optimizers * (optimizers + 1) / (6 * problems)))


def nemenyi(scores: Scores, smaller: bool = True) -> pd.DataFrame:
    """Return p-values of Nemenyi's test of all pairs, (optimizers, optimizers).

    scores: (problems, optimizers). The p-value is of the difference of mean ranks (Demsar 2006,
    section 3.2.2; scikit-posthocs). Raises UserError for a missing score.
    """
    from scikit_posthocs import posthoc_nemenyi_friedman  # takes half a second

    ranks = rank(scores, smaller)
    p = posthoc_nemenyi_friedman(ranks.to_numpy()).to_numpy(dtype=float)
    return pd.DataFrame(p, ranks.columns, ranks.columns)


def wilcoxon_holm(scores: Scores) -> pd.DataFrame:
    """Return Holm-corrected p-values of the signed-rank test over problems, all pairs.

    Benavoli et al. (JMLR 17, 2016) prefer it to Nemenyi's test, since a pair's verdict does not
    depend on the other optimizers. It compares differences across problems, unlike ranks, so the
    problems should share a scale.
    """
    scores = check_complete(scores)
    names = list(scores)
    pairs = list(combinations(range(len(names)), 2))
    values = scores.to_numpy(dtype=float)
    raw = [signed_rank(differences(values[:, i], values[:, j])) for i, j in pairs]
    p = np.eye(len(names))
    for (i, j), value in zip(pairs, holm(raw), strict=True):
        p[i, j] = p[j, i] = value
    return pd.DataFrame(p, names, names)


def cliques(ranks: "pd.Series[float]", p: pd.DataFrame, alpha: float = 0.05) -> list[list[str]]:
    """Return the largest groups of neighbours in rank of which no two differ.

    These are the bars of the critical-difference diagram. ranks: the mean rank of each optimizer.
    p: p-values, optimizers by optimizers. Raises UserError if a rank or a p-value is missing.
    """
    check_share("alpha", alpha)
    if not isinstance(ranks, pd.Series) or not isinstance(p, pd.DataFrame):
        raise UserError("bars need the results of mean_ranks and of a test of all pairs")
    as_numbers(ranks)
    as_numbers(p, 2)
    ranks = ranks.sort_values(kind="stable")
    names = [str(name) for name in ranks.index]
    if ranks.isna().any() or p.reindex(index=names, columns=names).isna().any(axis=None):
        raise UserError("bars need a mean rank of each optimizer and a p-value of each pair")
    apart = p.loc[names, names].to_numpy(dtype=float) <= alpha
    found: list[list[str]] = []
    for start in range(len(names)):
        end = start + 1
        while end < len(names) and not apart[start:end, end].any():
            end += 1
        group = names[start:end]
        if len(group) > 1 and not any(set(group) <= set(other) for other in found):
            found.append(group)
    return found

"""Optimizers over several problems: performance profile and mean ranks."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Comparison, Runs, comparison_of
from optbench.analysis.pairing import PLURALS, by_seed, owners_of
from optbench.analysis.time_to_target import TimeToTarget, asked_times
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.stats.algoperf import closed_form, profile
from optbench.stats.paired_tests import enough_seeds
from optbench.stats.ranks import by_problem, cliques, mean_ranks, medians_by_problem, nemenyi


class Profile(NamedTuple):
    """A performance profile over problems."""

    scores: pd.DataFrame  # see `scores`
    shares: pd.DataFrame  # of problems, optimizers by ratios (`algoperf.profile`)


class Ranking(NamedTuple):
    """Mean ranks of optimizers, over problems or over the seeds of the only one."""

    ranks: "pd.Series[float]"  # best first
    groups: list[list[str]]  # not told apart by Nemenyi's test
    owners: Mapping[str, str]  # the optimizer of each name
    n: int  # problems or seeds
    blocks: str  # "problems", or "seeds of one problem" (of a tuned study: searches)


def profile_of(made: Comparison) -> Profile:
    """Return the profile of the steps to target. Raises UserError if it means nothing."""
    found = asked_times(made)
    if found is None:
        raise UserError("a performance profile needs two optimizers, and two problems of each")

    def make() -> Profile:
        matrix = problem_times(found)
        return Profile(scores(matrix), profile(matrix))

    result: Profile = made.once("profile", make)
    return result


def has_profile(made: Comparison) -> bool:
    """Return whether there is a profile over problems."""
    try:
        profile_of(made)
    except UserError:
        return False
    return True


def problem_times(found: TimeToTarget) -> pd.DataFrame:
    """Return steps to target, optimizers by problems.

    Raises UserError if a performance profile of them would mean nothing.
    """
    matrix = time_matrix(found.times)
    owners = owners_of(found.times)
    if len(matrix) < 2 or len({owners[str(name)] for name in matrix.index}) < len(matrix):
        raise UserError("a performance profile needs two optimizers, with one setting each")
    if (early := (matrix <= 0).any()).any():
        raise UserError(
            f"a performance profile needs times above 0, and on {early.idxmax()} the target "
            f"({found.rule}) is reached at step 0: choose another with --target"
        )
    scores(matrix)  # raises below two problems
    return matrix


def scores(times: pd.DataFrame) -> pd.DataFrame:
    """Return score, reached (of n problems) and n per optimizer, best first.

    times: `time_matrix`; score: `algoperf.closed_form`. Raises UserError below two problems.
    """
    if times.shape[1] < 2:
        raise UserError("a performance profile is over problems, and there is one")
    found = pd.DataFrame({"score": closed_form(times), "reached": (times < math.inf).sum(axis=1)})
    found = found.assign(n=times.shape[1]).sort_values("score", ascending=False, kind="stable")
    return found.rename_axis("optimizer").reset_index()


def time_matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the median over seeds of `times`, optimizers by problems.

    Raises UserError if an optimizer was not run on a problem, which is not a miss.
    """
    medians = medians_by_problem(frame)
    for row, column in np.argwhere(medians.isna().to_numpy())[:1]:
        raise UserError(f"{medians.columns[column]} was not run on {medians.index[row]}")
    return medians.T


def ranking(runs: Runs, column: str, facet: Sequence[str] | None = None) -> Ranking:
    """Rank the optimizers by the final `column`, over problems or the seeds of one.

    Raises UserError below three optimizers or six seeds, and for several settings of one.
    """
    made = comparison_of(runs)
    keys = [key for key in facet or () if key != "optimizer"] or None
    frame = by_seed(made, column, keys, made.main)
    owners = owners_of(frame)
    if len(frame.columns) < 3 or len(set(owners.values())) < len(frame.columns):
        raise UserError("ranks need three optimizers, with one setting each on a problem")
    if len(frame.index.unique("problem")) > 1:
        values, blocks = by_problem(frame), "problems"
    else:
        values, blocks = frame.dropna(), f"{PLURALS[made.unit]} of one problem"
        if len(values) < enough_seeds():
            raise UserError("too few seeds to rank over")
    smaller = metric_of(column).smaller
    ranks = mean_ranks(values, smaller)
    groups = cliques(ranks, nemenyi(values, smaller))
    return Ranking(ranks, groups, owners, len(values), blocks)

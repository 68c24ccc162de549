"""Who leads on a problem, and what may be claimed of the leader: the one place that decides it.

Series are ordered by their medians (`ranked`). The leader is the first of them, in a tuned study
the optimizer with the best trial by validation (`leader_of`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.stats.corrections import (
    MAX_TYPE,
    all_pairs,
    corrected,
    on_common_seeds,
    results_of,
    values_of,
)
from optbench.stats.estimates import middle
from optbench.stats.paired_tests import differences
from optbench.stats.pairwise import PairVerdict, compare_pair, outcome_for


def ranked(part: pd.DataFrame, smaller: bool = True) -> list[str]:
    """Return the series of one problem, best first by their medians.

    part: seeds by series, NaN where there is no run.
    """
    medians = medians_of(part)
    lost = np.isinf(part.to_numpy(dtype=float)).sum(axis=0)
    shares = dict(zip(map(str, part), lost / part.notna().sum(axis=0).clip(lower=1), strict=True))
    return sorted(medians, key=lambda name: place(medians[name], smaller, shares[name], name))


def place(
    median: float, smaller: bool, diverged: float = 0.0, name: str = ""
) -> tuple[float, float, str]:
    """Return the key by which series are ordered, the best one first: by their median, of equal
    ones by the share of runs that diverged, then by name. NaN (there is no value) is last."""
    best = math.inf if math.isnan(median) else median if smaller else -median
    return best, diverged, name


def medians_of(part: pd.DataFrame) -> dict[str, float]:
    """Return the median of each series of one problem that has a run."""
    columns = dict(zip(map(str, part), part.to_numpy(dtype=float).T, strict=True))
    found = {name: middle(values[~np.isnan(values)]) for name, values in columns.items()}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def best_settings(part: pd.DataFrame, owners: Mapping[str, str], smaller: bool = True) -> list[str]:
    """Return the best series of each optimizer on one problem by its median, best first.

    owners: the optimizer of each series. Of a single optimizer all settings are returned: they are
    what is compared.
    """
    names = ranked(part, smaller)
    if len({owners[name] for name in names}) < 2:
        return names
    best: dict[str, str] = {}
    for name in names:
        best.setdefault(owners[name], name)
    return list(best.values())


class Leader(NamedTuple):
    """Who leads on a problem."""

    name: str  # the series
    fixed: bool  # before the values that are compared were seen: by validation
    ranked: list[str]  # each optimizer at its best setting, best first by these values


def leader_of(
    part: pd.DataFrame,
    smaller: bool,
    owners: Mapping[str, str],
    by_validation: Sequence[str] = (),
) -> Leader | None:
    """Return the leader of one problem; None where there is no run.

    part: seeds by series. owners: the optimizer of each series. by_validation: in a tuned study
    the optimizers, the best trial first (`trials.order_of`). Who shares no seed with another one
    leads only where nobody does.
    """
    part = part.dropna(axis=1, how="all")
    names = best_settings(part, owners, smaller)
    if not names:
        return None
    there = part.notna().to_numpy().astype(int)
    shared = dict(zip(map(str, part), ((there.T @ there) > 0).sum(axis=0) > 1, strict=True))
    able = [name for name in names if shared[name]] or names
    chosen = [name for name in able if owners[name] in by_validation]
    if not chosen:
        return Leader(able[0], False, names)
    leader = min(chosen, key=lambda name: by_validation.index(owners[name]))
    # with several settings of an optimizer the values compared here chose among them
    fixed = len(names) == len(part.columns) == len({owners[name] for name in names})
    return Leader(leader, fixed, names)


def leader_and_others(
    part: pd.DataFrame, smaller: bool = True, owners: Mapping[str, str] | None = None
) -> tuple[list[str], list[np.ndarray], np.ndarray]:
    """Return the series of one problem, best first; the first one's values beside each other's on
    common seeds, (seeds, 2) each; and their p-values of the max-type test over all pairs.

    owners: the optimizer of each series; pairs of one optimizer's are then left out, as in
    `pairwise.judge`. No pairs where some series has no seed in common with the first.
    """
    names = ranked(part, smaller)
    pairs_of_all = all_pairs(names, owners)
    frame = part if "problem" in part.index.names else pd.concat({"": part}, names=["problem"])
    results = results_of(frame)
    family = on_common_seeds(results, pairs_of_all)
    against = [pair for pair in family if pair[1] == names[0]]
    if not against or len(against) < sum(pair[0] == names[0] for pair in pairs_of_all):
        return names, [], np.empty(0)
    p_of = dict(zip(family, corrected(results, family, MAX_TYPE), strict=True))
    pairs = [np.stack(values_of(results, pair), axis=1) for pair in against]
    return names, pairs, np.array([p_of[pair] for pair in against])


def first_against_second(
    part: pd.DataFrame, smaller: bool = True, owners: Mapping[str, str] | None = None
) -> tuple[str, PairVerdict] | None:
    """Return the name of the second and what may be claimed of it against the first.

    owners: the optimizer of each series. The second of another optimizer is judged as
    `pairwise.judge` does it, whose word a report's verdict has: over the pairs of two optimizers.
    None where there is nothing to compare.
    """
    names = ranked(part, smaller)
    if owners is not None and len(names) > 1 and owners[names[0]] == owners[names[1]]:
        owners = None  # two settings of one optimizer: over all pairs
    names, pairs, p = leader_and_others(part, smaller, owners)
    if not pairs:
        return None
    family = len(all_pairs(names, owners))
    first, second = pairs[0].T
    verdict = compare_pair(
        second, first, smaller, p=float(p[0]), comparisons=family, correction=MAX_TYPE
    )
    return names[1], verdict


def winner(part: pd.DataFrame, smaller: bool = True, alpha: float = 0.05) -> str | None:
    """Return the series of one problem that may be claimed to be better than every other one.

    None where there is none.
    """
    names, pairs, found = leader_and_others(part, smaller)
    words = [
        outcome_for(differences(*pair.T), p, smaller, alpha, MAX_TYPE)
        for pair, p in zip(pairs, found, strict=True)
    ]
    return names[0] if words and all(word == "better" for word in words) else None

"""The leader of a problem, and the claims about it: the one place that decides.

Series are ordered by their medians (`ranked`). The leader is the first, or in a tuned study the
optimizer that is first by validation (`leader_of`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Comparison
from optbench.analysis.pairing import pair_up, run_keys
from optbench.common.metrics import metric_of
from optbench.stats.corrections import (
    MAX_TYPE,
    UNPAIRED,
    all_pairs,
    corrected,
    on_common_seeds,
    results_of,
    values_of,
)
from optbench.stats.estimates import median
from optbench.stats.pairwise import PairVerdict, compare_pair, outcome_for


def ranked(part: pd.DataFrame, smaller: bool = True) -> list[str]:
    """Return the series of one problem, best first by their medians.

    part: seeds by series, NaN without a run.
    """
    medians = medians_of(part)
    lost = np.isinf(part.to_numpy(dtype=float)).sum(axis=0)
    shares = dict(zip(map(str, part), lost / part.notna().sum(axis=0).clip(lower=1), strict=True))
    return sorted(medians, key=lambda name: place(medians[name], smaller, shares[name], name))


def place(
    median: float, smaller: bool, diverged: float = 0.0, name: str = ""
) -> tuple[float, float, str]:
    """Return the sort key of a series, the best first; NaN (no value) is last.

    Series are ordered by median, then by the share of runs that diverged, then by name.
    """
    best = math.inf if math.isnan(median) else median if smaller else -median
    return best, diverged, name


def medians_of(part: pd.DataFrame) -> dict[str, float]:
    """Return the median of each series of one problem that has a run."""
    columns = dict(zip(map(str, part), part.to_numpy(dtype=float).T, strict=True))
    found = {name: median(values[~np.isnan(values)]) for name, values in columns.items()}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def best_settings(part: pd.DataFrame, owners: Mapping[str, str], smaller: bool = True) -> list[str]:
    """Return the best series of each optimizer on one problem, best first by median.

    owners: the optimizer of each series. Of a single optimizer all settings are returned, as they
    are compared with each other.
    """
    names = ranked(part, smaller)
    if len({owners[name] for name in names}) < 2:
        return names
    best: dict[str, str] = {}
    for name in names:
        best.setdefault(owners[name], name)
    return list(best.values())


def at_best_settings(made: Comparison) -> Comparison:
    """Return the comparison of each optimizer at its best setting on each problem.

    The final value of the curves' column chooses the settings.
    """
    keys = run_keys(made)
    frame = pair_up(keys, made.finals(made.final))
    smaller, owners = metric_of(made.final).smaller, frame.attrs["owners"]
    kept = {
        (problem, name)
        for problem, part in frame.groupby(level="problem")
        for name in best_settings(part.dropna(axis=1, how="all"), owners, smaller)
    }
    best = [key in kept for key in zip(keys["problem"], keys["variant"], strict=True)]
    table = made.table[made.table["run"].isin(set(keys["run"][best]))]
    return replace(made, table=table, _made={})


Pairs = list[tuple[np.ndarray, np.ndarray]]  # the values of two series


class Leader(NamedTuple):
    """The leader of a problem."""

    name: str  # the series
    fixed: bool  # whether validation alone chose it, before the compared values were seen
    ranked: list[str]  # each optimizer at its best setting, best first by these values


def leader_of(
    part: pd.DataFrame,
    smaller: bool,
    owners: Mapping[str, str],
    by_validation: Sequence[str] = (),
) -> Leader | None:
    """Return the leader of one problem; None without a run.

    part: seeds by series. owners: the optimizer of each series. by_validation: in a tuned study the
    optimizers, the best trial first (`trials.order_of`). A series that shares no seed with
    another leads only if no series does.
    """
    part = part.dropna(axis=1, how="all")
    names = best_settings(part, owners, smaller)
    if not names:
        return None
    there = part.notna().to_numpy().astype(int)
    owned = np.array([owners[str(name)] for name in part])
    others = owned[:, None] != owned if len(set(owned)) > 1 else ~np.eye(len(owned), dtype=bool)
    shares = (others & (there.T @ there > 0)).any(axis=0)
    shared = dict(zip(map(str, part), shares, strict=True))
    able = [name for name in names if shared[name]] or names
    chosen = [name for name in able if owners[name] in by_validation]
    if not chosen:
        return Leader(able[0], False, names)
    leader = min(chosen, key=lambda name: by_validation.index(owners[name]))
    # of several settings of an optimizer, the compared values chose one
    fixed = len(names) == len(part.columns) == len({owners[name] for name in names})
    return Leader(leader, fixed, names)


def leader_and_others(
    part: pd.DataFrame, smaller: bool = True, owners: Mapping[str, str] | None = None
) -> tuple[list[str], Pairs, np.ndarray, str]:
    """Return the series, best first, and the first one's pairs with their p-values.

    A pair is the first's values and another's, (seeds,) each on common seeds. The p-values are
    those of the max-type test over all pairs; unpaired, of rank-sum tests with Holm's correction
    over all pairs. The last item names this correction. owners: the optimizer of each series; pairs
    of one optimizer are then left out, as in `pairwise.judge_pairs`. There are no pairs if some
    series shares no seed with the first.
    """
    names = ranked(part, smaller)
    pairs_of_all = all_pairs(names, owners)
    frame = part if "problem" in part.index.names else pd.concat({"": part}, names=["problem"])
    results = results_of(frame)
    correction = MAX_TYPE if results.paired else UNPAIRED
    family = on_common_seeds(results, pairs_of_all)
    against = [pair for pair in family if pair[1] == names[0]]
    if not against or len(against) < sum(pair[0] == names[0] for pair in pairs_of_all):
        return names, [], np.empty(0), correction
    p_of = dict(zip(family, corrected(results, family, correction), strict=True))
    pairs = [values_of(results, pair) for pair in against]
    return names, pairs, np.array([p_of[pair] for pair in against]), correction


def first_against_second(
    part: pd.DataFrame, smaller: bool = True, owners: Mapping[str, str] | None = None
) -> tuple[str, PairVerdict] | None:
    """Return the name of the second and the verdict on it against the first.

    owners: the optimizer of each series. A second of another optimizer is judged over the pairs of
    two optimizers, as `pairwise.judge_pairs` does for a report's verdict. None if nothing can be
    compared.
    """
    names = ranked(part, smaller)
    if owners is not None and len(names) > 1 and owners[names[0]] == owners[names[1]]:
        owners = None  # two settings of one optimizer: compare all pairs
    names, pairs, p, correction = leader_and_others(part, smaller, owners)
    if not pairs:
        return None
    family = len(all_pairs(names, owners))
    first, second = pairs[0]
    verdict = compare_pair(
        second, first, smaller, p=float(p[0]), comparisons=family, correction=correction
    )
    return names[1], verdict


def winner(part: pd.DataFrame, smaller: bool = True, alpha: float = 0.05) -> str | None:
    """Return the series that may be claimed to be better than every other, or None."""
    names, pairs, found, correction = leader_and_others(part, smaller)
    words = [
        outcome_for(*pair, p, smaller, alpha, correction)
        for pair, p in zip(pairs, found, strict=True)
    ]
    return names[0] if words and all(word == "better" for word in words) else None

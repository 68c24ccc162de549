"""One side of a claim's check: its values by seed, at one setting chosen of several, or the spread
over several; and the p-value of one side's best against the other's.

A side stands at the setting at which the fewest runs diverge, and of those at which the mean over
the seeds is best: a single collapse counts. Both sides are chosen so, on the seeds that are tested.
Which setting comes first is partly chance, for all seeds alike: the two chosen alone were called
different in 20 % of studies of SGD against itself, resampled from runs of which some collapse.
Therefore the side that is ahead must be ahead of *every* setting of the other: its p-value is the
largest of these, and grows where the side was itself chosen of several (`choice_factor`): 1 %.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.claims.values import measure
from optbench.analysis.columns import filter_runs, resolve, short_name
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import show, sort_key
from optbench.stats.estimates import median
from optbench.stats.paired_tests import differences, signed_rank
from optbench.stats.power import rank_biserial

WAYS = ("best", "spread")
RULE = (
    "Where a side has several settings, such as learning rates, it stands at the one at which the "
    "fewest runs diverge, and of those at which the mean over the seeds is best, chosen by this "
    "rule for both sides alike and on the same seeds. Its p-value is then the largest of those "
    "against every setting of the other side, doubled (from ten settings on, tripled) because the "
    "side that is ahead was chosen, too."
)


class Side(NamedTuple):
    """The runs that one side of a check has."""

    name: str
    tried: pd.DataFrame  # seeds by settings: a column per combination of values of `keys`
    keys: tuple[str, ...]  # of which the best value is chosen
    chosen: int  # the column
    notes: tuple[str, ...]  # what was chosen

    @property
    def best(self) -> np.ndarray:
        """The value of each seed at the chosen setting, (seeds,)."""
        return self.tried.iloc[:, self.chosen].to_numpy(dtype=float)

    def setting(self, column: int) -> str:
        """The values of a column's keys, as in "lr 0.1"."""
        return setting_text(self.keys, self.tried.columns[column])


def setting_text(keys: Iterable[str], values: Iterable[Any]) -> str:
    """Return the values of keys, as in "lr 0.1"."""
    return ", ".join(f"{short_name(k)} {show(v)}" for k, v in zip(keys, values, strict=True))


def side(
    source: pd.DataFrame,
    table: pd.DataFrame,
    check: Mapping[str, Any],
    conditions: Mapping[str, Any],
) -> Side:
    """Return the side of a check whose runs meet the conditions.

    source: the table whose column is compared; table: that of `epochs.csv`. The check's `across`
    says what is made of a key of which a side has several values, the last key outermost: "best"
    takes one of them, "spread" the largest minus the smallest value of each seed. Raises UserError
    where runs are missing or several of a seed are left, and for `across` the seeds.
    """
    texts = {k: json.dumps(v) if isinstance(v, list) else show(v) for k, v in conditions.items()}
    filters = [f"{key}={text}" for key, text in texts.items()]
    name = ", ".join(f"{short_name(resolve(table, k))} {text}" for k, text in texts.items())
    values = measure(filter_runs(source, filters), check)
    runs = filter_runs(table, filters).groupby("run", observed=True, sort=False).first()
    asked = check.get("across", {})
    if not isinstance(asked, Mapping):
        raise UserError(f"across: {asked!r} is not of the form {{KEY: best}} or {{KEY: spread}}")
    across = [(resolve(table, key), how) for key, how in asked.items()]
    if unknown := {how for _, how in across} - set(WAYS):
        raise UserError(
            f"across: {', '.join(sorted(map(str, unknown)))} is not one of {', '.join(WAYS)}"
        )
    if "seed" in dict(across):  # by seeds the two sides are paired
        raise UserError(
            "across: seed is no key of which a value is chosen, for each seed of one side is "
            "compared with the same of the other; leave it out"
        )
    runs = runs[["seed", *(key for key, _ in across)]].astype(object)
    runs["value"] = values.reindex(runs.index)
    outer = len(across)
    while outer and across[outer - 1][1] == "best":
        outer -= 1
    keys = [key for key, _ in across[outer:]]
    smaller = metric_of(str(check["value"])).smaller
    notes: list[str] = []
    parts = runs.groupby(keys, sort=False) if keys else [((), runs)]
    tried = {
        tuple(values): by_seed(part, across[:outer], smaller, name, notes) for values, part in parts
    }
    ordered = sorted(tried, key=lambda values: [sort_key(value) for value in values])
    frame = one_frame({values: tried[values] for values in ordered}, keys, name)
    chosen = best_of(frame.to_numpy(dtype=float), smaller)
    made = Side(name, frame, tuple(keys), chosen, ())
    if set(keys) - {resolve(table, key) for key in conditions}:
        notes.append(f"best {made.setting(chosen)} ({name}{edge(frame, chosen)})")
    return made._replace(notes=tuple(notes))


def number_side(value: float, seeds: pd.Index) -> Side:
    """Return the side of a check that is a number, the same for all seeds."""
    return Side("", pd.DataFrame({(): value}, index=seeds), (), 0, ())


def one_frame(
    tried: Mapping[tuple[Any, ...], "pd.Series[float]"], keys: list[str], name: str
) -> pd.DataFrame:
    """Return seeds by settings. Raises UserError where a setting lacks the seed of another."""
    seeds = sorted({seed for part in tried.values() for seed in part.index})
    for values, part in tried.items():
        if lacking := sorted(set(seeds) - set(part.index)):
            raise UserError(
                f"{name}, {setting_text(keys, values)} has no run of seed "
                f"{', '.join(map(str, lacking))}; runs are missing: the same command again makes "
                "them"
            )
    cells = np.array([part.loc[seeds].to_numpy(dtype=float) for part in tried.values()]).T
    frame = pd.DataFrame(cells, index=pd.Index(seeds), columns=range(len(tried)))
    frame.columns = pd.Index(list(tried), tupleize_cols=False)
    return frame


def by_seed(
    runs: pd.DataFrame,
    across: list[tuple[str, str]],
    smaller: bool,
    name: str,
    notes: list[str],
) -> "pd.Series[float]":
    """Return the value of each seed, of several runs of it as `across` says (last one outermost).

    Notes get what was chosen inside of a spread.
    """
    if not across:
        if runs["seed"].duplicated().any():
            raise UserError(
                f"{name} has several runs of a seed: say in the check which is meant, or what is "
                "made of them with across: {KEY: best} or {KEY: spread}"
            )
        return runs.set_index("seed")["value"].astype(float)
    *inner, (key, how) = across
    values = sorted(runs[key].unique(), key=sort_key)
    parts = {
        (v,): by_seed(runs[runs[key] == v], inner, smaller, f"{name}, {show(v)}", notes)
        for v in values
    }
    frame = one_frame(parts, [key], name)
    cells = frame.to_numpy(dtype=float)
    if how == "best":
        chosen = best_of(cells, smaller)
        notes.append(f"best {short_name(key)} {show(values[chosen])} ({name}{edge(frame, chosen)})")
        return frame.iloc[:, chosen]
    finite = np.isfinite(cells).all(axis=1)
    ends = np.where(finite[:, None], cells, 0.0)
    spread = np.where(finite, ends.max(axis=1) - ends.min(axis=1), math.inf)
    return pd.Series(np.where(np.isnan(cells).any(axis=1), math.nan, spread), frame.index)


def best_of(cells: np.ndarray, smaller: bool) -> int:
    """Return the column of (seeds, settings) with the fewest runs that diverged (infinite or NaN),
    and of those the one with the best mean; the first of equals."""
    finite = np.isfinite(cells)
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.where(finite, cells, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    return int(np.lexsort((means if smaller else -means, (~finite).sum(axis=0)))[0])


def edge(frame: pd.DataFrame, chosen: int) -> str:
    """Return a word where the chosen column is the first or last of several values of one key."""
    if frame.shape[1] == 1 or len(frame.columns[0]) != 1:
        return ""
    return ", the edge of those tried" if chosen in (0, frame.shape[1] - 1) else ""


def choice_factor(settings: int) -> int:
    """Return what multiplies the p-value of a side chosen of so many settings on the tested seeds.

    By simulation of the worst case: 8 seeds, all settings of one side equally good, against one
    setting that is as good (normal, skewed, one run in ten collapsing; 2,500 studies each). Called
    different: without a factor 6.0 to 8.8 % at 7 to 9 settings, with 2 3.2 to 5.1 %; with 3 3.4 to
    4.1 % at 12 and 4.8 to 6.0 % at 24. Of sides that are alike it is 1 % or less.
    """
    return 1 if settings == 1 else 2 if settings < 10 else 3


def ahead(a: Side, b: Side, smaller: bool) -> tuple[Side, Side]:
    """Return both sides, first the one ahead at the chosen settings. smaller: small is good."""
    return (a, b) if (rank_biserial(differences(a.best, b.best)) < 0) == smaller else (b, a)


def p_of_best(front: Side, other: Side, smaller: bool) -> tuple[float, str]:
    """Return the two-sided p-value of the side that is ahead, and which setting decides it.

    It is compared with every setting of the other side by signed ranks; the largest p-value counts
    (1 where a setting of the other is ahead of it), times `choice_factor`. The second value is
    empty where the other side's chosen setting decides.
    """
    p = np.zeros(other.tried.shape[1])
    for column, values in enumerate(other.tried.to_numpy(dtype=float).T):
        if not np.isnan(values).any():  # a run diverged, and what is compared has no worst value
            d = differences(front.best, values)
            p[column] = signed_rank(d) if (rank_biserial(d) < 0) == smaller else 1.0
    largest = float(p.max())
    decides = int(p.argmax()) if largest > p[other.chosen] else other.chosen
    note = "" if decides == other.chosen else f"least sure against {other.setting(decides)}"
    return min(1.0, largest * choice_factor(front.tried.shape[1])), note


def coarse(part: Side, effect: float, adds: bool) -> list[str]:
    """Return a warning for each key in which the chosen setting's neighbours differ from it by
    more than `effect`, the difference between two sides: the best may lie between them.

    Neighbours are the next smaller and larger value of a key of numbers. Distances are medians
    over the seeds. adds: whether a better value would only add to the difference.
    """
    settings = list(part.tried.columns)
    at = settings[part.chosen]
    found = []
    for index, key in enumerate(part.keys):
        line = [s for s in settings if s[:index] + s[index + 1 :] == at[:index] + at[index + 1 :]]
        if any(sort_key(s[index])[0] or isinstance(s[index], (bool, np.bool_)) for s in line):
            continue  # not all are numbers
        here = line.index(at)
        near = [*line[max(here - 1, 0) : here], *line[here + 1 : here + 2]]
        cells = {s[index]: part.tried[s].to_numpy(dtype=float) for s in near}
        gaps = {
            value: abs(float(median(differences(cell, part.best))))
            for value, cell in cells.items()
            if not np.isnan(cell).any()
        }
        steps = [
            f"{show(value)}, where it diverges"
            if math.isinf(gap)
            else f"{show(value)} by {gap:.3g}"
            for value, gap in gaps.items()
            if gap > abs(effect)
        ]
        if steps:
            found.append(
                f"{part.name}, {short_name(key)} {show(at[index])} differs from "
                f"{' and '.join(steps)}, the two sides by {abs(effect):.3g}: a value "
                "between may be better still"
                + (" (which would add to the difference)" if adds else "")
            )
    return found


def number(value: float) -> str:
    """Return three significant digits; what diverged is called so."""
    return "diverged" if math.isinf(value) else f"{value:.3g}"
